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
from dtp_dist.report.read import Run, is_number, read_run
from dtp_dist.run_files import CONFIG, METRICS

COLUMNS = {
    "name": "name",
    "state": "state",
    "epoch": "epoch",
    "step": "step",
    "valid_error": "valid %",
    "test_error": "test %",
    "samples_per_second": "samples/s",
    "stages": "stages",
    "in_flight": "D",
    "runtime": "runtime",
    "started": "started",
    "folder": "folder",
}
DROPPED = (
    *("name", "runtime", "epoch", "in_flight", "stages"),
    *("samples_per_second", "started", "step", "valid_error"),
)
"""What goes first where the terminal is narrow; a folder's name mostly begins with the run's."""

MEASURED = ("train_loss", "valid_error", "test_error", "samples_per_second")
NARROW = 100
COLOURS = {"done": "green", "running?": "cyan", "interrupted": "yellow", "cut off": "yellow"}
_GAP = 2


def find_runs(folder: Path) -> list[Run]:
    """Return every run below a folder, the newest last.

    Raises:
        ConfigError: the folder does not exist.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is no folder; name one that holds runs")
    found = []
    for place, folders, files in os.walk(folder):
        if CONFIG in files or METRICS in files:
            folders.clear()
            found.append(read_run(Path(place), trace=False))
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
    for row in rows:
        limit = max(12, width * 2 // 5)
        row["folder"] = row["folder"] if len(row["folder"]) <= limit else f"…{row['folder'][1 - limit :]}"
    columns = list(COLUMNS)
    for name in DROPPED:
        if _width(rows, columns) <= width:
            break
        columns.remove(name)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    for name in columns:
        text = name in ("name", "state", "runtime", "started", "folder")
        justify: Any = "left" if text else "right"
        table.add_column(COLUMNS[name], justify=justify, no_wrap=True, overflow="ellipsis")
    for row in rows:
        colour = COLOURS.get(row["state"], "red")
        table.add_row(*(Text(row[name], colour if name == "state" else "") for name in columns))
    return table


def _width(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> int:
    longest = (max([len(COLUMNS[name]), *(len(row[name]) for row in rows)]) for name in columns)
    return sum(longest) + _GAP * len(columns)


def _cells(run: Mapping[str, Any], below: Path, *, short: bool) -> dict[str, str]:
    """Return a row's texts; ``short`` leaves out the year."""
    forms = {"valid_error": "{:.2f}", "test_error": "{:.2f}", "samples_per_second": "{:.0f}"}
    cells = {
        name: "–" if run[name] is None else forms.get(name, "{}").format(run[name])
        for name in COLUMNS
        if name != "started"
    }
    form = "%m-%d %H:%M" if short else "%Y-%m-%d %H:%M"
    started = run["started"]
    cells["started"] = time.strftime(form, time.localtime(started)) if is_number(started) else "–"
    cells["folder"] = os.path.relpath(run["folder"], below)
    if run["virtual"]:
        cells["folder"] += " (virtual)"
    return cells
