"""Every layer's curves so far, for pictures in which layers have colours of their own."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from dtp_dist.charts.svg import thin
from dtp_dist.monitor.base import Line
from dtp_dist.report.read import Points
from dtp_dist.report.spans import is_number

KEPT = 400
"""Points of a curve; of each stretch of a longer one the lowest and the highest stay."""

_LAYER = re.compile(r"layer/(\d+)/(.+)")


class History:
    """What was measured of each layer, in little memory however long the run is."""

    def __init__(self) -> None:
        self._curves: dict[str, dict[int, Points]] = defaultdict(lambda: defaultdict(list))

    def take(self, step: int, values: Mapping[str, Any]) -> None:
        """Remember the values of layers that were measured at a step, finite ones alone."""
        for name, value in values.items():
            match = _LAYER.fullmatch(name)
            if match and is_number(value):
                points = self._curves[match[2]][int(match[1])]
                points.append((step, value))
                if len(points) >= 2 * KEPT:
                    points[:] = thin(points, KEPT)

    def go_back(self, step: int) -> None:
        """Forget what came after a step: the run does it again."""
        for curves in self._curves.values():
            for layer, points in curves.items():
                curves[layer] = [point for point in points if point[0] <= step]

    def listen(self, line: Line, step: int) -> None:
        """Take a line of a run, whose values are of ``step``."""
        if line.event in ("recovered", "resumed"):
            self.go_back(line.step)
        self.take(step, line.values)

    def curves(self, quantity: str) -> dict[int, Points]:
        """Return (step, value) of a quantity by layer, those alone that have been measured."""
        found = self._curves.get(quantity, {})
        return {layer: list(points) for layer, points in sorted(found.items()) if points}
