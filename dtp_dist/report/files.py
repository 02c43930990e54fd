"""What a report's curves are made of, as CSV, and the curves themselves as pictures."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from dtp_dist.charts.curve import Chart
from dtp_dist.errors import ConfigError, DtpDistError
from dtp_dist.report.curves import layers, learning
from dtp_dist.report.groups import Group, spread, told_apart
from dtp_dist.report.listing import facts
from dtp_dist.report.spans import is_number
from dtp_dist.report.tables import seconds_of

CURVES, RUNS = "curves.csv", "runs.csv"
COLUMNS = ("curve", "quantity", "minibatch", "epoch", "seconds", "runs", "mean", "deviation")
INSTALL = "pip install -e '.[plot]' in the project's folder"

Draw = Callable[[Sequence[Chart], Literal["png", "pdf"]], bytes]
Files = dict[Path, bytes]
"""The contents of files that are to be written."""


def csv_files(groups: Sequence[Group], target: Path) -> Files:
    """Return the curves' data as one file, or with that of all runs in a folder where ``target`` is none."""
    if target.suffix.lower() == ".csv" and not target.is_dir():
        return {target: curves_csv(groups)}
    return {target / CURVES: curves_csv(groups), target / RUNS: runs_csv(groups)}


def picture_files(groups: Sequence[Group], folder: Path, draw: Draw) -> Files:
    """Return a picture (PNG) of every chart of the report that has a curve."""
    charts = list(learning(groups))
    for group in groups:
        before = f"{group.name}-" if len(groups) > 1 else ""
        charts += [
            Chart(f"{before}{each.name}", each.title, each.curves, each.x_label, each.legend, each.log)
            for each in layers(group)
        ]
    shown = [chart for chart in charts if any(curve.points for curve in chart.curves)]
    names = told_apart([_as_name(chart.name) for chart in shown])
    return {folder / f"{name}.png": draw([chart], "png") for name, chart in zip(names, shown, strict=True)}


def _as_name(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-.") or "curves"


def make_folder(folder: Path, option: str) -> None:
    """Make the folder that files are to lie in, if it is not there.

    Raises:
        DtpDistError: it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"can't be made ({error.strerror}); name another with {option}"
        raise DtpDistError(f"{folder}: {text}") from None


def drawing(option: str) -> Draw:
    """Return what draws pictures.

    Raises:
        ConfigError: matplotlib is not installed; says what to install.
    """
    try:
        from dtp_dist.charts.plots import picture
    except ImportError as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{option}: needs matplotlib: {INSTALL} ({text})") from None
    return picture


def curves_csv(groups: Sequence[Group]) -> bytes:
    """Return a row for each place of each curve: mean, deviation (of a sample) and number of its runs."""
    return _csv(COLUMNS, (row for group in groups for row in _rows(group)))


def _rows(group: Group) -> Iterator[list[Any]]:
    found: dict[tuple[str, float], list[tuple[float, Any, Any]]] = defaultdict(list)
    names = group.names()
    for run in group.runs:
        mine: dict[tuple[str, float], tuple[float, Any, Any]] = {}
        for line in run.lines:
            place = line.get("minibatch", line["step"])
            for name in names & line.keys() if is_number(place) else ():
                if is_number(line[name]):
                    mine[name, place] = float(line[name]), line.get("epoch"), line.get("time")
        for key, value in mine.items():
            found[key].append(value)
    for (name, place), each in sorted(found.items()):
        values = spread([value for value, _, _ in each])
        seconds = spread([float(time) for _, _, time in each if is_number(time)])
        assert values is not None
        at = [place, each[0][1], None if seconds is None else seconds.mean]
        yield [group.name, name, *at, values.runs, values.mean, values.deviation]


def runs_csv(groups: Sequence[Group]) -> bytes:
    """Return a row for each run, with the name of its curve."""
    rows = [
        {
            "curve": group.name,
            **facts(run),
            "seconds": seconds_of(run),
            "weights_sha256": _weights(run.result),
        }
        for group in groups
        for run in group.runs
    ]
    return _csv(list(rows[0]), ([_cell(value) for value in row.values()] for row in rows))


def _weights(result: dict[str, Any]) -> str:
    return str(result.get("weights_sha256", ""))


def _cell(value: Any) -> Any:
    return "; ".join(map(str, value)) if isinstance(value, list) else value


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", errors="replace")
