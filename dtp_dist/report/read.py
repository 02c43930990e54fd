"""A run's folder as plain data, whatever state it is in: nothing in it is trusted to be there or whole."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from dtp_dist.report.spans import Trace, is_number, spans_of
from dtp_dist.storage.run_files import CONFIG, METRICS, RESULT, TRACE
from dtp_dist.text.dotted import flat
from dtp_dist.text.foreign import LOG_BYTES, TEXT_BYTES, is_regular, parse_json, parse_yaml, read_file
from dtp_dist.text.measures import MEASURES
from dtp_dist.text.measures import OF_EPOCH as OVER_EPOCH
from dtp_dist.text.numbers import whole

QUIET_SECONDS, QUIET_GAPS = 120.0, 5.0
"""A run without an end may live on while it is silent for less than this, or than so many of its gaps."""

_LATEST = 2.0**37  # seconds since 1970: what any clock can write as a date
_DIGITS = 9  # of a layer's or a stage's number
_PLACE = ("step", "epoch", "time", "minibatch", "phase")

SPEED = "samples_per_second"
OF_EPOCH = {
    **{f"train_{name}": f"train_{name}{OVER_EPOCH}" for name in ("loss", *MEASURES)},
    SPEED: "samples_per_second_so_far",
}
"""What is measured since the last line, and the name of its mean over the epoch, or the run so far."""

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Run:
    """One run, as far as it can be read.

    Attributes:
        path: its folder.
        state: "done", "running?", "failed", "interrupted", "cut off", "unreadable" or "no run".
        reason: why it is in that state, in words; "" for a run that is done.
        problems: what could not be read, one line each.
        config: the resolved configuration, nested; {} where it can't be read.
        lines: measured values in order, without those that a later attempt measured again.
        events: all events in order.
        result: ``result.json``; {} where there is none.
        started: seconds since 1970, None where nothing says.
        trace: the spans of ``trace.json``, by stage.
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
    trace: Trace = field(default_factory=dict)
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
            value, place = line.get(name), line.get("minibatch", line["step"])
            if is_number(value) and is_number(place):
                found[place] = float(value)
        return sorted(found.items())

    def over_time(self, name: str) -> Points:
        """Return (seconds since the run's start, value); the time between two processes does not count."""
        known = [line for line in self.lines if is_number(line.get(name)) and is_number(line.get("time"))]
        return sorted((float(line["time"]), float(line[name])) for line in known)

    def names(self) -> set[str]:
        """Return the names of all measured values."""
        return {name for line in self.lines for name in line} - set(_PLACE)

    def measured(self) -> set[str]:
        """Return the names of all measured values, also of those that the result alone has."""
        return self.names() | {name for name, value in self.result.items() if is_number(value)}

    def last(self, name: str) -> float | None:
        """Return ``name`` as the result has it, else as it was measured last, over an epoch where it is."""
        value = self.result.get(name)
        if is_number(value):
            return float(value)
        points = self.series(OF_EPOCH.get(name, name)) or self.series(name)
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


def numbered(names: Iterable[str], pattern: str) -> dict[int, str]:
    """Return the names that match, by the number in them, in its order."""
    matches = [match for name in names if (match := re.fullmatch(pattern, name))]
    found = {int(match[1]): match[0] for match in matches if len(match[1]) <= _DIGITS}
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
    if not any(is_regular(path / name) for name in (CONFIG, METRICS, RESULT)):
        return Run(path, "no run", f"holds neither {CONFIG} nor {METRICS} nor {RESULT}")
    problems: list[str] = []
    config = _config(path / CONFIG, problems)
    records = _on_one_clock([_renamed(each) for each in _records(path / METRICS, problems)])
    result = _json(path / RESULT, problems, needed=False)
    spans, rows = spans_of(_json(path / TRACE, problems, needed=False)) if trace else ({}, {})
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
        spans,
        rows,
    )


def _config(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        raw = parse_yaml(read_file(path, TEXT_BYTES))
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} can't be read ({getattr(error, 'strerror', None) or error})")
        return {}
    if not isinstance(raw, dict):
        problems.append(f"{path.name} is no configuration")
        return {}
    return raw


def _records(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Return the whole lines of ``metrics.jsonl``."""
    try:
        text = read_file(path, LOG_BYTES).decode(errors="replace")
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
        return []
    except OSError as error:
        problems.append(f"{path.name} can't be read ({error.strerror})")
        return []
    found, bad = [], []
    for number, line in enumerate(text.splitlines(), 1):
        with suppress(ValueError):
            record = parse_json(line)
            if isinstance(record, dict) and is_number(record.get("step")):
                found.append(record)
                continue
        bad.append(number)
    if bad:
        what = f"line {bad[0]}" if len(bad) == 1 else f"{len(bad)} lines"
        problems.append(f"{path.name}: {what} not whole, left out")
    return found


def _renamed(record: dict[str, Any]) -> dict[str, Any]:
    """Return a line with today's names: an epoch's means once had those of the means since the last line."""
    if SPEED not in record or any("/" in name for name in record):
        return record
    return {OF_EPOCH.get(name, name): value for name, value in record.items()}


def _on_one_clock(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines with the time of all attempts together: each process counts from its own start."""
    before = newest = 0.0
    told = []
    for record in records:
        said = record.get("time")
        if is_number(said):
            if record.get("event") == "resumed" or before + said < newest:
                before = newest
            newest = max(newest, before + said)
            record = {**record, "time": before + said} if before else record
        told.append(record)
    return told


def _json(path: Path, problems: list[str], *, needed: bool) -> dict[str, Any]:
    try:
        found = parse_json(read_file(path, LOG_BYTES))
    except FileNotFoundError:
        if needed:
            problems.append(f"{path.name} is missing")
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} can't be read ({getattr(error, 'strerror', None) or error})")
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
    if not records and not is_regular(path / METRICS) and problems and not is_regular(path / CONFIG):
        return "unreadable", problems[0]
    silent = now - max((file.stat().st_mtime for file in _files(path)), default=0.0)
    times = [line["time"] for line in records[-20:] if is_number(line.get("time"))]
    gaps = [after - before for before, after in pairwise(times)]
    if silent < max([QUIET_SECONDS, *(QUIET_GAPS * gap for gap in gaps)]):
        return "running?", f"no end yet, last line {whole(max(silent, 0))} s ago"
    return (
        "cut off",
        f"no end was written, silent for {whole(silent)} s; dtp-dist resume continues it",
    )


def _files(path: Path) -> list[Path]:
    return [path / name for name in (METRICS, CONFIG) if is_regular(path / name)]


def _started(path: Path, records: list[dict[str, Any]]) -> float | None:
    """Return when the run began: TensorBoard's files carry it, else the age of what was written."""
    stamps = [re.match(r"events\.out\.tfevents\.(\d+)\.", file.name) for file in path.glob("events.out.*")]
    found = [float(match[1]) for match in stamps if match]
    found += [file.stat().st_mtime for file in _files(path)]
    times = [line["time"] for line in records if is_number(line.get("time"))]
    if times and is_regular(path / METRICS):
        found.append((path / METRICS).stat().st_mtime - times[-1])
    return min((each for each in found if 0 <= each < _LATEST), default=None)
