"""Axes of a chart: range and ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

DECADES = 2.0
"""Values that span more than this are drawn on a logarithmic axis, unless it is said which."""

SMALLEST = 1e-300
"""The least that a logarithmic axis separates from 0."""

FEW_DECADES = 2


@dataclass(frozen=True)
class Axis:
    """Maps values of [low, high] to [0, 1]; on a logarithmic axis what is not positive lies on the edge."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return where a value lies between 0 and 1, not beyond."""
        if self.log:
            if value <= 0:
                return 0.0
            part = (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        else:
            part = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, part))

    def ticks(self) -> list[float]:
        """Return round values on the axis, none beyond its ends, three to eleven."""
        if not self.log:
            step = _step(self.high - self.low)
            first, last = math.ceil(self.low / step - 1e-6), math.floor(self.high / step + 1e-6)
            return [index * step for index in range(first, last + 1)]
        lowest, highest = round(math.log10(self.low)), round(math.log10(self.high))
        if highest - lowest <= FEW_DECADES:
            found = [factor * 10.0**power for power in range(lowest, highest) for factor in (1, 2, 5)]
            return [*found, 10.0**highest]
        step = math.ceil((highest - lowest) / 6)
        return [10.0**power for power in range(lowest, highest + 1, step)]


def axis_of(values: Sequence[float], *, log: bool | None = None) -> Axis:
    """Return an axis on which all values lie, and whose ends are round.

    Args:
        log: whether it is logarithmic, as far as any value is positive; None where none is negative and they
            span decades.
    """
    low, high = min(values), max(values)
    positive = [value for value in values if value > 0]
    if log is None:
        log = low >= 0 and bool(positive) and math.log10(high / max(min(positive), SMALLEST)) > DECADES
    if log and positive:
        return _decades(min(positive), high)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-200):  # nothing that ticks could separate
        middle = (low + high) / 2
        low = high = middle if abs(middle) > 1e-200 else 0.0
        low, high = (0.0, 2 * high) if high > 0 else (2 * low, 0.0) if low < 0 else (0.0, 1.0)
    if 0 < low < (high - low):
        low = 0.0
    return _rounded(low, high)


def _decades(low: float, high: float) -> Axis:
    first = math.floor(math.log10(max(low, SMALLEST)) + 1e-9)
    last = math.ceil(math.log10(max(high, SMALLEST)) - 1e-9)
    return Axis(10.0**first, 10.0 ** max(last, first + 1), log=True)


def _rounded(low: float, high: float) -> Axis:
    """Return an axis whose ends are ticks: rounded once more where a wider axis has wider steps."""
    while True:
        step = _step(high - low)
        low, high = math.floor(low / step + 1e-6) * step, math.ceil(high / step - 1e-6) * step
        if _step(high - low) <= step * (1 + 1e-9):
            return Axis(low, high)


def _step(span: float) -> float:
    """Return a round step that cuts a span into three to seven."""
    rough = span / 5
    power: float = 10.0 ** math.floor(math.log10(rough))
    return min((1, 2, 5, 10), key=lambda factor: abs(factor * power - rough)) * power
