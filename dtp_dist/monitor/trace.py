"""``trace.json``: what every stage did when, for a Chrome-trace viewer (Perfetto, chrome://tracing)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dtp_dist.monitor.base import writing
from dtp_dist.runtime.layout import Layout
from dtp_dist.runtime.segment import Span

MICROSECONDS = 1e6


def write_trace(path: Path, stages: Sequence[Sequence[Span]], layout: Layout) -> None:
    """Write the stages' timelines, one row per stage; times are microseconds from the first action.

    The spans of one machine share its clock.
    """
    start = min((span.start for spans in stages for span in spans), default=0.0)
    events: list[dict[str, Any]] = []
    for stage, spans in enumerate(stages):
        events.append(_name(stage, layout.describe(stage)))
        events.extend(_event(stage, span, start) for span in spans)
    with writing(path):
        path.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))


def _name(stage: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": 0, "tid": stage, "name": "thread_name", "args": {"name": name}}


def _event(stage: int, span: Span, start: float) -> dict[str, Any]:
    return {
        "ph": "X",
        "pid": 0,
        "tid": stage,
        "name": span.name,
        "cat": "wait" if span.name.startswith(("wait", "send")) else "action",
        "ts": round((span.start - start) * MICROSECONDS, 1),
        "dur": round((span.end - span.start) * MICROSECONDS, 1),
        "args": {"minibatch": span.minibatch},
    }
