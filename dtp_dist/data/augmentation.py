"""Augmentation of training examples: torchvision's transforms, each example with random numbers of its own.

They come from (seed, epoch, example) alone, so whoever reads an example, and when, does not matter.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dtp_dist.algorithm.randomness import derive_seed
from dtp_dist.errors import ConfigError, DataError, in_one_line

KEY = "data.augment"
WITHIN = "transforms"
"""The argument of a transform that holds others, as those of ``random_apply`` and ``random_choice``."""
OF_SEVERAL = ("cutmix", "mixup")
"""What mixes the examples of a minibatch, and their labels."""

Transform = Callable[[Tensor], Tensor]
Steps = Sequence[str | Mapping[str, Any]]


class Augmentation:
    """What happens to each example of the training split when it is read, one transform after another.

    ``steps`` are names of ``torchvision.transforms.v2``, in lower case and underscores, with their arguments:
    ``"random_horizontal_flip"`` or ``{"random_crop": {"size": 32, "padding": 4}}``. Raises ConfigError if one
    is unknown or can't be made of its arguments.
    """

    def __init__(self, steps: Steps, seed: int) -> None:
        self._seed = seed
        self._steps: list[tuple[str, Transform]] = []
        for number, step in enumerate(steps, 1):
            self._steps.append(_made(step, f"{KEY}.{number}"))

    def check(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        """Check that examples (``dtype`` [*shape]) stay what they are.

        Raises:
            ConfigError: they don't, or a transform can't take them; names it.
        """
        try:
            self(torch.zeros(1, *shape, dtype=dtype), 0, torch.zeros(1, dtype=torch.int64))
        except DataError as error:
            raise ConfigError(str(error)) from error

    def __call__(self, stored: Tensor, epoch: int, chosen: Tensor) -> Tensor:
        """Return what becomes of ``stored`` (uint8 or float32 [B, *shape]) in an epoch, fresh and as large.

        ``chosen`` (int64 [B]) are the numbers of the examples within the split.

        Raises:
            DataError: a transform can't take an example, or makes another shape or type of it; names both.
        """
        found = torch.empty_like(stored, memory_format=torch.contiguous_format)
        with _own_stream():
            for place, example in enumerate(chosen.tolist()):
                torch.default_generator.manual_seed(derive_seed(self._seed, "augment", epoch, example))
                found[place] = self._one(stored[place], example)
        return found

    def _one(self, row: Tensor, example: int) -> Tensor:
        seen = row
        for name, transform in self._steps:
            try:
                seen = transform(seen)
            except Exception as error:
                text = in_one_line(error)
                what = f"{_kind(row)} of training example {example}"
                raise DataError(f"{name} can't be done with {what} ({text})") from error
            if not isinstance(seen, Tensor) or seen.shape != row.shape or seen.dtype != row.dtype:
                made = _kind(seen) if isinstance(seen, Tensor) else type(seen).__name__
                text = f"makes {made} of {_kind(row)}, but the other splits are not augmented"
                raise DataError(f"{name} {text}: let it keep shape and type")
        return seen


def _kind(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}"


@contextmanager
def _own_stream() -> Iterator[None]:
    """Leave torch's global stream as it was, and let sums over pixels not depend on the number of threads."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        if threads != 1:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if threads != 1:
                torch.set_num_threads(threads)


def _made(step: Any, key: str) -> tuple[str, Transform]:
    """Return the key, with its name, and the transform of one step.

    Raises:
        ConfigError: there is none of that name, or not with these arguments.
    """
    if isinstance(step, str):
        step = {step: None}
    if not isinstance(step, Mapping) or len(step) != 1:
        text = "must be the name of a transform, or one name with its arguments in braces"
        raise ConfigError(f"{key}: {step!r} {text}: {{random_crop: {{size: 32, padding: 4}}}}")
    ((name, arguments),) = step.items()
    cls = _class_of(name, key)
    if not isinstance(arguments, Mapping | None):
        text = f"must be a section of {name}'s arguments ({_arguments_of(cls)})"
        raise ConfigError(f"{key}.{name}: {arguments!r} {text}")
    found = {str(each): _argument(each, value, f"{key}.{name}") for each, value in (arguments or {}).items()}
    try:
        return f"{key}.{name}", cls(**found)
    except Exception as error:
        text = in_one_line(error)
        raise ConfigError(
            f"{key}.{name}: can't be made ({text}); its arguments are {_arguments_of(cls)}"
        ) from error


def _argument(name: str, value: Any, key: str) -> Any:
    """Return an argument as torchvision takes it: words for its enumerations and transforms within others."""
    from torchvision.transforms import v2

    if name == WITHIN:
        steps = value if isinstance(value, list) else [value]
        return [_made(step, f"{key}.{WITHIN}.{number}")[1] for number, step in enumerate(steps, 1)]
    words: Any = {"interpolation": v2.InterpolationMode, "policy": v2.AutoAugmentPolicy}.get(name)
    if words is None or not isinstance(value, str):
        return value
    try:
        return words(value)
    except ValueError:
        allowed = ", ".join(each.value for each in words)
        raise ConfigError(f"{key}.{name}: {value!r} is not allowed; it must be one of {allowed}") from None


def _class_of(name: Any, key: str) -> Callable[..., Transform]:
    from difflib import get_close_matches

    known = _classes()
    if isinstance(name, str) and name in known:
        return known[name]
    if name in OF_SEVERAL:
        raise ConfigError(f"{key}: {name} mixes several examples; a transform here has one at a time")
    near = get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]}?" if near else "see torchvision's page of transforms"
    raise ConfigError(f"{key}: {name!r} is no transform of torchvision.transforms.v2; {hint}")


@cache
def _classes() -> dict[str, Callable[..., Transform]]:
    """Return torchvision's transforms of one example by our names, RandomCrop as random_crop."""
    from torchvision.transforms import v2

    found = {}
    for name in dir(v2):
        each = getattr(v2, name)
        if isinstance(each, type) and issubclass(each, v2.Transform) and each is not v2.Transform:
            found[_in_lower_case(name)] = each
    return {name: each for name, each in found.items() if name not in OF_SEVERAL}


def _in_lower_case(name: str) -> str:
    """Return RandomCrop as random_crop, ToPILImage as to_pil_image, RandomIoUCrop as random_iou_crop."""
    import re

    whole = name.replace("IoU", "Iou").replace("MixUp", "Mixup").replace("CutMix", "Cutmix")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", whole).lower()


def _arguments_of(cls: Any) -> str:
    return ", ".join(inspect.signature(cls).parameters) or "none"
