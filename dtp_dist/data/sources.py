"""The data sets by name, and how their splits are cut.

To add one, write a function ``source(root, *, options...) -> Pool`` and name it in SOURCES. Nothing here
depends on a run's seed: a data set is the same in every run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dtp_dist.algorithm.randomness import derive_seed
from dtp_dist.data.examples import Examples, Pool, Splits
from dtp_dist.data.files import cifar, mnist_like
from dtp_dist.errors import ConfigError, DataError

DIGITS_TEST = 397
SYNTHETIC_NOISE = 0.25  # deviation of a pixel around its class's, in units of the full range


def digits(_root: Path) -> Pool:
    """Return scikit-learn's own handwritten digits: 1797 images [1, 8, 8] of 0..16, 10 classes; no files.

    The order is fixed and deals the classes evenly, so every run of examples in it (the first ones, the
    last ones) has each class in its share. The last 397 are the test split, 200 before them validation.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.as_tensor(bunch.images, dtype=torch.uint8).unsqueeze(1)
    labels = torch.as_tensor(bunch.target, dtype=torch.int64)
    dealt = _dealt(labels.tolist())
    everything = Examples(images[dealt], labels[dealt], divisor=16.0)
    border = len(everything) - DIGITS_TEST
    test = everything.part(border, len(everything))
    return Pool(everything.part(0, border), test, classes=10, valid_examples=200)


def _dealt(labels: Sequence[int]) -> Tensor:
    """Return an order, int64 [N], that mixes each class by a fixed hash and spreads it evenly."""
    place: dict[int, float] = {}
    for label in sorted(set(labels)):
        members = [index for index, other in enumerate(labels) if other == label]
        members.sort(key=lambda index: derive_seed("digits", index))
        place |= {index: (rank + 0.5) / len(members) for rank, index in enumerate(members)}
    return torch.tensor(sorted(place, key=lambda index: (place[index], derive_seed("deal", index))))


def synthetic(
    _root: Path, *, examples: int = 2000, shape: Sequence[int] = (1, 28, 28), classes: int = 10
) -> Pool:
    """Return made-up uint8 images of ``shape`` (C, H, W): one random image per class, and noise around it.

    Of the ``examples``, a fifth is the test split and a tenth validation. The same arguments give the
    same data. Raises ConfigError for sizes that make no data set.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ConfigError(f"data.shape={list(shape)}: must be three positive numbers, [C, H, W]")
    if classes < 2:
        raise ConfigError(f"data.classes={classes}: must be at least 2")
    if examples < 10:
        raise ConfigError(f"data.examples={examples}: must be at least 10")
    generator = torch.Generator().manual_seed(derive_seed("synthetic", examples, classes, *shape))
    centres = torch.rand(classes, *shape, generator=generator)
    labels = torch.arange(examples).remainder(classes)[torch.randperm(examples, generator=generator)]
    noise = torch.randn(examples, *shape, generator=generator)
    pixels = noise.mul_(SYNTHETIC_NOISE).add_(centres[labels]).clamp_(0.0, 1.0)
    everything = Examples(pixels.mul_(255.0).round_().to(torch.uint8), labels)
    border = examples - examples // 5
    test = everything.part(border, examples)
    return Pool(everything.part(0, border), test, classes=classes, valid_examples=examples // 10)


SOURCES: Mapping[str, Callable[..., Pool]] = {
    "digits": digits,
    "mnist": partial(mnist_like, "MNIST"),
    "fashion_mnist": partial(mnist_like, "FashionMNIST"),
    "cifar10": partial(cifar, "CIFAR10", 10),
    "cifar100": partial(cifar, "CIFAR100", 100),
    "synthetic": synthetic,
}


def load(
    name: str,
    root: str | Path,
    *,
    train_examples: int | None = None,
    valid_examples: int | None = None,
    test_examples: int | None = None,
    normalize: str = "none",
    **options: Any,
) -> Splits:
    """Return the splits of the data set ``name`` (a key of SOURCES), read from or fetched into ``root``.

    Validation is the last ``valid_examples`` of the training examples (None: the data set's custom; 0:
    no such split); training is the first ``train_examples`` of the others and test the first
    ``test_examples`` (None: all). ``normalize="standardize"`` takes off the mean of each channel and
    divides by its deviation, both of the training split; "none" leaves pixels in [0, 1]. ``options``
    belong to the source, as ``examples``, ``shape`` and ``classes`` do to "synthetic".

    Raises ConfigError for an unknown name, option or value; DataError if files are missing and can't be
    fetched, are damaged, or hold fewer examples than asked for.
    """
    if name not in SOURCES:
        raise ConfigError(f"data.name={name}: must be one of {', '.join(SOURCES)}")
    if normalize not in ("none", "standardize"):
        raise ConfigError(f"data.normalize={normalize}: must be none or standardize")
    _check_options(name, options)
    pool = SOURCES[name](Path(root).expanduser().resolve(), **options)
    splits = _cut(name, pool, train_examples, valid_examples, test_examples)
    return _standardized(splits) if normalize == "standardize" else splits


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(SOURCES[name]).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            has = f"has {', '.join(known)}" if known else "has no options"
            raise ConfigError(f"data.{option}: not an option of data.name={name}, which {has}")


def _cut(name: str, pool: Pool, train: int | None, valid: int | None, test: int | None) -> Splits:
    total = len(pool.training)
    valid = _size(name, "valid_examples", valid, pool.valid_examples, least=0, most=total - 1)
    rest = total - valid
    train = _size(name, "train_examples", train, rest, least=1, most=rest)
    test = _size(name, "test_examples", test, len(pool.test), least=1, most=len(pool.test))
    return Splits(
        train=pool.training.part(0, train),
        valid=pool.training.part(rest, total) if valid else None,
        test=pool.test.part(0, test),
        classes=pool.classes,
        shape=pool.training.shape,
    )


def _size(name: str, key: str, asked: int | None, usual: int, *, least: int, most: int) -> int:
    """Return ``asked``, or ``usual`` for None, if it is from ``least`` to ``most``."""
    size = usual if asked is None else asked
    if size < least:
        raise ConfigError(f"data.{key}={size}: must be at least {least}")
    if size > most:
        raise DataError(f"data.{key}={size}: {name} has no more than {most} for that split")
    return size


def _standardized(splits: Splits) -> Splits:
    mean, deviation = splits.train.statistics()
    return Splits(
        train=splits.train.standardized(mean, deviation),
        valid=splits.valid.standardized(mean, deviation) if splits.valid else None,
        test=splits.test.standardized(mean, deviation),
        classes=splits.classes,
        shape=splits.shape,
    )
