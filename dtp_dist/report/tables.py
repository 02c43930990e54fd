"""Tables of runs: summary and events."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import Any

from dtp_dist.report.groups import Group
from dtp_dist.report.read import Run
from dtp_dist.report.settings import NONE, SETTINGS, settings_of
from dtp_dist.report.spans import is_number
from dtp_dist.text.measures import MEASURES, measured_in
from dtp_dist.text.numbers import short, whole

_SHOWN_CHARACTERS = 160


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Return an HTML table; cells are HTML already."""
    top = "".join(f"<th>{name}</th>" for name in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table>'


def state_words(run: Run) -> str:
    """Return the state with its reason and what could not be read."""
    return "; ".join(each for each in (run.reason, *run.problems) if each)


def cell(value: Any, form: Callable[[float], str]) -> str:
    """Return a number in its form, a dash where there is none."""
    return form(value) if is_number(value) else NONE


def stamp(seconds: float | None) -> str:
    """Return a time of day in words of fixed length."""
    return NONE if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def stages_of(run: Run) -> Any:
    """Return the number of stages from the result, else from the configuration."""
    return run.result.get("stages", run.setting("parallel.stages"))


def in_flight_of(run: Run) -> Any:
    """Return D from the result, else from the configuration."""
    return run.result.get("in_flight", run.setting("parallel.in_flight"))


def seconds_of(run: Run) -> float | None:
    """Return the seconds of all attempts together: the result's are those of the last process."""
    found = run.result.get("seconds")
    times = [line.get("time") for line in (*run.lines[-1:], *run.events[-1:])]
    return max(filter(is_number, [found, *times]), default=None)


def summary(groups: Sequence[Group], marks: Sequence[str]) -> str:
    """Return one row a group, ``mean ± deviation`` of its runs; ``marks`` are the groups' labels as HTML."""
    measured = measured_in(group.measured() for group in groups)
    head = [
        *("run", "state", *(name.replace("_", " ") for name in SETTINGS), "epoch", "step", "train loss"),
        *(f"{split} {MEASURES[name].titled}" for split, name in measured),
        *("samples/s", "stages × D", "runtime", "seconds", "started", "weights"),
    ]
    rows = []
    for group, mark in zip(groups, marks, strict=True):
        run, settings = group.first, settings_of(group.first)
        settings |= {"seed": group.seeds} if group.several else {}
        rows.append(
            [
                mark,
                _state(group),
                *(NONE if value is None else escape(str(value)) for value in settings.values()),
                *(_figure(group, partial(Run.place, name=name), whole) for name in ("epoch", "step")),
                _figure(group, partial(Run.last, name="train_loss"), short),
                *(
                    _figure(group, partial(Run.last, name=f"{split}_{name}"), MEASURES[name].bare)
                    for split, name in measured
                ),
                _figure(group, partial(Run.last, name="samples_per_second"), whole),
                escape(f"{stages_of(run) or NONE} × {in_flight_of(run) or NONE}"),
                escape(str(run.result.get("runtime") or run.setting("parallel.runtime") or NONE)),
                _figure(group, seconds_of, whole),
                stamp(run.started),
                _weights(group),
            ]
        )
    told = [
        (mark, words)
        for group, mark in zip(groups, marks, strict=True)
        for run in group.runs
        if (words := state_words(run))
    ]
    notes = "".join(f"<li>{mark}: {escape(words)}</li>" for mark, words in told)
    return table(head, rows, "summary") + (f'<ul class="notes">{notes}</ul>' if notes else "")


def _state(group: Group) -> str:
    """Return the state of a group's runs, counted where they differ; the look is of one that is not done."""
    counts = Counter(run.state for run in group.runs)
    if len(counts) == 1:
        words = group.first.state
    else:
        words = ", ".join(f"{count} {state}" for state, count in counts.items())
    look = next((state for state in counts if state != "done"), "done")
    return f'<span class="{look.strip("?").replace(" ", "-")}">{escape(words)}</span>'


def _figure(group: Group, value: Callable[[Run], Any], form: Callable[[float], str]) -> str:
    """Return ``mean ± deviation``, the mean alone where all are the same, a dash where there is none."""
    found = group.of(value)
    return NONE if found is None else found.written(form) if found.deviation else form(found.mean)


def _weights(group: Group) -> str:
    if group.several:
        return NONE
    virtual = group.first.virtual
    weights = "none: virtual" if virtual else str(group.first.result.get("weights_sha256", NONE))
    return f'<code title="{escape(weights)}">{escape(weights if virtual else weights[:8])}</code>'


def events(run: Run) -> str:
    """Return what happened in a run, its checkpoints as one row; "" where nothing did."""
    rows = []
    saved = [event for event in run.events if event["event"] == "checkpoint"]
    for event in run.events:
        if event["event"] == "checkpoint":
            if event is saved[-1]:
                rows.append(_event(event, f"{len(saved)} in all, this the newest: {event.get('path', '')}"))
            continue
        details = {
            key: value for key, value in event.items() if key not in ("step", "epoch", "time", "event")
        }
        rows.append(_event(event, ", ".join(f"{key}: {_words(value)}" for key, value in details.items())))
    return table(["time, s", "epoch", "step", "event", "details"], rows, "events") if rows else ""


def _event(event: dict[str, Any], details: str) -> list[str]:
    cut = details if len(details) <= _SHOWN_CHARACTERS else details[: _SHOWN_CHARACTERS - 1] + "…"
    return [
        cell(event.get("time"), short),
        escape(str(event.get("epoch", NONE))),
        cell(event.get("step"), whole),
        escape(str(event["event"])),
        f'<span title="{escape(details)}">{escape(cut)}</span>',
    ]


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    return short(value) if isinstance(value, float) else str(value)
