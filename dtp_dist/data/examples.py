"""Examples and their targets, and how what is stored becomes what the network sees.

Shapes: N examples, B chosen ones; one example has any shape of at least one dimension, ``[C, H, W]`` for
images, ``[features]`` for a row of a table. The first dimension is what is standardized: the channel, the
feature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dtp_dist.data.rows import Held, Rows, hollow
from dtp_dist.errors import DataError

STATISTICS_CHUNK = 1000  # examples summed at once in float64, so that a large data set needs little memory
CONSTANT = (
    1e-6  # a channel that deviates less than this (pixels being in [0, 1]) is constant but for rounding
)
FIRST = (10, 1000)  # examples that nearly always show that no channel is constant
SPACING = 2e-7  # between two float32 numbers, relative to them: what deviates no more is constant, too


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """One split: ``rows`` of N stored examples, and their ``labels``: int64 [N], float32 [N, K] for numbers.

    Labels are always in memory, rows are or are read when they are asked for. A value is seen as
    ``value / divisor`` (None: 255 for uint8, 1 for float32) and, where ``mean`` and ``deviation`` (float32
    [C], in units of the divided value) are given, as ``(value / divisor - mean) / deviation``. Raises
    DataError if they do not fit one another.
    """

    rows: Rows
    labels: Tensor
    divisor: float | None = None
    mean: Tensor | None = None
    deviation: Tensor | None = None

    def __post_init__(self) -> None:
        count, labels = len(self.rows), self.labels
        classes = labels.dtype == torch.int64 and labels.dim() == 1
        numbers = labels.dtype == torch.float32 and labels.dim() == 2
        if not (classes or numbers) or len(labels) != count:
            due = f"int64 [{count}] or float32 [{count}, K], one for each example"
            raise DataError(f"labels must be {due}, not {labels.dtype} {list(labels.shape)}")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example, such as (C, H, W)."""
        return self.rows.shape

    @property
    def unit(self) -> float:
        """The stored value that is seen as 1.0."""
        if self.divisor is not None:
            return self.divisor
        return 255.0 if self.rows.dtype == torch.uint8 else 1.0

    def seen(self, stored: Tensor) -> Tensor:
        """Return stored values, which may be overwritten, as the network sees them: float32 [B, *shape].

        They stay on their device.
        """
        values = stored.to(torch.float32)
        if self.unit != 1.0:
            values.div_(self.unit)
        if self.mean is not None and self.deviation is not None:
            mean, deviation = (each.to(values.device) for each in (self.mean, self.deviation))
            values.sub_(self._by_channel(mean)).div_(self._by_channel(deviation))
        return values

    def pixels(self, values: Tensor) -> Tensor:
        """Return what ``seen`` returned, or something near it, as pixels in [0, 1]: float32 [B, *shape]."""
        values = values.reshape(-1, *self.shape).to(torch.float32)
        if self.mean is not None and self.deviation is not None:
            values = values * self._by_channel(self.deviation) + self._by_channel(self.mean)
        return values.clamp(0.0, 1.0)

    def _by_channel(self, each: Tensor) -> Tensor:
        """Return [C] so that it goes with an example."""
        return each.view(-1, *[1] * (len(self.shape) - 1))

    def part(self, start: int, stop: int) -> Examples:
        """Return examples ``start`` to ``stop - 1``; they share the memory of these."""
        return replace(self, rows=self.rows.part(start, stop), labels=self.labels[start:stop])

    def at(self, chosen: Tensor) -> Examples:
        """Return the ``chosen`` (int64 [B]) examples, in that order."""
        return replace(self, rows=self.rows.at(chosen), labels=self.labels[chosen])

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of each channel, float32 [C], over all examples and what a channel holds.

        Summed over the stored values in float64, which is exact for uint8; of float32, over what they differ
        from the first example, so that a large mean leaves no small deviation without digits. Raises
        DataError if a channel is constant: it has no deviation to divide by.
        """
        mean, deviation = self._moments()
        constant = (deviation <= self._least(mean)).nonzero()
        if len(constant):
            what = f"{'channel' if len(self.shape) > 1 else 'feature'} {constant[0].item()}"
            text = f"{what} of the training examples is constant, and would be divided by zero"
            raise DataError(f"data.normalize=standardize: {text}; use data.normalize=none")
        return (mean / self.unit).float(), (deviation / self.unit).float()

    def check_varies(self) -> None:
        """Check that no channel is constant; as few examples are read as show that.

        Raises:
            DataError: as ``statistics``.
        """
        for some in FIRST:
            part = self.part(0, min(some, len(self)))
            mean, deviation = part._moments()
            # Where a part deviates by d, all N deviate by d sqrt(n / N) at least; the factor is for a mean of
            # all that may be twice as large. If it is larger still, they deviate by nearly as much.
            if bool((deviation * math.sqrt(len(part) / len(self)) > 2 * self._least(mean)).all()):
                return
        self.statistics()

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of each channel, float64 [C], of what is stored."""
        channels = self.shape[0]
        origin = torch.zeros(channels, dtype=torch.float64)
        if self.rows.dtype == torch.float32:
            first = self.rows.select(torch.zeros(1, dtype=torch.int64))
            origin = first.to(torch.float64).reshape(channels, -1).mean(1)
        total, squares = torch.zeros(2, channels, dtype=torch.float64)
        kept = [0, *range(2, len(self.shape) + 1)]
        for start in range(0, len(self), STATISTICS_CHUNK):
            chosen = torch.arange(start, min(start + STATISTICS_CHUNK, len(self)))
            values = self.rows.select(chosen).to(torch.float64).sub_(self._by_channel(origin))
            total += values.sum(dim=kept)
            squares += values.square_().sum(dim=kept)
        count = len(self) * math.prod(self.shape) // channels
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0.0).sqrt()
        return mean + origin, deviation

    def _least(self, mean: Tensor) -> Tensor:
        """Return what a channel of this mean deviates by rounding alone (both float64 [C], stored values)."""
        if self.rows.dtype == torch.uint8:
            return torch.full_like(mean, CONSTANT * self.unit)
        return mean.abs() * SPACING

    def hollow(self) -> Examples:
        """Return as many examples of the same shape with nothing in them, but for their labels."""
        return replace(self, rows=hollow(len(self), self.shape, self.rows.dtype))

    def standardized(self, mean: Tensor, deviation: Tensor) -> Examples:
        """Return the same examples, seen with ``mean`` taken off and divided by ``deviation`` (both [C])."""
        return replace(self, mean=mean, deviation=deviation)

    def packed(self) -> bytes:
        """Return them as bytes, for ``unpacked`` in another process."""
        from safetensors.torch import save  # only where a stage sends them

        seen = {"labels": self.labels, "mean": self.mean, "deviation": self.deviation}
        tensors = {name: value.contiguous() for name, value in seen.items() if value is not None}
        tensors["x"] = self.rows.all().contiguous()
        return save(tensors | {"divisor": torch.tensor([self.unit], dtype=torch.float64)})


