"""Pictures for TensorBoard, drawn with Pillow in milliseconds: rows of images, and bars by layer.

Their text is large, for the page shows them at half their size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

WHITE, BLACK, GREY, LIGHT = "#ffffff", "#222222", "#777777", "#e4e4e4"
PALETTE = ("#4477aa", "#ee8866", "#228833", "#aa3377", "#66ccee", "#bbbbbb")
MARGIN, TILE, GAP, TEXT = 12, 56, 4, 18


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


def legend(pen: ImageDraw.ImageDraw, at: tuple[float, float], colours: Mapping[str, str]) -> None:
    """Write a row of names with their colours before them."""
    x, y = at
    for name, colour in colours.items():
        pen.rectangle((x, y - 7, x + 14, y + 7), fill=colour, outline=GREY)
        write(pen, (x + 20, y), name, "lm")
        x += legend_step(name)


def legend_step(name: str) -> int:
    """Return how many pixels wide a name of the legend is, with its colour and the gap after it."""
    return 20 + text_width(name) + 22


def angle_bars(layers: Mapping[int, Mapping[str, float]]) -> Image.Image:
    """Return bars of angles from 0 to 180 degrees: a group a layer, a colour a name."""
    names = list(dict.fromkeys(name for values in layers.values() for name in values))
    colours = dict(zip(names, PALETTE, strict=False))
    bar = 14 if len(layers) < 12 else 7
    group = bar * len(names) + bar
    left, top, height = MARGIN + 42, 50, 200
    wide = max(group * len(layers), sum(map(legend_step, names)))
    image, pen = canvas(left + wide + MARGIN, top + height + 54)
    legend(pen, (left, 20), colours)
    for degrees in (0, 45, 90, 135, 180):
        y = top + height * (1 - degrees / 180)
        pen.line((left, y, image.width - MARGIN, y), fill=GREY if degrees == 90 else LIGHT)
        write(pen, (left - 6, y), str(degrees), "rm", GREY)
    for place, (layer, values) in enumerate(layers.items()):
        x = left + place * group + bar / 2
        for number, name in enumerate(names):
            if name in values:
                y = top + height * (1 - values[name] / 180)
                pen.rectangle((x + number * bar, y, x + (number + 1) * bar - 2, top + height), colours[name])
        write(pen, (x + bar * len(names) / 2, top + height + 6), str(layer), "ma")
    write(pen, (left + wide / 2, top + height + 28), "layer", "ma", GREY)
    return image
