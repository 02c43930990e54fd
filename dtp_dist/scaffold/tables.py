"""Tables: which columns are features, and which one is the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dtp_dist.data.own.csv_parquet import TableFile
from dtp_dist.data.sets.table import files_of
from dtp_dist.errors import DataError
from dtp_dist.scaffold.found import Found, Setting, found, target_options

TARGETS = ("y", "label", "labels", "target", "targets", "class", "category", "kind", "species", "outcome")
"""What the column of targets is often called, the likeliest first; else it is taken to be the last."""

NUMBERING = ("", "id", "index", "row", "unnamed: 0")
"""What columns are called that number the rows, which no network should learn from."""

SHOWN = 5


def look(path: Path) -> Found:
    """Return the table in a file or a folder.

    Raises:
        DataError: no network could be trained on it.
    """
    file = TableFile(files_of(path)["train"], None)
    y = _target(file.columns)
    features, left_out = _features(file, [name for name in file.columns if name != y])
    if not features:
        raise DataError(f"{file.path}: has no column of numbers but the target {y!r}; a feature is needed")
    targets = file.values(file.read([y]), y)
    options = {"y": Setting(y, "the column of the targets; name another if it is another")}
    if left_out:
        listed = ", ".join(f"{name} ({why})" for name, why in left_out[:SHOWN])
        more = f" and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
        options["x"] = Setting(features, f"left out: {listed}{more}")
    options |= target_options(targets, str(file.path))
    return found("table", path, "rows", options, y=targets)


def _target(columns: list[str]) -> str:
    by_name = {name.lower(): name for name in columns}
    return next((by_name[name] for name in TARGETS if name in by_name), columns[-1])


def _features(file: TableFile, names: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the columns to learn from, and the others, each with the reason."""
    table = file.read(names)
    features: list[str] = []
    left_out: list[tuple[str, str]] = []
    for name in names:
        why = "it numbers the rows" if name.lower() in NUMBERING else _flaw(file, table, name)
        if why:
            left_out.append((name, why))
        else:
            features.append(name)
    return features, left_out


def _flaw(file: TableFile, table: Any, name: str) -> str:
    """Return why a column can't be learned from, "" if it can."""
    try:
        values = file.numbers(table, name)
    except DataError as error:
        return "values are missing" if "is empty" in str(error) else "no numbers"
    return "always the same" if bool(np.all(values == values[:1])) else ""
