"""What every stage did and waited for, from a run's trace."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from itertools import pairwise

from dtp_dist.charts.palette import COLOURS
from dtp_dist.charts.svg import Block
from dtp_dist.charts.svg import timeline as draw
from dtp_dist.report.read import Run
from dtp_dist.report.spans import MILLISECONDS
from dtp_dist.schedule import RECEIVING, Activity, Span
from dtp_dist.text.numbers import percent, short

MINIBATCHES, ROWS = 10, 64
"""The timeline shows the last of the trace's minibatches; charts show so many stages at most."""

WORDS = {
    Activity.WAIT_ACTIVATION: ("for activations from", -1),
    Activity.WAIT_TARGET: ("for targets from", 1),
    Activity.SEND_ACTIVATION: ("for room to send activations to", 1),
    Activity.SEND_TARGET: ("for room to send targets to", -1),
}
"""What a wait is for, and where the stage that it is for lies."""

Shares = dict[int, dict[Activity, float]]


def shares(run: Run) -> Shares:
    """Return, per stage, which share of the trace's time went where; the shares of a stage sum to 1.

    Where the trace has no waits, what lies between two actions counts as a wait for what the second needs.
    """
    every = [span for spans in run.trace.values() for span in spans]
    if not every:
        return {}
    length = max(max(span.end for span in every) - min(span.start for span in every), 1e-12)
    recorded = any(span.activity.waits for span in every)
    found: Shares = {}
    for stage, spans in run.trace.items():
        parts = defaultdict[Activity, float](float)
        for span in spans:
            parts[span.activity] += span.seconds / length
        if not recorded:
            for before, after in pairwise(spans):
                gap = max(0.0, after.start - before.end)
                parts[_gap(after.activity, stage, run.trace)] += gap / length
        parts[Activity.IDLE] += max(0.0, 1.0 - sum(parts.values()))
        found[stage] = dict(parts)
    return found


def _gap(after: Activity, stage: int, stages: Collection[int]) -> Activity:
    """Return what a gap without a record was for; the ends of the pipeline wait for nobody beyond them."""
    wait = RECEIVING.get(after.kind) if after.kind else None
    return wait if wait and stage + WORDS[wait][1] in stages else Activity.IDLE


def busy(parts: dict[Activity, float]) -> float:
    """Return the share of its time that a stage computes."""
    return sum(share for activity, share in parts.items() if activity.computes)


def longest_wait(run: Run, found: Shares) -> str:
    """Return in words which stage waited most, what for, and how busy the stage was that it waited for."""
    waits = [(parts.get(wait, 0.0), stage, wait) for stage, parts in found.items() for wait in WORDS]
    share, stage, wait = max(waits, key=lambda each: each[0])
    if not share:
        return "No stage waited for another."
    words, step = WORDS[wait]
    cause, through = stage + step, []
    while cause + step in found and found[cause].get(wait, 0.0) > busy(found[cause]):
        through.append(_name(run, cause))
        cause += step
    first = _name(run, cause) if not through else f"{through[0]}, which itself waited for {_name(run, cause)}"
    told = f"Longest wait: {_name(run, stage)}, {percent(share)} of this time {words} {first}"
    if cause not in found:
        return f"{told}."
    return f"{told}; that one computed for {percent(busy(found[cause]))}."


def _name(run: Run, stage: int) -> str:
    return run.rows.get(stage, f"stage {stage}")


def timeline(run: Run, width: int) -> str:
    """Return the last minibatches of the trace, one row a stage; "" without a trace."""
    actions = [span for spans in run.trace.values() for span in spans if _is_shown(span, 0)]
    if not actions:
        return ""
    first = max(span.minibatch for span in actions) + 1 - MINIBATCHES
    shown = [span for span in actions if _is_shown(span, first)]
    begin, end = min(span.start for span in shown), max(span.end for span in shown)
    within = {
        stage: [span for span in spans if span.minibatch >= first and begin < span.end and span.start < end]
        for stage, spans in run.trace.items()
    }
    stages = [stage for stage, spans in within.items() if spans][:ROWS]
    rows = [(_name(run, stage), _blocks(within[stage], begin, end)) for stage in stages]
    length = (end - begin) * MILLISECONDS
    return draw(rows, length, width, unit="milliseconds", label="timeline of the last minibatches")


def _is_shown(span: Span, first: int) -> bool:
    """Whether the picture is to have room for a span: for what a stage does with the last minibatches."""
    return span.activity.computes and span.minibatch >= max(first, 0)


def _blocks(spans: Iterable[Span], begin: float, end: float) -> list[Block]:
    """Return a stage's waits within the time that is shown, and over them its actions."""
    ordered = sorted(spans, key=lambda span: not span.activity.waits)
    return [_block(span, begin, max(span.start, begin), min(span.end, end)) for span in ordered]


def _block(span: Span, begin: float, start: float, end: float) -> Block:
    activity, minibatch = span.activity, span.minibatch
    return Block(
        (start - begin) * MILLISECONDS,
        (end - begin) * MILLISECONDS,
        COLOURS[activity],
        f"{activity}, minibatch {minibatch}: {short(span.seconds * MILLISECONDS)} ms",
        f"{activity.kind}{minibatch}" if activity.kind else "",
    )
