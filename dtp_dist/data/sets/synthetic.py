"""Made-up images of any size: a random one for each class, and noise around it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dtp_dist.algorithm.randomness import derive_seed
from dtp_dist.data.examples import Examples, Pool
from dtp_dist.data.rows import Held
from dtp_dist.data.source import Place, Source, blank
from dtp_dist.errors import ConfigError

NOISE = 0.25  # deviation of a pixel around its class's, in units of the full range
TARGETS = ("classes", "numbers", "labels")


def load(
    _place: Place,
    *,
    examples: int = 2000,
    shape: Sequence[int] = (1, 28, 28),
    classes: int = 10,
    targets: str = "classes",
) -> Pool:
    """Return made-up uint8 images of ``shape`` (C, H, W): one random image per class, and noise around it.

    With ``targets: numbers`` an image is a mixture of all the classes' and its labels are their ``classes``
    weights, from -1 to 1; with ``labels`` each weight is 0 or 1. Of the ``examples``, a fifth is the test
    split and a tenth validation. The same arguments give the same data. Raises ConfigError for sizes that
    make no data set.
    """
    _check(examples, shape, classes, targets)
    purpose = "synthetic" if targets == "classes" else f"synthetic {targets}"
    generator = torch.Generator().manual_seed(derive_seed(purpose, examples, classes, *shape))
    centres = torch.rand(classes, *shape, generator=generator)
    if targets == "classes":
        labels = torch.arange(examples).remainder(classes)[torch.randperm(examples, generator=generator)]
        noise = torch.randn(examples, *shape, generator=generator)
        pixels = noise.mul_(NOISE).add_(centres[labels])
    else:
        labels, pixels = _mixed(examples, centres, targets, generator)
    stored = pixels.clamp_(0.0, 1.0).mul_(255.0).round_().to(torch.uint8)
    everything = Examples(Held(stored), labels)
    border = examples - examples // 5
    test = everything.part(border, examples)
    return Pool(everything.part(0, border), test, _classes(classes, targets), valid_examples=examples // 10)


def _mixed(examples: int, centres: Tensor, targets: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return weights [N, K] and the noisy sums of ``centres`` [K, C, H, W] with them, float32 [N, C, H, W].

    Term by term, for a product of matrices has other last bits elsewhere.
    """
    weights = torch.rand(examples, len(centres), generator=generator).mul_(2.0).sub_(1.0)
    if targets == "labels":
        weights = (weights > 0).to(torch.float32)
    pixels = torch.randn(examples, *centres.shape[1:], generator=generator).mul_(NOISE / 2).add_(0.5)
    for weight, centre in zip(weights.unbind(1), centres, strict=True):
        pixels.add_(weight.view(-1, 1, 1, 1) * (centre - 0.5), alpha=len(centres) ** -0.5)
    return weights, pixels


def sketch(
    _place: Place,
    *,
    examples: int = 2000,
    shape: Sequence[int] = (1, 28, 28),
    classes: int = 10,
    targets: str = "classes",
) -> Pool:
    """Return the sizes and shapes; raises ConfigError as ``load``."""
    _check(examples, shape, classes, targets)
    numbers = None if targets == "classes" else classes
    training, test = (
        blank(count, shape, numbers=numbers) for count in (examples - examples // 5, examples // 5)
    )
    return Pool(training, test, _classes(classes, targets), valid_examples=examples // 10)


def _classes(classes: int, targets: str) -> int | None:
    return classes if targets == "classes" else None


def _check(examples: object, shape: object, classes: object, targets: object) -> None:
    """Check the options of made-up data.

    Raises:
        ConfigError: they make no data set.
    """
    if targets not in TARGETS:
        text = f"{targets!r} is not allowed; it must be one of {', '.join(TARGETS)}"
        raise ConfigError(f"data.options.targets: {text}")
    sizes = list(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else [shape]
    if len(sizes) != 3 or not all(_at_least(1, each) for each in sizes):
        text = "is not allowed; it must be three positive numbers, [C, H, W]"
        raise ConfigError(f"data.options.shape: {sizes} {text}")
    fewest = 2 if targets == "classes" else 1
    for name, value, least in (("classes", classes, fewest), ("examples", examples, 10)):
        if not _at_least(least, value):
            text = f"{value!r} is not allowed; it must be a whole number of at least {least}"
            raise ConfigError(f"data.options.{name}: {text}")


def _at_least(least: int, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


SYNTHETIC = Source(load, sketch, unknown=lambda place: False)
