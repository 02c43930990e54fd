"""Numbers as people read them: on screens, in tables, charts and messages."""

from __future__ import annotations

from collections.abc import Sequence


def short(value: float) -> str:
    """Return a number in four digits, or all before the point: ``12,000``, ``0.05``, ``3e-6``."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        mantissa, _, power = f"{value:.3g}".partition("e")
        return f"{mantissa}e{int(power)}" if power else mantissa
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def whole(value: float) -> str:
    """Return a number to the nearest whole one: minibatches, seconds of a run, samples per second."""
    return f"{value:,.0f}"


def error_rate(percent: float) -> str:
    """Return an error rate, given in percent, to a hundredth: ``2.02``."""
    return f"{percent:.2f}"


def percent(share: float, digits: int = 0) -> str:
    """Return a share of 1 in percent: ``25 %``."""
    return f"{100 * share:.{digits}f} %"


def two_digits(value: float) -> float:
    """Return a number to two digits, or to all before the point: a deviation, which is known no better."""
    rounded = float(f"{value:.2g}")
    return value if abs(value) >= 100 else rounded


def ranges(numbers: Sequence[int]) -> str:
    """Return rising whole numbers in few characters: ``1-4,6``."""
    parts: list[list[int]] = []
    for each in numbers:
        if parts and each == parts[-1][-1] + 1:
            parts[-1].append(each)
        else:
            parts.append([each])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
