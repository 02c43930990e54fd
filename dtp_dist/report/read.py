"""A run's folder as plain data, whatever state it is in: nothing in it is trusted to be there or whole."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from dtp_dist.flat import flat
from dtp_dist.run_files import CONFIG, METRICS, RESULT, TRACE

STATES = ("done", "running?", "failed", "interrupted", "cut off", "unreadable", "no run")
QUIET_SECONDS, QUIET_GAPS = 120.0, 5.0
"""A run without an end may live on while it is silent for less than this, or than so many of its gaps."""

LIMIT = 1e100
_LATEST = 2.0**37  # seconds since 1970: what any clock can write as a date
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLACE = ("step", "epoch", "time", "minibatch", "phase")

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Span:
    """What a stage did from ``start`` to ``end`` (milliseconds); ``minibatch`` is -1 where none is named."""

    stage: int
    name: str
    start: float
    end: float
    minibatch: int
    waits: bool


@dataclass(frozen=True)
class Run:
    """One run, as far as it can be read.

    Attributes:
        path: its folder.
        state: one of ``STATES``.
        reason: why it is in that state, in words; "" for a run that is done.
        problems: what could not be read, one line each.
        config: the resolved configuration, nested; {} where it can't be read.
        lines: measured values in order, without those that a later attempt measured again.
        events: all events in order.
        result: ``result.json``; {} where there is none.
        started: seconds since 1970, None where nothing tells.
        trace: the spans of ``trace.json``.
        rows: names of the stages in the trace.
    """

    path: Path
    state: str
    reason: str = ""
    problems: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    lines: tuple[dict[str, Any], ...] = ()
    events: tuple[dict[str, Any], ...] = ()
    result: dict[str, Any] = field(default_factory=dict)
    started: float | None = None
    trace: tuple[Span, ...] = ()
    rows: dict[int, str] = field(default_factory=dict)

    @property
    def virtual(self) -> bool:
        """Whether its stages slept for planned times instead of computing."""
        told = (self.result, *(event for event in self.events if event["event"] == "started"))
        return any(each.get("virtual") is True for each in told)

    @property
    def name(self) -> str:
        """The experiment's name, or the folder's."""
        return str(self.config.get("name") or self.result.get("name") or self.path.name)

    def setting(self, key: str) -> Any:
        """Return a dotted key of the configuration, None where it is missing."""
        return flat(self.config).get(key)

    def series(self, name: str) -> Points:
        """Return (minibatch, value) of a measured value, finite ones alone; the later line wins."""
        found: dict[float, float] = {}
        for line in self.lines:
            value = line.get(name)
            if is_number(value):
                found[line.get("minibatch", line["step"])] = float(value)
        return sorted(found.items())

    def names(self) -> set[str]:
        """Return the names of all measured values."""
        return {name for line in self.lines for name in line} - set(_PLACE)

    def last(self, name: str) -> float | None:
        """Return ``name`` as the result has it, else as it was measured last."""
        value = self.result.get(name)
        if is_number(value):
            return float(value)
        points = self.series(name)
        return points[-1][1] if points else None

    def place(self, name: str) -> int | None:
        """Return ``step`` or ``epoch`` of the newest line."""
        found = [line[name] for line in (*self.lines, *self.events) if is_number(line.get(name))]
        step = self.result.get("steps") if name == "step" else None
        return int(step) if is_number(step) else int(max(found)) if found else None

    def busy(self) -> list[float]:
        """Return every stage's busy share: of the whole run, or the mean of what was measured so far."""
        shares = self.result.get("stage_busy")
        if isinstance(shares, list) and shares and all(map(is_number, shares)):
            return [float(share) for share in shares]
        stages = numbered(self.names(), r"stage/(\d+)/busy")
        values = [[value for _, value in self.series(name)] for name in stages.values()]
        return [sum(each) / len(each) for each in values if each]


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number that can be drawn: finite, and no nonsense of hundreds of digits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LIMIT < value < LIMIT


def numbered(names: Iterable[str], pattern: str) -> dict[int, str]:
    """Return the names that match, by the number in them, in its order."""
    found = {int(match[1]): name for name in names if (match := re.fullmatch(pattern, name))}
    return dict(sorted(found.items()))


def read_run(path: Path, *, trace: bool = True, now: float | None = None) -> Run:
    """Return the run in a folder; never raises for what is missing, damaged or half-written.

    Args:
        path: the folder.
        trace: read ``trace.json`` too.
        now: seconds since 1970, against which silence is measured.
    """
    if not path.is_dir():
        return Run(path, "no run", "is not a folder" if path.exists() else "does not exist")
    if not any((path / name).is_file() for name in (CONFIG, METRICS, RESULT)):
        return Run(path, "no run", f"holds neither {CONFIG} nor {METRICS} nor {RESULT}")
    problems: list[str] = []
    config = _config(path / CONFIG, problems)
    records = _records(path / METRICS, problems)
    result = _json(path / RESULT, problems, needed=False)
    spans, rows = _trace(path / TRACE, problems) if trace else ([], {})
    events = tuple(line for line in records if "event" in line)
    state, reason = _state(path, records, result, problems, time.time() if now is None else now)
    return Run(
        path,
        state,
        reason,
        tuple(problems),
        config,
        tuple(_newest(records)),
        events,
        result,
        _started(path, records),
        tuple(spans),
        rows,
    )


