"""Where the configurations of runs differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from dtp_dist.report.read import Run
from dtp_dist.report.settings import NONE, plain
from dtp_dist.report.tables import table
from dtp_dist.text.dotted import flat
from dtp_dist.text.numbers import ranges

COLUMNS = 6
"""So many runs are compared side by side; of more, each value has a row with the runs that have it."""

_UNTOLD = re.compile(r"name|run_dir|(monitor|compare)(\..*)?")
"""Keys that differ between any two runs and say nothing, and what no run computes with."""


def differences(runs: Sequence[Run], marks: Sequence[str]) -> str:
    """Return the keys in which the configurations differ, as HTML; a sentence where none does."""
    known = [(flat(run.config), mark) for run, mark in zip(runs, marks, strict=True) if run.config]
    if len(known) < 2:
        return "<p>It takes two runs with a readable configuration to compare.</p>"
    found = _differing([config for config, _ in known])
    if not found:
        return "<p>The configurations are the same, but for names, folders and monitoring.</p>"
    names = [mark for _, mark in known]
    if len(known) > COLUMNS:
        return _by_value(found, names)
    return table(["key", *names], [[_code(key), *map(escape, values)] for key, values in found])


def _differing(configs: Sequence[dict[str, Any]]) -> list[tuple[str, tuple[str, ...]]]:
    """Return (key, value in each configuration); layers that differ alike share a row."""
    keys = dict.fromkeys(key for config in configs for key in config if not _UNTOLD.fullmatch(key))
    layers: dict[tuple[str, str, tuple[str, ...]], list[int]] = {}
    for key in keys:
        values = tuple(_value(config, key) for config in configs)
        if len(set(values)) > 1:
            match = re.fullmatch(r"(model\.layers\.)(\d{1,9})(\..*)", key)
            head, tail = (match[1], match[3]) if match else (key, "")
            layers.setdefault((head, tail, values), []).extend([int(match[2])] if match else [])
    return [(f"{head}{ranges(numbers)}{tail}", values) for (head, tail, values), numbers in layers.items()]


def _by_value(found: Sequence[tuple[str, tuple[str, ...]]], names: Sequence[str]) -> str:
    rows = []
    for key, values in found:
        for value in dict.fromkeys(values):
            having = (name for name, each in zip(names, values, strict=True) if each == value)
            rows.append([_code(key), escape(value), " ".join(having)])
    return table(["key", "value", "runs"], rows, "values")


def _code(key: str) -> str:
    return f"<code>{escape(key)}</code>"


def _value(config: dict[str, Any], key: str) -> str:
    return plain(config[key]) if key in config else NONE
