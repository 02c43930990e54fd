"""Axes of a chart: range, ticks, and numbers in few characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

DECADES = 2.0
"""Values that span more than this are drawn on a logarithmic axis."""


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
        """Return round values along the axis, three to seven."""
        if not self.log:
            return _round_steps(self.low, self.high)
        first, last = round(math.log10(self.low)), round(math.log10(self.high))
        step = max(1, math.ceil((last - first) / 6))
        return [10.0**power for power in range(first, last + 1, step)]


def axis_of(values: Sequence[float], *, may_log: bool = True) -> Axis:
    """Return an axis on which all values lie, logarithmic where none is negative and they span decades."""
    low, high = min(values), max(values)
    positive = [value for value in values if value > 0]
    if may_log and low >= 0 and positive and math.log10(high / min(positive)) > DECADES:
        return Axis(
            10.0 ** math.floor(math.log10(min(positive))), 10.0 ** math.ceil(math.log10(high)), log=True
        )
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-200):  # nothing that ticks could tell apart
        middle = (low + high) / 2
        low = high = middle if abs(middle) > 1e-200 else 0.0
        low, high = (0.0, 2 * high) if high > 0 else (2 * low, 0.0) if low < 0 else (0.0, 1.0)
    if 0 < low < (high - low):
        low = 0.0
    step = _step(high - low)
    return Axis(math.floor(low / step) * step, math.ceil(high / step - 1e-9) * step)


def _step(span: float) -> float:
    """Return a round step that cuts a span into three to seven."""
    rough = span / 5
    power: float = 10.0 ** math.floor(math.log10(rough))
    return min((1, 2, 5, 10), key=lambda factor: abs(factor * power - rough)) * power


def _round_steps(low: float, high: float) -> list[float]:
    step = _step(high - low)
    count = math.floor((high - low) / step + 1e-9)
    first = math.ceil(low / step - 1e-9)
    return [(first + index) * step for index in range(count + 1)]


def short(value: float) -> str:
    """Return a number as a reader wants it on an axis or in a table: ``12,000``, ``0.05``, ``3e-6``."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        mantissa, _, power = f"{value:.3g}".partition("e")
        return f"{mantissa}e{int(power)}" if power else mantissa
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
