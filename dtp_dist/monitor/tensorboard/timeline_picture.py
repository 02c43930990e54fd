"""What every stage did at the end of a segment as a picture: a row a stage, time from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from PIL.Image import Image
from PIL.ImageDraw import ImageDraw

from dtp_dist.charts.axis import Axis
from dtp_dist.charts.palette import COLOURS, light
from dtp_dist.monitor.tensorboard.drawing import (
    BLACK,
    GREY,
    LINE,
    MARGIN,
    WHITE,
    canvas,
    legend,
    legend_lines,
    text_width,
    write,
)
from dtp_dist.runtime.layout import Layout
from dtp_dist.schedule import Activity, Span
from dtp_dist.text.numbers import percent, short

WIDTH, SMALL = 520, 16
MINIBATCHES = 1  # shown, and those in flight


def timeline_picture(stages: Sequence[Sequence[Span]], layout: Layout) -> Image | None:
    """Return the picture, stage 0 in the top row as everywhere; None where nothing was recorded.

    The segment's last minibatches are shown, to its end, where the pipeline drains; at the right, the share
    of the time shown that each stage computes.
    """
    last = max((span.minibatch for span in chain.from_iterable(stages)), default=None)
    if last is None:
        return None
    first = last - MINIBATCHES - layout.in_flight
    shown = [[span for span in spans if span.minibatch > first] for spans in stages]
    start = min(span.start for span in chain.from_iterable(shown))
    seconds = max(max(span.end for span in chain.from_iterable(shown)) - start, 1e-9)
    seen = {span.activity for span in chain.from_iterable(shown)}
    names = {_name(activity): colour for activity, colour in COLOURS.items() if activity in seen}
    row = 64 if layout.stages <= 4 else 38
    top = MARGIN + LINE * len(legend_lines(names, WIDTH - 2 * MARGIN)) + 8
    left = MARGIN + text_width(f"stage {layout.stages - 1}") + 10
    right = WIDTH - MARGIN - text_width("100 %") - 10
    scale = (right - left) / seconds
    image, pen = canvas(WIDTH, top + row * layout.stages + 30)
    legend(pen, (MARGIN, MARGIN + 10), names, WIDTH - 2 * MARGIN)
    for stage, spans in enumerate(shown):
        bar = (top + row * stage, top + row * (stage + 1) - 10)
        middle = (bar[0] + bar[1]) / 2
        write(pen, (MARGIN, middle), f"stage {stage}", "lm")
        pen.rectangle((left, bar[0], right, bar[1]), fill=COLOURS[Activity.IDLE])
        for span in spans:
            _box(pen, span, left + (span.start - start) * scale, left + (span.end - start) * scale, bar)
        busy = sum(span.seconds for span in spans if span.activity.computes)
        write(pen, (WIDTH - MARGIN, middle), percent(busy / seconds), "rm")
    _axis(pen, left, right, top + row * layout.stages, seconds)
    return image


def _name(activity: Activity) -> str:
    """Return what the legend calls an activity: with its letter before it, where it has one."""
    return f"{activity.kind} {activity}" if activity.kind else activity


def _box(pen: ImageDraw, span: Span, x0: float, x1: float, bar: tuple[float, float]) -> None:
    colour, letter = COLOURS[span.activity], span.activity.kind or ""
    if x1 - x0 < 1 and span.activity.waits:
        return
    pen.rectangle((x0, bar[0], max(x1 - 1, x0), bar[1]), fill=colour)
    for words in (f"{letter}{span.minibatch}", letter):
        if letter and text_width(words, SMALL) < x1 - x0 - 2:
            ink = BLACK if light(colour) else WHITE
            write(pen, ((x0 + x1) / 2, sum(bar) / 2), words, "mm", ink, SMALL)
            return


def _axis(pen: ImageDraw, left: float, right: float, y: float, seconds: float) -> None:
    """Draw ticks at round numbers of milliseconds, every second one if they are close."""
    axis = Axis(0.0, seconds * 1e3)
    pen.line((left, y, right, y), fill=GREY)
    ticks = axis.ticks()
    for value in ticks[:: 1 if len(ticks) <= 5 else 2]:
        x = left + (right - left) * axis.at(value)
        pen.line((x, y, x, y + 4), fill=GREY)
        write(pen, (x, y + 7), f"{short(value)} ms", "ma", GREY, SMALL)
