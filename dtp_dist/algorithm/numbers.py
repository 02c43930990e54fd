"""Numbers that change over time (learning rates, noise), as pure functions of epoch and minibatch.

A number in a configuration is a plain float or a mapping such as
``{schedule: cosine, start: 0.1, end: 0.0, length: 90, unit: epoch, warmup: 5}``. Time ``t`` is 0-based:
epochs completed, or minibatches whose update came before. ``warmup`` multiplies the first ``warmup``
units by ``(t + 1) / warmup``.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from typing import Any, Protocol

from dtp_dist.algorithm.options import Options, RangeError, option

Number = float | dict[str, Any]


class Schedule(Protocol):
    """A number at a time ``t``."""

    def value(self, t: int) -> float:
        """Return the number at the 0-based time ``t``."""


@dataclass(frozen=True, kw_only=True)
class Constant(Options):
    """``value`` throughout."""

    start: float = option(doc="the number")

    def value(self, t: int) -> float:
        """Return ``start``."""
        del t
        return self.start


@dataclass(frozen=True, kw_only=True)
class InverseTime(Options):
    """``start / (1 + (t + 1) / half)``: Lee et al. 2015's decay, whose epochs count from 1."""

    start: float = option(doc="the number at time zero")
    half: float = option(doc="units after which half of it is left", above=0)

    def value(self, t: int) -> float:
        """Return the decayed number."""
        return self.start / (1.0 + (t + 1) / self.half)


@dataclass(frozen=True, kw_only=True)
class Step(Options):
    """``start * factor ** floor(t / every)``."""

    start: float = option(doc="the number at first")
    factor: float = option(doc="what it is multiplied by at each step", above=0)
    every: int = option(doc="units between two steps", at_least=1)

    def value(self, t: int) -> float:
        """Return the number after ``t // every`` steps."""
        return float(self.start * self.factor ** (t // self.every))


@dataclass(frozen=True, kw_only=True)
class Cosine(Options):
    """Half a cosine from ``start`` at ``t = 0`` to ``end`` at ``t = length``, then ``end``."""

    start: float = option(doc="the number at first")
    end: float = option(0.0, doc="the number at the end")
    length: int = option(doc="units from start to end", at_least=1)

    def value(self, t: int) -> float:
        """Return the number at ``t``."""
        share = min(t / self.length, 1.0)
        return self.end + 0.5 * (self.start - self.end) * (1.0 + math.cos(math.pi * share))


SCHEDULES: dict[str, type[Any]] = {
    "constant": Constant,
    "inverse_time": InverseTime,
    "step": Step,
    "cosine": Cosine,
}
UNITS = ("epoch", "minibatch")


@dataclass(frozen=True)
class TimedNumber:
    """A parsed number: its schedule, the unit of its time and a linear warm-up over its first units."""

    schedule: Schedule
    unit: str = "epoch"
    warmup: int = 0

    def __call__(self, epoch: int, minibatch: int) -> float:
        """Return the number in 0-based ``epoch`` at 0-based ``minibatch`` (counted from the run's start)."""
        t = epoch if self.unit == "epoch" else minibatch
        value = self.schedule.value(t)
        return value * min(1.0, (t + 1) / self.warmup) if self.warmup else value


def parse_number(key: str, value: Number) -> TimedNumber:
    """Return the number that a configuration's ``value`` means.

    Raises:
        RangeError: the mapping is not one of the schedules; names ``key`` and what is allowed.
    """
    if not isinstance(value, dict):
        return TimedNumber(Constant(start=float(value)))
    given = dict(value)
    name = given.pop("schedule", None)
    if name not in SCHEDULES:
        raise RangeError(
            f"{key}.schedule", f"{name!r} is not allowed; it must be one of {', '.join(SCHEDULES)}"
        )
    unit, warmup = given.pop("unit", "epoch"), given.pop("warmup", 0)
    if unit not in UNITS:
        raise RangeError(f"{key}.unit", f"{unit!r} is not allowed; it must be one of {', '.join(UNITS)}")
    if not isinstance(warmup, int) or warmup < 0:
        raise RangeError(f"{key}.warmup", f"{warmup!r} is not allowed; it must be a whole number of {unit}s")
    known = [item.name for item in fields(SCHEDULES[name])]
    for field, number in given.items():
        if field not in known:
            text = f"is not known; a {name} schedule has {', '.join(known)}, unit and warmup"
            raise RangeError(f"{key}.{field}", text)
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise RangeError(f"{key}.{field}", f"{number!r} is not allowed; it must be a number")
    try:
        return TimedNumber(SCHEDULES[name](**given), unit, warmup)
    except RangeError as error:
        raise RangeError(f"{key}.{error.key}", str(error)) from None
    except TypeError:
        needed = [item.name for item in fields(SCHEDULES[name]) if item.default is MISSING]
        missing = [item for item in needed if item not in given]
        raise RangeError(key, f"needs {', '.join(missing)} as well") from None


def check_number(key: str, value: Number, *, at_least: float = 0.0) -> None:
    """Check a number of a configuration.

    Raises:
        RangeError: it is no schedule, or it starts below ``at_least``.
    """
    first = parse_number(key, value).schedule.value(0)
    if not math.isfinite(first) or first < at_least:
        raise RangeError(key, f"{first!r} is not allowed; it must be at least {at_least:g}")