def unpacked(data: bytes) -> Examples:
    """Return the examples of which these are the bytes; all are in memory."""
    from safetensors.torch import load

    found = {name: value.clone() for name, value in load(data).items()}
    divisor = found["divisor"].item()
    return Examples(Held(found["x"]), found["labels"], divisor, found.get("mean"), found.get("deviation"))


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """What a source delivers, before any split is cut.

    ``training`` in its fixed order; ``valid`` is a split that the data set has itself, None where the last
    ``valid_examples`` of training become that split unless asked otherwise. ``classes`` is the number of
    labels, None where targets are numbers, and ``names`` what the classes, or the numbers, are called.
    ``fingerprint`` changes where the data does, as far as that is cheap to see (names and sizes of files),
    and ``notes`` are what a user should know of how they were read.
    """

    training: Examples
    test: Examples
    classes: int | None
    valid_examples: int = 0
    valid: Examples | None = None
    names: tuple[str, ...] | None = None
    fingerprint: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The three splits of a data set; ``valid`` is None where none was wanted.

    ``classes`` is the number of labels (0 to classes - 1), None where the targets are numbers (float32
    [N, K]); ``shape`` that of one example, such as (C, H, W); ``names`` what the classes, or the K numbers,
    are called, None where nobody says; ``fingerprint`` and ``notes`` are as in ``Pool``.
    """

    train: Examples
    valid: Examples | None
    test: Examples
    classes: int | None
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None
    fingerprint: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """How many numbers the last layer gives: one for each class, or for each of the K numbers."""
        return self.classes if self.classes is not None else self.train.labels.shape[1]
