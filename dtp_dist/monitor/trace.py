"""``trace.json``: what every stage did when, for a Chrome-trace viewer (Perfetto, chrome://tracing).

A row a stage, a bar an action, an arrow a message from the action that sent it to the one that needed it. A
stage that waits draws nothing: waiting is the gaps. How long a gap's wait for a message or for room to send
one took is in ``waited_ms`` and ``send_ms`` of the action next to it. Programs read what it is from ``kind``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from dtp_dist.charts.palette import CHROME
from dtp_dist.monitor.base import writing
from dtp_dist.runtime.layout import Layout
from dtp_dist.schedule import ACTIONS, MESSAGES, RECEIVING, SENDING, Activity, Kind, Span

MICROSECONDS, MILLISECONDS = 1e6, 1e3
SAME_CLOCK = 1e-5  # seconds by which a message may seem to come before it was sent
WITHIN = 1e-9  # seconds; an arrow's end belongs to the bar that it lies in


class Arrow(NamedTuple):
    """A message: the stage and the action that sent it, and those that received it; both are of ``kind``."""

    kind: Kind
    source: int
    sent: Span
    target: int
    received: Span


def write_trace(
    path: Path,
    stages: Sequence[Sequence[Span]],
    layout: Layout,
    *,
    minibatches: int | None = None,
    virtual: bool = False,
) -> None:
    """Write the stages' timelines; times are microseconds from the first action.

    The spans of one machine share its clock; those of others are moved so that no message comes before it
    was sent.

    Args:
        stages: each stage's spans, oldest first.
        minibatches: write the last ones alone; None for all.
        virtual: the stages slept instead of computing.

    Raises:
        StorageError: it can't be written.
    """
    aligned = on_one_clock(_last(stages, minibatches))
    start = min((span.start for spans in aligned for span in spans), default=0.0)
    events = [_about(0, "process_name", name="dtp_dist, virtual" if virtual else "dtp_dist")]
    for stage, spans in enumerate(aligned):
        events.append(_about(stage, "thread_name", name=layout.describe(stage)))
        events.append(_about(stage, "thread_sort_index", sort_index=stage))
        events.extend(_bars(stage, spans, start, layout))
    for number, arrow in enumerate(arrows(aligned)):
        events.extend(_ends(number, arrow, start))
    content = {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"virtual": virtual, "in_flight": layout.in_flight, "partition": list(layout.partition)},
    }
    with writing(path):
        path.write_text(json.dumps(content))


def _last(stages: Sequence[Sequence[Span]], minibatches: int | None) -> list[list[Span]]:
    """Return the spans of the last minibatches: some stages keep more than others."""
    if minibatches is None:
        return [list(spans) for spans in stages]
    last = max((span.minibatch for spans in stages for span in spans), default=0)
    return [[span for span in spans if span.minibatch > last - minibatches] for spans in stages]


def arrows(stages: Sequence[Sequence[Span]]) -> Iterator[Arrow]:
    """Yield the messages whose two actions are both there.

    A minibatch may come in two phases, whose last actions belong together, and those before them.
    """
    acts = [_acts(spans) for spans in stages]
    for below in range(len(stages) - 1):
        for kind, source, target in ((Kind.FORWARD, below, below + 1), (Kind.TARGET, below + 1, below)):
            sent, received = acts[source][ACTIONS[kind]], acts[target][ACTIONS[kind]]
            for minibatch in sorted(sent.keys() & received.keys()):
                pairs = zip(reversed(sent[minibatch]), reversed(received[minibatch]), strict=False)
                yield from (Arrow(kind, source, first, target, second) for first, second in pairs)


def _acts(spans: Sequence[Span]) -> dict[Activity, dict[int, list[Span]]]:
    """Return what a stage did by activity and minibatch, in order."""
    found: dict[Activity, dict[int, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for span in spans:
        found[span.activity][span.minibatch].append(span)
    return found


def on_one_clock(stages: Sequence[Sequence[Span]]) -> list[list[Span]]:
    """Return the spans with those of every stage moved to the first stage's clock.

    Messages show how: none is received before it was sent. Where that holds already, nothing is moved.
    """
    moved, shift = [list(spans) for spans in stages[:1]], 0.0
    for below, above in pairwise(stages):
        earliest, latest = float("-inf"), float("inf")
        for arrow in arrows([below, above]):
            if arrow.kind is Kind.FORWARD:
                earliest = max(earliest, arrow.sent.end - arrow.received.start)
            else:
                latest = min(latest, arrow.received.start - arrow.sent.end)
        shift += _offset(earliest, latest)
        moved.append([span.moved(shift) if shift else span for span in above])
    return moved


def _offset(least: float, most: float) -> float:
    """Return 0 if it lies within the bounds: one clock; else their middle, or the only one there is."""
    if least <= SAME_CLOCK and most >= -SAME_CLOCK:
        return 0.0
    known = [bound for bound in (least, most) if abs(bound) < float("inf")]
    return sum(known) / len(known)


def _about(stage: int, what: str, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "pid": 0, "tid": stage, "name": what, "args": args}


def _bars(stage: int, spans: Sequence[Span], start: float, layout: Layout) -> Iterator[dict[str, Any]]:
    """Yield the actions of a stage; a wait goes to the action after it, a send to the one before it."""
    waited = 0.0
    bar: dict[str, Any] | None = None
    for span in spans:
        if span.activity in RECEIVING.values():
            waited = span.seconds
        elif span.activity in SENDING.values():
            if bar is not None:
                bar["args"]["send_ms"] = _milliseconds(span.seconds)
        else:
            if bar is not None:
                yield bar
            bar = _bar(stage, span, start, layout)
            if waited:
                bar["args"]["waited_ms"], waited = _milliseconds(waited), 0.0
    if bar is not None:
        yield bar


def _bar(stage: int, span: Span, start: float, layout: Layout) -> dict[str, Any]:
    layers = layout.layers(stage)
    args = {"kind": span.activity, "minibatch": span.minibatch, "layers": f"{layers[0]}-{layers[-1]}"}
    place = {"ts": _microseconds(span.start - start), "dur": _microseconds(span.seconds)}
    look = {"name": span.activity, "cat": "action", "cname": CHROME[span.activity]}
    return {"ph": "X", "pid": 0, "tid": stage, **look, **place, "args": args}


def _ends(number: int, arrow: Arrow, start: float) -> Iterator[dict[str, Any]]:
    """Yield both ends of an arrow, each within its bar: at the end of the sending, the start of the other."""
    sent, received = arrow.sent, arrow.received
    leaves = max(sent.start, sent.end - WITHIN)
    for phase, stage, when in (("s", arrow.source, leaves), ("f", arrow.target, received.start)):
        name = MESSAGES[arrow.kind]
        end = {"ph": phase, "pid": 0, "tid": stage, "name": name, "cat": "message", "id": number}
        end |= {"ts": _microseconds(when - start), "args": {"kind": name, "minibatch": sent.minibatch}}
        yield end | ({"bp": "e"} if phase == "f" else {})


def _microseconds(seconds: float) -> float:
    return round(seconds * MICROSECONDS, 3)


def _milliseconds(seconds: float) -> float:
    return round(seconds * MILLISECONDS, 4)
