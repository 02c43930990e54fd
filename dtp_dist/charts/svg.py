"""Pictures as SVG text: curves, stacked bars, timelines. Numbers under the mouse come from ``<title>``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TypeVar

from dtp_dist.charts.axis import Axis, axis_of
from dtp_dist.charts.curve import Curve
from dtp_dist.charts.palette import COLOURS, light
from dtp_dist.schedule import Activity
from dtp_dist.text.numbers import percent, short, whole

WIDTH, HEIGHT = 600, 280
POINTS = 400
"""A series is drawn with at most this many points."""

HOVER = 50
HALF_WIDTH = 4
"""Of a single point's band."""

LEFT, RIGHT, TOP, BOTTOM = 62, 28, 30, 42


def thin(points: Sequence[tuple[float, float]], limit: int = POINTS) -> list[tuple[float, float]]:
    """Return at most ``limit`` points; of each stretch the lowest and the highest stay."""
    if len(points) <= limit:
        return list(points)
    stretches = limit // 2
    kept: list[tuple[float, float]] = []
    for index in range(stretches):
        part = points[index * len(points) // stretches : (index + 1) * len(points) // stretches]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept


def text(x: float, y: float, words: str, *, anchor: str = "start", kind: str = "") -> str:
    """Return a piece of text; ``kind`` is its CSS class."""
    class_ = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{class_}>{escape(words)}</text>'


def svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    """Return a whole picture; ``label`` says what it shows to who can't see it."""
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    head = f'<svg {size} role="img" aria-label="{escape(label)}">'
    return "\n".join([head, *parts, "</svg>"])


def line_chart(
    title: str, curves: Sequence[Curve], *, x_label: str, legend: bool = False, log: bool | None = None
) -> str:
    """Return curves over a common x; "" where no curve has a point. ``log`` as in ``axis_of``."""
    curves = [replace(each, points=thin(each.points)) for each in curves if each.points]
    if not curves:
        return ""
    right = WIDTH - RIGHT - (76 if legend else 0)
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for y in curve.heights()]
    across, up = Axis(0.0, max(max(xs), 1.0)), axis_of(ys, log=log)
    if up.log:
        edge = "" if min(ys) > 0 else ", 0 at the lower edge" if min(ys) == 0 else ", 0 and less at the edge"
        title += f" (log{edge})"
    parts = [text(LEFT, 17, title, kind="title"), *_frame(across, up, right, x_label)]
    parts += [_band(curve, across, up, right) for curve in curves if curve.band]
    for curve in curves:
        parts += _curve(curve, across, up, right)
    if legend:
        parts += _legend(curves, right + 10)
    return svg(WIDTH, HEIGHT, parts, title)


def _x(axis: Axis, value: float, right: float) -> float:
    return LEFT + axis.at(value) * (right - LEFT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.at(value) * (HEIGHT - BOTTOM - TOP)


def _frame(across: Axis, up: Axis, right: float, x_label: str) -> list[str]:
    """Return grid, ticks and labels."""
    low, parts = HEIGHT - BOTTOM, []
    for value in up.ticks():
        y = _y(up, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(LEFT - 6, y + 4, short(value), anchor="end"))
    for value in across.ticks():
        x = _x(across, value, right)
        parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{low}" y2="{low + 4}"/>')
        parts.append(text(x, low + 17, short(value), anchor="middle"))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{low}" y2="{low}"/>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{low}"/>')
    parts.append(text((LEFT + right) / 2, HEIGHT - 8, x_label, anchor="middle"))
    return parts


def _band(curve: Curve, across: Axis, up: Axis, right: float) -> str:
    """Return the area between a curve's edges, that of a single point as wide as can be seen."""
    edges = [(_x(across, x, right), _y(up, low), _y(up, high)) for x, low, high in curve.edges()]
    if len(edges) == 1:
        ((x, low, high),) = edges
        edges = [(x - HALF_WIDTH, low, high), (x + HALF_WIDTH, low, high)]
    around = [*((x, high) for x, _, high in edges), *((x, low) for x, low, _ in reversed(edges))]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in around)
    return f'<polygon class="band" points="{path}" fill="{curve.colour}"/>'


