"""The contiguous partition whose slowest stage is as fast as possible."""

from __future__ import annotations

from collections.abc import Sequence
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
    if not 1 <= stages <= len(costs):
        raise ValueError(f"{stages} stages do not fit {len(costs)} layers")
    total = [0.0, *accumulate(costs)]

    @cache
    def best(layers: int, parts: int) -> tuple[float, tuple[int, ...]]:
        if parts == 1:
            return total[layers], (layers,)
        options = []
        for below in reversed(range(parts - 1, layers)):  # min keeps the first: the cheapest last stage
            slowest, cut = best(below, parts - 1)
            options.append((max(slowest, total[layers] - total[below]), (*cut, layers - below)))
        return min(options, key=lambda option: option[0])

    return list(best(len(costs), stages)[1])
