"""Numbers that change over time (learning rates, noise), as pure functions of epoch and minibatch.

A number in a configuration is a plain float or a mapping such as
``{schedule: cosine, start: 0.1, end: 0.0, length: 90, unit: epoch, warmup: 5}``. Time ``t`` is 0-based:
epochs completed, or minibatches whose update came before. ``warmup: N`` multiplies the first N units by
``(t + 1) / N``; a ``Warmup`` has a unit of its own and may say where it starts. The schedule's time runs from
the start, warm-up included.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

from dtp_dist.algorithm.options import (
    Count,
    NonNegative,
    OneOf,
    Options,
    Positive,
    RangeError,
    Share,
    Variants,
    Whole,
    option,
)


@dataclass(frozen=True, kw_only=True)
class Warmup(Options):
    """A linear rise to the scheduled number over the first epochs or minibatches."""

    epochs: Count | None = option(None, doc="how many epochs it takes")
    minibatches: Count | None = option(None, doc="how many minibatches it takes; either this or epochs")
    start: Share | None = option(
        None,
        doc="share of the number in the first of them, from which it rises to all of it in the one after the "
        "last (torch's LinearLR); null for 1/N in the first to all of it in the last, as warmup: N",
    )

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.minibatches is None):
            raise RangeError(
                "", "needs epochs or minibatches, one of them; write e.g. {epochs: 5, start: 0.1}"
            )

    def factor(self, epoch: int, minibatch: int) -> float:
        """Return the share of the number in 0-based ``epoch`` at 0-based ``minibatch``."""
        t, length = (minibatch, self.minibatches) if self.epochs is None else (epoch, self.epochs)
        assert length is not None
        if self.start is None:
            return min(1.0, (t + 1) / length)
        return self.start + (1.0 - self.start) * min(1.0, t / length)


@dataclass(frozen=True, kw_only=True)
class ScheduledValue(Options):
    """A number at a time: its schedule, the unit of its time and a linear warm-up over its first units."""

    schedule: str = option(doc="which schedule")
    unit: Annotated[str, OneOf("epoch", "minibatch")] = option("epoch", doc="what time is counted in")
    warmup: Annotated[int | Warmup, Variants(None, {"section": Warmup}, plain=Whole)] = option(
        0,
        doc="units in which the number rises to what it is, linearly; 0 for none; or a section, e.g. "
        "{minibatches: 500, start: 0.1}",
    )

    @abstractmethod
    def value(self, t: int) -> float:
        """Return the number at the 0-based time ``t``, without the warm-up."""

    def __call__(self, epoch: int, minibatch: int) -> float:
        """Return the number in 0-based ``epoch`` at 0-based ``minibatch`` (counted from the run's start)."""
        t = epoch if self.unit == "epoch" else minibatch
        value = self.value(t)
        if isinstance(self.warmup, Warmup):
            return value * self.warmup.factor(epoch, minibatch)
        return value * min(1.0, (t + 1) / self.warmup) if self.warmup else value


@dataclass(frozen=True, kw_only=True)
class Constant(ScheduledValue):
    """``value`` throughout."""

    schedule: str = option("constant", doc="constant")
    start: NonNegative = option(doc="the number")

    def value(self, t: int) -> float:
        """Return ``start``."""
        del t
        return self.start


@dataclass(frozen=True, kw_only=True)
class InverseTime(ScheduledValue):
    """``start / (1 + (t + 1) / half)``: Lee et al. 2015's decay, whose epochs count from 1."""

    schedule: str = option("inverse_time", doc="inverse_time")
    start: NonNegative = option(doc="the number at time zero")
    half: Positive = option(doc="units after which half of it is left")

    def value(self, t: int) -> float:
        """Return the decayed number."""
        return self.start / (1.0 + (t + 1) / self.half)


@dataclass(frozen=True, kw_only=True)
class Step(ScheduledValue):
    """``start * factor ** floor(t / every)``."""

    schedule: str = option("step", doc="step")
    start: NonNegative = option(doc="the number at first")
    factor: Positive = option(doc="what it is multiplied by at each step")
    every: Count = option(doc="units between two steps")

    def value(self, t: int) -> float:
        """Return the number after ``t // every`` steps."""
        return float(self.start * self.factor ** (t // self.every))


@dataclass(frozen=True, kw_only=True)
class Cosine(ScheduledValue):
    """Half a cosine from ``start`` at ``t = 0`` to ``end`` at ``t = length``, then ``end``.

    A periodic one continues, back to ``start`` at ``t = 2 length`` and so forth: torch's CosineAnnealingLR,
    whose rate rises again in the epochs after ``T_max``.
    """

    schedule: str = option("cosine", doc="cosine")
    start: NonNegative = option(doc="the number at first")
    end: float = option(0.0, doc="the number at the end")
    length: Count = option(doc="units from start to end")
    periodic: bool = option(
        False,
        doc="continue, up and down again, after that (torch's CosineAnnealingLR), and don't stay at end",
    )

    def value(self, t: int) -> float:
        """Return the number at ``t``."""
        share = t / self.length if self.periodic else min(t / self.length, 1.0)
        return self.end + 0.5 * (self.start - self.end) * (1.0 + math.cos(math.pi * share))


SCHEDULES: dict[str, type[ScheduledValue]] = {
    "constant": Constant,
    "inverse_time": InverseTime,
    "step": Step,
    "cosine": Cosine,
}
Number = Annotated[float | ScheduledValue, Variants("schedule", SCHEDULES, plain=NonNegative)]


def scheduled(number: float | ScheduledValue) -> ScheduledValue:
    """Return a number of a configuration as what has a value at any time."""
    return number if isinstance(number, ScheduledValue) else Constant(start=float(number))
