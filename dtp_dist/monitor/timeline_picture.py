"""What every stage did at the end of a segment as a picture: a row a stage, time from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from PIL.Image import Image
from PIL.ImageDraw import ImageDraw

from dtp_dist.monitor.drawing import GREY, LIGHT, MARGIN, WHITE, canvas, legend, text_width, write
from dtp_dist.runtime.layout import Layout
from dtp_dist.runtime.segment import Span
from dtp_dist.schedule import ACTION_NAMES

COLOURS = {
    "forward": "#4477aa",
    "inverse": "#228833",
    "target": "#ee8866",
    "update": "#aa3377",
    "other": "#999999",
    "waiting": LIGHT,
}
LETTERS = {name: str(kind) for kind, name in ACTION_NAMES.items()}
WIDTH, TOP, SMALL = 760, 48, 13
MINIBATCHES = 3  # shown, and those in flight


def timeline_picture(stages: Sequence[Sequence[Span]], layout: Layout) -> Image | None:
    """Return the picture, the top stage in the top row; None where nothing was recorded.

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
    row = 58 if layout.stages <= 4 else 38
    left = MARGIN + text_width(f"stage {layout.stages - 1}") + 10
    right = WIDTH - MARGIN - text_width("100 %") - 10
    scale = (right - left) / seconds
    image, pen = canvas(WIDTH, TOP + row * layout.stages + 34)
    legend(pen, (MARGIN, 22), COLOURS)
    for stage, spans in enumerate(shown):
        top = TOP + row * (layout.stages - 1 - stage)
        bar = (top, top + row - 10)
        middle = (bar[0] + bar[1]) / 2
        write(pen, (MARGIN, middle), f"stage {stage}", "lm")
        for span in spans:
            _box(pen, span, left + (span.start - start) * scale, left + (span.end - start) * scale, bar)
        busy = sum(span.end - span.start for span in spans if not _waits(span))
        write(pen, (WIDTH - MARGIN, middle), f"{100 * busy / seconds:.0f} %", "rm")
    _axis(pen, left, right, TOP + row * layout.stages, seconds)
    return image


def _waits(span: Span) -> bool:
    return span.name.startswith(("wait", "send"))


def _box(pen: ImageDraw, span: Span, x0: float, x1: float, bar: tuple[float, float]) -> None:
    kind = "waiting" if _waits(span) else span.name if span.name in COLOURS else "other"
    if x1 - x0 < 1 and kind == "waiting":
        return
    pen.rectangle((x0, bar[0], max(x1 - 1, x0), bar[1]), fill=COLOURS[kind])
    label = f"{LETTERS.get(kind, '')}{span.minibatch}"
    if kind in LETTERS and text_width(label, SMALL) < x1 - x0 - 2:
        write(pen, ((x0 + x1) / 2, sum(bar) / 2), label, "mm", WHITE, SMALL)


def _axis(pen: ImageDraw, left: float, right: float, y: float, seconds: float) -> None:
    """Draw ticks at round numbers of milliseconds."""
    milliseconds = max(seconds * 1e3, 1e-6)
    step = 10.0 ** (len(str(int(milliseconds))) - 1)
    while milliseconds / step > 6:
        step *= 2 if milliseconds / step < 12 else 5
    while milliseconds / step < 3:
        step /= 2
    pen.line((left, y, right, y), fill=GREY)
    tick = 0.0
    while tick <= milliseconds:
        x = left + (right - left) * tick / milliseconds
        pen.line((x, y, x, y + 4), fill=GREY)
        write(pen, (x, y + 7), f"{tick:g} ms", "ma", GREY, SMALL)
        tick += step