def _config(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        raw = _LOADER(path.read_text()).get_single_data()
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problems.append(f"{path.name} can't be read ({str(error).splitlines()[0]})")
        return {}
    if not isinstance(raw, dict):
        problems.append(f"{path.name} is no configuration")
        return {}
    return raw


def _records(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Return the whole lines of ``metrics.jsonl``."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
        return []
    except OSError as error:
        problems.append(f"{path.name} can't be read ({error.strerror})")
        return []
    found, bad = [], []
    for number, line in enumerate(text.splitlines(), 1):
        with suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and is_number(record.get("step")):
                found.append(record)
                continue
        bad.append(number)
    if bad:
        what = f"line {bad[0]}" if len(bad) == 1 else f"{len(bad)} lines"
        problems.append(f"{path.name}: {what} not whole, left out")
    return found


def _json(path: Path, problems: list[str], *, needed: bool) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        if needed:
            problems.append(f"{path.name} is missing")
        return {}
    except (OSError, ValueError, RecursionError):
        problems.append(f"{path.name} can't be read")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{path.name} is not what a run writes")
        return {}
    return found


def _newest(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of values; what came after the step that a run went back to is dropped."""
    kept: list[dict[str, Any]] = []
    for record in records:
        if "event" not in record:
            kept.append(record)
        elif record["event"] in ("recovered", "resumed"):
            kept = [line for line in kept if line["step"] <= record["step"]]
    return kept


def _state(
    path: Path, records: list[dict[str, Any]], result: dict[str, Any], problems: list[str], now: float
) -> tuple[str, str]:
    """Return (state, reason) from the last event that begins or ends an attempt."""
    marks = ("started", "resumed", "recovered", "finished", "failed", "interrupted", "stage lost")
    last: dict[str, Any] = next((line for line in reversed(records) if line.get("event") in marks), {})
    event, message = str(last.get("event", "")), str(last.get("message") or "")
    if event in ("failed", "interrupted"):
        return event, message or f"at step {last['step']}"
    if result and event in ("finished", ""):
        return "done", ""
    if event == "finished":
        return "done", f"{RESULT} is missing"
    if not records and not (path / METRICS).is_file() and problems and not (path / CONFIG).is_file():
        return "unreadable", problems[0]
    silent = now - max((file.stat().st_mtime for file in _files(path)), default=0.0)
    times = [line["time"] for line in records[-20:] if is_number(line.get("time"))]
    gaps = [after - before for before, after in pairwise(times)]
    if silent < max([QUIET_SECONDS, *(QUIET_GAPS * gap for gap in gaps)]):
        return "running?", f"no end yet, last line {max(silent, 0):.0f} s ago"
    return (
        "cut off",
        f"no end was written, silent for {silent:,.0f} s; dtp-dist resume goes on from a checkpoint",
    )


def _files(path: Path) -> list[Path]:
    return [path / name for name in (METRICS, CONFIG) if (path / name).is_file()]


def _started(path: Path, records: list[dict[str, Any]]) -> float | None:
    """Return when the run began: TensorBoard's files carry it, else the age of what was written."""
    stamps = [re.match(r"events\.out\.tfevents\.(\d+)\.", file.name) for file in path.glob("events.out.*")]
    found = [float(match[1]) for match in stamps if match]
    found += [file.stat().st_mtime for file in _files(path)]
    times = [line["time"] for line in records if is_number(line.get("time"))]
    if times and (path / METRICS).is_file():
        found.append((path / METRICS).stat().st_mtime - times[-1])
    return min((each for each in found if 0 <= each < _LATEST), default=None)


def _trace(path: Path, problems: list[str]) -> tuple[list[Span], dict[int, str]]:
    """Return the spans of a Chrome trace and the names of its rows; what does not fit is left out."""
    events = _json(path, problems, needed=False).get("traceEvents")
    spans: list[Span] = []
    rows: dict[int, str] = {}
    for event in events if isinstance(events, list) else []:
        with suppress(KeyError, TypeError, ValueError, AttributeError, OverflowError):
            stage, name, details = int(event["tid"]), str(event["name"]), event.get("args") or {}
            if event["ph"] == "M" and name == "thread_name":
                rows[stage] = str(details["name"])
            elif event["ph"] == "X" and all(is_number(event[each]) for each in ("ts", "dur")):
                start, length = float(event["ts"]) / 1e3, float(event["dur"]) / 1e3
                waits = event.get("cat") == "wait" or name.startswith(("wait", "send"))
                minibatch = int(details.get("minibatch", -1))
                spans.append(Span(stage, name, start, start + max(length, 0.0), minibatch, waits))
    return sorted(spans, key=lambda span: (span.stage, span.start)), rows
