"""All runs below a folder as a table that fits the terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from dtp_dist.errors import ConfigError
from dtp_dist.report.read import Run, read_run
from dtp_dist.report.settings import NONE, settings_of
from dtp_dist.report.spans import is_number
from dtp_dist.storage.run_files import CONFIG, METRICS
from dtp_dist.text.measures import MEASURES, measured_in
from dtp_dist.text.numbers import whole
from dtp_dist.text.printable import printable

OF_METRICS = {
    f"{split}_{name}": f"{split} {measure.column}"
    for name, measure in MEASURES.items()
    for split in ("valid", "test")
    if measure.column
}

COLUMNS = {
    "name": "name",
    "state": "state",
    "rule": "rule",
    "data": "data",
    "learning_rate": "lr",
    "seed": "seed",
    "epoch": "epoch",
    "step": "step",
    **OF_METRICS,
    "samples_per_second": "samples/s",
    "stages": "stages",
    "in_flight": "D",
    "runtime": "runtime",
    "started": "started",
    "folder": "folder",
}
CHIEF = [f"test_{name}" for name, measure in MEASURES.items() if measure.chief]
DROPPED = (
    *("runtime", "in_flight", "stages", "samples_per_second", "step", "started", "epoch"),
    *(name for name in OF_METRICS if name not in CHIEF),
    *("data", "rule", "learning_rate", "seed", "folder"),
)
"""What goes first where the terminal is narrow: name, state and error stay, and what distinguishes runs."""

MEASURED = (
    "train_loss",
    *(f"{split}_{name}" for name in MEASURES for split in ("valid", "test")),
    "samples_per_second",
)
NARROW = 100
COLOURS = {"done": "green", "running?": "cyan", "interrupted": "yellow", "cut off": "yellow"}
_GAP = 2


def find_runs(folder: Path, *, trace: bool = False) -> list[Run]:
    """Return every run below a folder, the newest last; with what their stages did if ``trace``.

    Raises:
        ConfigError: the folder does not exist.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is no folder; name one that holds runs")
    found = []
    for place, folders, files in os.walk(folder):
        if CONFIG in files or METRICS in files:
            folders.clear()
            found.append(read_run(Path(place), trace=trace))
        folders.sort()
    return sorted(found, key=lambda run: (run.started or 0.0, str(run.path)))


def facts(run: Run) -> dict[str, Any]:
    """Return what is known of a run as plain values, None where something is not."""
    return {
        "name": run.name,
        "state": run.state,
        "reason": run.reason,
        "problems": list(run.problems),
        "virtual": run.virtual,
        "epoch": run.place("epoch"),
        "step": run.place("step"),
        **{name: run.last(name) for name in MEASURED},
        **settings_of(run),
        **{name: _plain(run, name) for name in ("stages", "in_flight", "runtime")},
        "started": run.started,
        "folder": str(run.path),
    }


def _plain(run: Run, name: str) -> Any:
    """Return a number or word from the result, else from the configuration; None where there is neither."""
    found = run.result.get(name, run.setting(f"parallel.{name}"))
    return found if is_number(found) or isinstance(found, str) else None


def run_table(runs: Sequence[Mapping[str, Any]], below: Path, width: int) -> Table:
    """Return the runs as a table of at most ``width`` columns; what does not fit is left out or cut."""
    rows = [_cells(run, below, short=width <= NARROW) for run in runs]
    limit = max(12, width // 4)
    for row in rows:
        row["name"] = _shortened(row["name"], limit)
        row["folder"] = row["folder"] if len(row["folder"]) <= limit else f"…{row['folder'][1 - limit :]}"
    known = measured_in([name for name in OF_METRICS if run[name] is not None] for run in runs)
    shown = [f"{split}_{name}" for split, name in known]
    columns = [name for name in COLUMNS if name not in OF_METRICS or name in shown]
    for name in DROPPED:
        if _width(rows, columns) <= width:
            break
        if name in columns:
            columns.remove(name)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    for name in columns:
        text = name in ("name", "state", "rule", "data", "learning_rate", "runtime", "started", "folder")
        justify: Any = "left" if text else "right"
        table.add_column(COLUMNS[name], justify=justify, no_wrap=True, overflow="ellipsis")
    for row in rows:
        colour = COLOURS.get(row["state"], "red")
        table.add_row(*(Text(row[name], colour if name == "state" else "") for name in columns))
    return table


def _shortened(name: str, limit: int) -> str:
    """Return a name without its middle if it is too long: names often differ at their ends alone."""
    head = limit * 3 // 5
    return name if len(name) <= limit else f"{name[:head]}…{name[head + 1 - limit :]}"


def _width(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> int:
    longest = (max([len(COLUMNS[name]), *(len(row[name]) for row in rows)]) for name in columns)
    return sum(longest) + _GAP * len(columns)


def _cells(run: Mapping[str, Any], below: Path, *, short: bool) -> dict[str, str]:
    """Return a row's texts; ``short`` leaves out the year."""
    forms = {name: MEASURES[name.partition("_")[2]].bare for name in OF_METRICS}
    forms["samples_per_second"] = whole
    cells = {
        name: NONE if run[name] is None else printable(forms.get(name, str)(run[name]))
        for name in COLUMNS
        if name != "started"
    }
    form = "%m-%d %H:%M" if short else "%Y-%m-%d %H:%M"
    started = run["started"]
    cells["started"] = time.strftime(form, time.localtime(started)) if is_number(started) else NONE
    cells["folder"] = printable(os.path.relpath(run["folder"], below))
    if run["virtual"]:
        cells["folder"] += " (virtual)"
    return cells
