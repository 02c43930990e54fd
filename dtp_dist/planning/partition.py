"""The contiguous partition whose slowest stage is as fast as possible."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def cheapest_partition(cost: Callable[[range], float], layers: int, stages: int) -> list[int]:
    """Return how many layers each of ``stages`` stages gets, bottom first, at least one each.

    Minimizes the cost of the costliest stage; among equals, the later stages are as cheap as possible.

    Args:
        cost: of a stage of some layers (0-based), any unit.
        stages: between 1 and ``layers``.

    Raises:
        ValueError: ``stages`` is out of range.
    """
    if not 1 <= stages <= layers:
        raise ValueError(f"{stages} stages do not fit {layers} layers")

    table = np.full((layers, layers + 1), np.inf)  # [first, stop]
    for first in range(layers):
        table[first, first + 1 :] = [cost(range(first, stop)) for stop in range(first + 1, layers + 1)]
    slowest = table[0]  # of the first layers in so many stages, by the number of layers
    cuts = np.zeros((stages, layers + 1), np.int64)  # where the last of these stages begins
    for below in range(1, stages):
        wider = np.full(layers + 1, np.inf)
        for stop in range(below + 1, layers + 1):
            options = np.maximum(slowest[below:stop], table[below:stop, stop])[::-1]
            best = int(options.argmin())  # the first of equals: the cheapest last stage
            wider[stop], cuts[below, stop] = options[best], stop - 1 - best
        slowest = wider
    found, stop = [], layers
    for stage in reversed(range(stages)):
        first = int(cuts[stage, stop])
        found.append(stop - first)
        stop = first
    return found[::-1]
