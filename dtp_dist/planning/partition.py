"""The contiguous partition whose slowest stage is as fast as possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate


def balanced_partition(costs: Sequence[float], stages: int) -> list[int]:
    """Return how many layers each of ``stages`` stages gets, bottom first, at least one each.

    Minimizes the cost of the costliest stage; among equals, the later stages are as cheap as possible.

    Args:
        costs: cost of each layer, any unit.
        stages: between 1 and ``len(costs)``.

    Raises:
        ValueError: ``stages`` is out of range.
    """
    total = [0.0, *accumulate(costs)]
    return cheapest_partition(lambda layers: total[layers.stop] - total[layers.start], len(costs), stages)


def cheapest_partition(cost: Callable[[range], float], layers: int, stages: int) -> list[int]:
    """Return the same where ``cost`` gives that of a stage of some layers (0-based).

    Raises:
        ValueError: ``stages`` is out of range.
    """
    if not 1 <= stages <= layers:
        raise ValueError(f"{stages} stages do not fit {layers} layers")

    @cache
    def best(count: int, parts: int) -> tuple[float, tuple[int, ...]]:
        if parts == 1:
            return cost(range(count)), (count,)
        options = []
        for below in reversed(range(parts - 1, count)):  # min keeps the first: the cheapest last stage
            slowest, cut = best(below, parts - 1)
            options.append((max(slowest, cost(range(below, count))), (*cut, count - below)))
        return min(options, key=lambda option: option[0])

    return list(best(layers, stages)[1])