def _curve(curve: Curve, across: Axis, up: Axis, right: float) -> list[str]:
    places = [(_x(across, x, right), _y(up, y), x, y) for x, y in curve.points]
    dash = f' stroke-dasharray="{curve.dash}"' if curve.dash else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in places)
    parts = [
        f'<polyline class="curve" points="{path}" stroke="{curve.colour}"{dash}>'
        f"<title>{escape(curve.name)}</title></polyline>"
    ]
    sparse = len(places) <= 12
    step = max(1, -(-len(places) // HOVER))
    for x, y, step_at, value in [*places[:-1:step], places[-1]]:
        look = f'r="2.5" fill="{curve.colour}"' if sparse else 'r="6" fill="transparent"'
        spread = f" ± {short(curve.band[step_at])}" if step_at in curve.band else ""
        said = f"{curve.name}: {short(value)}{spread} at {whole(step_at)}"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" {look}><title>{escape(said)}</title></circle>')
    return parts


def _legend(curves: Sequence[Curve], left: float) -> list[str]:
    """Return names next to the chart: all, or first, middle and last of many."""
    shown = list(curves)
    if len(shown) > 14:
        shown = [curves[round(index * (len(curves) - 1) / 13)] for index in range(14)]
    parts = []
    for index, curve in enumerate(shown):
        y = TOP + 8 + 15 * index
        parts.append(
            f'<line x1="{left}" x2="{left + 14}" y1="{y}" y2="{y}" stroke="{curve.colour}" stroke-width="3"/>'
        )
        parts.append(text(left + 18, y + 4, curve.name))
    return parts


Part = TypeVar("Part", bound=str)


def bars(rows: Sequence[tuple[str, Mapping[Part, float]]], colours: Mapping[Part, str], width: int) -> str:
    """Return one stacked bar a row; its parts are shares of 1, in the order of ``colours``."""
    left, right, height = 170, 50, 22
    span, parts = width - left - right, []
    for index, (name, shares) in enumerate(rows):
        top = 4 + index * (height + 6)
        parts.append(text(left - 8, top + 15, name, anchor="end"))
        x = float(left)
        for kind, colour in colours.items():
            length = shares.get(kind, 0.0) * span
            if length <= 0:
                continue
            said = escape(f"{name}, {kind}: {percent(shares[kind], 1)}")
            parts.append(
                f'<rect x="{x:.1f}" y="{top}" width="{length:.1f}" height="{height}" fill="{colour}">'
                f"<title>{said}</title></rect>"
            )
            if length > 38:
                ink = "onlight" if light(colour) else "ondark"
                parts.append(text(x + length / 2, top + 15, percent(shares[kind]), anchor="middle", kind=ink))
            x += length
    low = 4 + len(rows) * (height + 6)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + share * span
        parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{low}" y2="{low + 4}"/>')
        parts.append(text(x, low + 17, percent(share), anchor="middle"))
    return svg(width, low + 24, parts, "shares of time of every stage")


def _fits(words: str, width: float) -> bool:
    return width > 7.5 * len(words) + 3


@dataclass(frozen=True)
class Block:
    """A bar of a timeline, in its axis's unit: ``said`` under the mouse, ``words`` in it or their first."""

    start: float
    end: float
    colour: str
    said: str
    words: str = ""


def timeline(
    rows: Sequence[tuple[str, Sequence[Block]]], length: float, width: int, *, unit: str, label: str
) -> str:
    """Return a row of blocks for each name, over an axis from 0 to ``length``."""
    left, right, height, ground = 170, 16, 26, COLOURS[Activity.IDLE]
    scale, parts = (width - left - right) / max(length, 1e-9), []
    for row, (name, blocks) in enumerate(rows):
        top = 4 + row * (height + 6)
        parts.append(text(left - 8, top + 17, name, anchor="end"))
        parts.append(
            f'<rect x="{left}" y="{top}" width="{width - left - right}" height="{height}" fill="{ground}"/>'
        )
        for block in blocks:
            x, across = left + block.start * scale, (block.end - block.start) * scale
            parts.append(
                f'<rect x="{x:.1f}" y="{top}" width="{max(across, 0.5):.1f}" height="{height}" '
                f'fill="{block.colour}"><title>{escape(block.said)}</title></rect>'
            )
            words = next(
                (said for said in (block.words, block.words[:1]) if said and _fits(said, across)), ""
            )
            if words:
                ink = "onlight" if light(block.colour) else "ondark"
                parts.append(text(x + across / 2, top + 17, words, anchor="middle", kind=ink))
    low = 4 + len(rows) * (height + 6)
    for value in Axis(0.0, max(length, 1e-9)).ticks():
        x = left + value * scale
        parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{low}" y2="{low + 4}"/>')
        parts.append(text(x, low + 17, short(value), anchor="middle"))
    parts.append(text(left - 8, low + 17, unit, anchor="end"))
    return svg(width, low + 24, parts, label)
