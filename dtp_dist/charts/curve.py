"""What a picture of curves is, whatever draws it: SVG (``svg.py``) or matplotlib (``plots.py``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Curve:
    """A named line of (x, y), in a style of its own; ``band`` is how far it reaches up and down, by x."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dash: str = ""
    band: Mapping[float, float] = field(default_factory=dict)

    def edges(self) -> list[tuple[float, float, float]]:
        """Return (x, low, high) of the band, [] without one."""
        if not self.band:
            return []
        return [(x, y - self.band.get(x, 0.0), y + self.band.get(x, 0.0)) for x, y in self.points]

    def heights(self) -> list[float]:
        """Return what an axis is to have room for: below 0 only where the line itself is."""
        ys = [y for _, y in self.points]
        reached = [edge for _, low, high in self.edges() for edge in (low, high)]
        return [*ys, *(edge for edge in reached if edge > 0 or min(ys) < 0)]


@dataclass(frozen=True)
class Chart:
    """A picture of curves over a common x.

    Attributes:
        name: of its file, without an ending.
        title: what is drawn upwards, with its unit.
        curves: one for each group of runs, or one for each layer.
        x_label: what is drawn across.
        legend: whether the names of the curves are next to them.
        log: as in ``charts.axis.axis_of``.
    """

    name: str
    title: str
    curves: Sequence[Curve]
    x_label: str
    legend: bool = False
    log: bool | None = None
