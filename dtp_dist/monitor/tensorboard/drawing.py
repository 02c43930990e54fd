"""Pictures for TensorBoard, drawn with Pillow in milliseconds: rows of images, and bars by layer.

Their text is large, for the page shows them at two thirds of their size; their ground is white and opaque, so
that they are read on a dark page as on a light one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dtp_dist.charts.palette import ANGLES

WHITE, BLACK, GREY, LIGHT = "#ffffff", "#222222", "#666666", "#e4e4e4"
MARGIN, TILE, GAP, TEXT, LINE = 12, 56, 4, 18, 26


@cache
def font(size: int = TEXT) -> Any:
    """Return Pillow's own font."""
    return ImageFont.load_default(size=size)


def text_width(text: str, size: int = TEXT) -> int:
    """Return how many pixels wide a text is."""
    return int(font(size).getlength(text)) + 1


def canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty picture and its pen."""
    image = Image.new("RGB", (width, height), WHITE)
    return image, ImageDraw.Draw(image)


def write(
    pen: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    anchor: str = "la",
    colour: str = BLACK,
    size: int = TEXT,
) -> None:
    """Write one line of text; ``anchor`` as Pillow has it (la: left, ascender)."""
    pen.text(at, text, fill=colour, font=font(size), anchor=anchor)


def image_rows(rows: Sequence[tuple[str, Tensor]]) -> Image.Image:
    """Return rows of images, each row named at its left; ``[N, C, H, W]`` in [0, 1], C 1 or 3."""
    count, _, height, width = rows[0][1].shape
    scale = max(1, TILE // max(height, width))
    step_x, step_y = width * scale + GAP, height * scale + GAP
    label = MARGIN + max(text_width(name) for name, _ in rows) + 8
    image, pen = canvas(label + count * step_x + MARGIN, len(rows) * step_y + 2 * MARGIN)
    for row, (name, tiles) in enumerate(rows):
        top = MARGIN + row * step_y
        write(pen, (MARGIN, top + step_y / 2), name, "lm")
        for column, tile in enumerate(tiles):
            image.paste(_enlarged(tile, scale), (label + column * step_x, top))
    return image


def _enlarged(tile: Tensor, scale: int) -> Image.Image:
    pixels = (tile * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    size = (tile.shape[2], tile.shape[1])
    small = Image.frombytes("L" if tile.shape[0] == 1 else "RGB", size, pixels.numpy().tobytes())
    return small.resize((size[0] * scale, size[1] * scale), Image.Resampling.NEAREST)


def legend(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], colours: Mapping[str, str], width: float
) -> None:
    """Write names with their colours before them, in as many lines of a width as they need."""
    for row, names in enumerate(legend_lines(colours, width)):
        x, y = at[0], at[1] + row * LINE
        for name in names:
            pen.rectangle((x, y - 7, x + 14, y + 7), fill=colours[name], outline=GREY)
            write(pen, (x + 20, y), name, "lm")
            x += _legend_step(name)


def legend_lines(names: Iterable[str], width: float) -> list[list[str]]:
    """Return the names of a legend by line."""
    lines: list[list[str]] = [[]]
    for name in names:
        if lines[-1] and sum(map(_legend_step, [*lines[-1], name])) - 18 > width:
            lines.append([])
        lines[-1].append(name)
    return lines


def _legend_step(name: str) -> int:
    """Return how many pixels wide a name of the legend is, with its colour and the gap after it."""
    return 20 + text_width(name) + 18


def wrapped(text: str, width: float) -> list[str]:
    """Return a text in lines of a width."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def top_of_angles(degrees: Sequence[float]) -> int:
    """Return where an axis of angles ends: at 90, or beyond what goes further."""
    return 30 * math.ceil(min(180.0, max([90.0, *degrees])) / 30 - 0.02)


def angle_bars(layers: Mapping[int, Mapping[str, float]], note: str = "") -> Image.Image:
    """Return bars of angles from 0 to 90 degrees, or as far as they go: a group a layer, a colour a name.

    Args:
        layers: degrees by layer and by what they are of, the names of ``ANGLES``.
        note: what is written below.
    """
    names = list(dict.fromkeys(name for values in layers.values() for name in values))
    colours = {name: ANGLES[name] for name in names}
    highest = top_of_angles([value for values in layers.values() for value in values.values()])
    bar = 14 if len(layers) < 12 else 7
    group = bar * len(names) + bar
    left, height = MARGIN + 42, 200
    wide = max(group * len(layers), 330)
    top = MARGIN + LINE * len(legend_lines(colours, wide)) + 12
    said = wrapped(note, wide + left - MARGIN)
    image, pen = canvas(left + wide + MARGIN, top + height + 54 + LINE * len(said))
    legend(pen, (left, MARGIN + 10), colours, wide)
    for degrees in range(0, highest + 1, 30):
        y = top + height * (1 - degrees / highest)
        pen.line((left, y, image.width - MARGIN, y), fill=GREY if degrees == 90 else LIGHT)
        write(pen, (left - 6, y), f"{degrees}°", "rm", GREY)
    for place, (layer, values) in enumerate(layers.items()):
        x = left + place * group + bar / 2
        for number, name in enumerate(names):
            if name in values:
                y = top + height * (1 - values[name] / highest)
                pen.rectangle((x + number * bar, y, x + (number + 1) * bar - 2, top + height), colours[name])
        write(pen, (x + bar * len(names) / 2, top + height + 6), str(layer), "ma")
    write(pen, (left + wide / 2, top + height + 28), "layer", "ma", GREY)
    for row, words in enumerate(said):
        write(pen, (MARGIN, top + height + 54 + row * LINE), words, colour=GREY)
    return image
