"""What every stage did and waited for, from a run's trace."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import groupby, pairwise

from dtp_dist.report.axis import short
from dtp_dist.report.read import Run, Span
from dtp_dist.report.svg import Block
from dtp_dist.report.svg import timeline as draw

IDLE = "nothing recorded"
"""Time between actions and waits: overhead, or other stages' turns where all share a thread."""

COLOURS = {
    "data": "#999999",
    "forward": "#0072b2",
    "inverse": "#009e73",
    "target": "#e69f00",
    "update": "#cc79a7",
    "other action": "#56b4e9",
    "wait for activation": "#f4d8d0",
    "wait for target": "#e9b9a9",
    "send": "#d9d9ea",
    IDLE: "#f2f2f2",
}
"""Actions in full colours, waiting in pale ones."""

WAITS = ("wait for activation", "wait for target", "send")
LETTERS = {"forward": "F", "inverse": "I", "target": "T", "update": "U"}
MINIBATCHES, ROWS = 10, 64
"""The timeline shows the last of the trace's minibatches; charts show so many stages at most."""


def kind_of(span: Span) -> str:
    """Return which entry of ``COLOURS`` a span is."""
    name = span.name.lower()
    if span.waits:
        for kind in ("activation", "target"):
            if name.startswith("wait") and kind in name:
                return f"wait for {kind}"
        return "send" if name.startswith("send") else IDLE
    letter = re.match(r"([fitu])\d", name)
    for kind, initial in LETTERS.items():
        if name.startswith(kind) or (letter and letter[1] == initial.lower()):
            return kind
    return "data" if name.startswith("data") else "other action"


def shares(run: Run) -> dict[int, dict[str, float]]:
    """Return, per stage, which share of the trace's time went where; the shares of a stage sum to 1.

    Where the trace has no waits, what lies between two actions counts as a wait for what the second needs.
    """
    if not run.trace:
        return {}
    begin, end = min(span.start for span in run.trace), max(span.end for span in run.trace)
    length = max(end - begin, 1e-9)
    recorded = any(span.waits for span in run.trace)
    found: dict[int, dict[str, float]] = {}
    for stage, group in groupby(run.trace, key=lambda span: span.stage):
        spans, parts = list(group), defaultdict[str, float](float)
        for span in spans:
            parts[kind_of(span)] += (span.end - span.start) / length
        if not recorded:
            for before, after in pairwise(spans):
                parts[_gap(after)] += max(0.0, after.start - before.end) / length
        parts[IDLE] += max(0.0, 1.0 - sum(parts.values()))
        found[stage] = dict(parts)
    return found


def _gap(after: Span) -> str:
    return {"forward": "wait for activation", "target": "wait for target"}.get(kind_of(after), IDLE)


def timeline(run: Run, width: int) -> str:
    """Return the last minibatches of the trace, one row a stage; "" without a trace."""
    actions = [span for span in run.trace if not span.waits and span.minibatch >= 0]
    if not actions:
        return ""
    last = max(span.minibatch for span in actions)
    shown = [span for span in actions if span.minibatch > last - MINIBATCHES]
    begin, end = min(span.start for span in shown), max(span.end for span in shown)
    stages = sorted({span.stage for span in shown})[:ROWS]
    rows = [
        (
            run.rows.get(stage, f"stage {stage}"),
            [_block(span, begin) for span in shown if span.stage == stage],
        )
        for stage in stages
    ]
    return draw(rows, end - begin, width, unit="milliseconds", label="timeline of the last minibatches")


def _block(span: Span, begin: float) -> Block:
    kind = kind_of(span)
    return Block(
        span.start - begin,
        span.end - begin,
        COLOURS[kind],
        f"{span.name}, minibatch {span.minibatch}: {short(span.end - span.start)} ms",
        f"{LETTERS[kind]}{span.minibatch}" if kind in LETTERS else "",
    )
