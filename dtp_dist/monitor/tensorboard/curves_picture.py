"""One quantity of all layers in one picture of one run, a colour a layer: which of them does not learn?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from PIL.Image import Image
from PIL.ImageDraw import ImageDraw

from dtp_dist.charts.axis import Axis, axis_of
from dtp_dist.charts.palette import ramp
from dtp_dist.monitor.tensorboard.drawing import (
    GREY,
    LIGHT,
    LINE,
    MARGIN,
    canvas,
    legend,
    legend_lines,
    text_width,
    top_of_angles,
    wrapped,
    write,
)
from dtp_dist.report.read import Points
from dtp_dist.text.numbers import percent, short

WIDTH, HEIGHT, SMALL = 520, 230, 16
NAMED = 8
"""So many layers are in the legend, the first and the last among them."""


@dataclass(frozen=True)
class Quantity:
    """What is drawn: its title, whether its axis is logarithmic, and whether it should fall."""

    title: str
    log: bool = False
    falls: bool = False


QUANTITIES = {
    "inverse_loss": Quantity("inverse loss", log=True, falls=True),
    "forward_loss": Quantity("forward loss", log=True),
    "displacement": Quantity("displacement", log=True),
    "update_angle": Quantity("update's angle to backpropagation's"),
    "target_angle": Quantity("target's angle to backpropagation's"),
}


def curves_picture(name: str, curves: Mapping[int, Points], note: str = "") -> Image | None:
    """Return the picture; None where no layer has two points.

    Args:
        name: one of ``QUANTITIES``.
        curves: (minibatch, value) by layer.
        note: what is written below the title of an angle.
    """
    drawn = {layer: points for layer, points in curves.items() if len(points) > 1}
    if not drawn:
        return None
    quantity, layers = QUANTITIES[name], list(drawn)
    colours = {layer: ramp(place, len(layers)) for place, layer in enumerate(layers)}
    step = max(1, -(-(len(layers) - 1) // (NAMED - 1)))
    named = {str(layer): colours[layer] for layer in (*layers[:-1:step], layers[-1])}
    named = {
        f"layer {number}" if place == 0 else number: each
        for place, (number, each) in enumerate(named.items())
    }
    up = _axis(quantity, [value for points in drawn.values() for _, value in points])
    across = Axis(0.0, max(x for points in drawn.values() for x, _ in points))
    said = wrapped(fell_least(drawn) if quantity.falls else "" if quantity.log else note, WIDTH - 2 * MARGIN)
    ticks = [(short(value), value) for value in up.ticks()]
    if not quantity.log:
        ticks = [(f"{degrees}°", degrees) for degrees in range(0, round(up.high) + 1, 30)]
    left = MARGIN + max(text_width(words, SMALL) for words, _ in ticks) + 8
    right = WIDTH - MARGIN
    top = MARGIN + LINE * (1 + len(said) + len(legend_lines(named, right - MARGIN))) + 8
    image, pen = canvas(WIDTH, top + HEIGHT + 52)
    write(pen, (MARGIN, MARGIN), quantity.title + (", logarithmic" if quantity.log else ""))
    for row, words in enumerate(said, 1):
        write(pen, (MARGIN, MARGIN + LINE * row), words, colour=GREY)
    legend(pen, (MARGIN, top - LINE * len(legend_lines(named, right - MARGIN)) + 2), named, right - MARGIN)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + across.at(x) * (right - left), top + HEIGHT * (1 - up.at(y))

    for words, value in ticks:
        y = place(0, value)[1]
        pen.line((left, y, right, y), fill=GREY if words == "90°" else LIGHT)
        write(pen, (left - 6, y), words, "rm", GREY, SMALL)
    _foot(pen, across, left, right, top + HEIGHT)
    for layer, points in drawn.items():
        pen.line([place(x, y) for x, y in points], fill=colours[layer], width=3, joint="curve")
    return image


def _axis(quantity: Quantity, values: list[float]) -> Axis:
    return axis_of(values, log=True) if quantity.log else Axis(0.0, top_of_angles(values))


def _foot(pen: ImageDraw, across: Axis, left: float, right: float, y: float) -> None:
    """Draw the axis of minibatches, with a number where there is room."""
    pen.line((left, y, right, y), fill=GREY)
    ticks = across.ticks()
    for value in ticks[:: 1 if len(ticks) <= 5 else 2]:
        x = left + across.at(value) * (right - left)
        pen.line((x, y, x, y + 4), fill=GREY)
        write(pen, (x, y + 7), short(value), "ma", GREY, SMALL)
    write(pen, ((left + right) / 2, y + 28), "minibatch", "ma", GREY, SMALL)


def fell_least(curves: Mapping[int, Points]) -> str:
    """Return in words which layer's curve came down least from its first point to its last."""
    shares = {layer: points[-1][1] / points[0][1] for layer, points in curves.items() if points[0][1] > 0}
    if not shares:
        return ""
    layer = max(shares, key=lambda each: shares[each])
    return f"layer {layer} fell least: to {percent(shares[layer], 1)} of its first"
