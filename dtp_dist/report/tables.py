"""Tables of runs: summary and events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

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


def summary(runs: Sequence[Run], marks: Sequence[str]) -> str:
    """Return one row a run; ``marks`` are the runs' labels as HTML."""
    measured = measured_in(run.measured() for run in runs)
    head = [
        *("run", "state", *(name.replace("_", " ") for name in SETTINGS), "epoch", "step", "train loss"),
        *(f"{split} {MEASURES[name].titled}" for split, name in measured),
        *("samples/s", "stages × D", "runtime", "seconds", "started", "weights"),
    ]
    rows = []
    for run, mark in zip(runs, marks, strict=True):
        weights = "none: virtual" if run.virtual else str(run.result.get("weights_sha256", NONE))
        short_weights = weights if run.virtual else weights[:8]
        rows.append(
            [
                mark,
                f'<span class="{run.state.strip("?").replace(" ", "-")}">{escape(run.state)}</span>',
                *(NONE if value is None else escape(str(value)) for value in settings_of(run).values()),
                *(cell(run.place(name), whole) for name in ("epoch", "step")),
                cell(run.last("train_loss"), short),
                *(cell(run.last(f"{split}_{name}"), MEASURES[name].bare) for split, name in measured),
                cell(run.last("samples_per_second"), whole),
                escape(f"{stages_of(run) or NONE} × {in_flight_of(run) or NONE}"),
                escape(str(run.result.get("runtime") or run.setting("parallel.runtime") or NONE)),
                cell(seconds_of(run), whole),
                stamp(run.started),
                f'<code title="{escape(weights)}">{escape(short_weights)}</code>',
            ]
        )
    told = [(mark, state_words(run)) for run, mark in zip(runs, marks, strict=True) if state_words(run)]
    notes = "".join(f"<li>{mark}: {escape(words)}</li>" for mark, words in told)
    return table(head, rows, "summary") + (f'<ul class="notes">{notes}</ul>' if notes else "")


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
