"""What ``trace.json`` says of every stage, as plain data; nothing in it is trusted to be there or whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeGuard

from dtp_dist.schedule import RECEIVING, SENDING, Activity, Kind, Span

LIMIT = 1e100
MICROSECONDS, MILLISECONDS = 1e6, 1e3

Trace = dict[int, list[Span]]
"""The spans of every stage, in order."""


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number that can be drawn: finite, and no nonsense of hundreds of digits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LIMIT < value < LIMIT


def spans_of(content: Mapping[str, Any]) -> tuple[Trace, dict[int, str]]:
    """Return the spans of a Chrome trace and the names of its rows; what does not fit is left out.

    A trace has no bars of waits; how long they took is with the action that waited.
    """
    events = content.get("traceEvents")
    found: Trace = defaultdict(list)
    rows: dict[int, str] = {}
    for event in events if isinstance(events, list) else []:
        with suppress(KeyError, TypeError, ValueError, AttributeError, OverflowError):
            stage, details = int(event["tid"]), event.get("args") or {}
            if event["ph"] == "M" and event["name"] == "thread_name":
                rows[stage] = str(details["name"])
            elif event["ph"] == "X" and all(is_number(event[each]) for each in ("ts", "dur")):
                found[stage].extend(list(_spans(event, details)))
    return {stage: sorted(found[stage], key=lambda span: span.start) for stage in sorted(found)}, rows


def _spans(event: Mapping[str, Any], details: Mapping[str, Any]) -> Iterator[Span]:
    """Yield an action, between what it waited for before and after it."""
    activity, minibatch = _activity(event, details), int(details.get("minibatch", -1))
    start = float(event["ts"]) / MICROSECONDS
    end = start + max(float(event["dur"]), 0.0) / MICROSECONDS
    waited, sent = (_seconds(details.get(each)) for each in ("waited_ms", "send_ms"))
    kind = Kind.TARGET if activity is Activity.ALIGNMENT else activity.kind  # it comes between T and its send
    if waited and kind is not None and kind in RECEIVING:
        yield Span(RECEIVING[kind], minibatch, start - waited, start)
    yield Span(activity, minibatch, start, end)
    if sent and kind is not None and kind in SENDING:
        yield Span(SENDING[kind], minibatch, end, end + sent)


def _activity(event: Mapping[str, Any], details: Mapping[str, Any]) -> Activity:
    """Return what a bar is: as it says itself, or by its name in traces from before they did."""
    try:
        return Activity(details.get("kind", event.get("name")))
    except ValueError:
        return Activity.OTHER


def _seconds(milliseconds: Any) -> float:
    return max(0.0, float(milliseconds)) / MILLISECONDS if is_number(milliseconds) else 0.0
