"""Images and labels in memory, and how a stored image becomes what the network sees.

Shapes: N examples, B chosen ones, C channels, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dtp_dist.errors import DataError

STATISTICS_CHUNK = 1000  # examples summed at once in float64, so that a large data set needs little memory
CONSTANT = (
    1e-6  # a channel that deviates less than this (pixels being in [0, 1]) is constant but for rounding
)


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """One split: ``images`` uint8 or float32 [N, C, H, W], ``labels`` int64 [N].

    A pixel is seen as ``value / divisor`` (None: 255 for uint8, 1 for float32) and, where ``mean`` and
    ``deviation`` (float32 [C], in units of the divided value) are given, as
    ``(value / divisor - mean) / deviation``. Raises DataError if the tensors do not fit one another.
    """

    images: Tensor
    labels: Tensor
    divisor: float | None = None
    mean: Tensor | None = None
    deviation: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.dim() != 4 or self.images.dtype not in (torch.uint8, torch.float32):
            found = f"{self.images.dtype} {list(self.images.shape)}"
            raise DataError(f"images must be uint8 or float32 [N, C, H, W], not {found}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            found = f"{self.labels.dtype} {list(self.labels.shape)}"
            raise DataError(f"labels must be int64 [{len(self.images)}], one for each image, not {found}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image, (C, H, W)."""
        return tuple(self.images.shape[1:])

    @property
    def unit(self) -> float:
        """The stored value that is seen as 1.0."""
        if self.divisor is not None:
            return self.divisor
        return 255.0 if self.images.dtype == torch.uint8 else 1.0

    def pick(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return fresh copies of the ``chosen`` (int64 [B]) examples: float32 [B, C, H, W], int64 [B]."""
        images = self.images.index_select(0, chosen).to(torch.float32)
        if self.unit != 1.0:
            images.div_(self.unit)
        if self.mean is not None and self.deviation is not None:
            images.sub_(self.mean.view(-1, 1, 1)).div_(self.deviation.view(-1, 1, 1))
        return images, self.labels.index_select(0, chosen)

    def pixels(self, images: Tensor) -> Tensor:
        """Return what ``pick`` returned, or something near it, as pixels in [0, 1]: float32 [B, C, H, W]."""
        images = images.reshape(-1, *self.shape).to(torch.float32)
        if self.mean is not None and self.deviation is not None:
            images = images * self.deviation.view(-1, 1, 1) + self.mean.view(-1, 1, 1)
        return images.clamp(0.0, 1.0)

    def part(self, start: int, stop: int) -> Examples:
        """Return examples ``start`` to ``stop - 1``; they share the memory of these."""
        return replace(self, images=self.images[start:stop], labels=self.labels[start:stop])

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of each channel, float32 [C], over all examples and pixels.

        Summed over the stored values in float64, which is exact for uint8. Raises DataError if a channel
        is constant: it has no deviation to divide by.
        """
        channels = self.images.shape[1]
        total, squares = torch.zeros(2, channels, dtype=torch.float64)
        for chunk in torch.split(self.images, STATISTICS_CHUNK):
            values = chunk.to(torch.float64)
            total += values.sum(dim=(0, 2, 3))
            squares += values.square_().sum(dim=(0, 2, 3))
        count = self.images.numel() // channels
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0.0).sqrt()
        if bool((deviation < CONSTANT * self.unit).any()):
            constant = deviation.argmin().item()
            raise DataError(f"channel {constant} of the training images is constant: use data.normalize=none")
        return (mean / self.unit).float(), (deviation / self.unit).float()

    def standardized(self, mean: Tensor, deviation: Tensor) -> Examples:
        """Return the same examples, seen with ``mean`` taken off and divided by ``deviation`` (both [C])."""
        return replace(self, mean=mean, deviation=deviation)


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """What a source delivers, before any split is cut.

    ``training`` in its fixed order (its last examples become the validation split), ``test``, the number
    of ``classes`` and how many examples the validation split has unless asked otherwise.
    """

    training: Examples
    test: Examples
    classes: int
    valid_examples: int


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The three splits of a data set; ``valid`` is None where none was wanted.

    ``classes`` is the number of labels (0 to classes - 1), ``shape`` that of one image, (C, H, W).
    """

    train: Examples
    valid: Examples | None
    test: Examples
    classes: int
    shape: tuple[int, ...]
