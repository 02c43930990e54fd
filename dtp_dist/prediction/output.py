"""Predictions as JSON, as CSV, and as the rows of a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from dtp_dist.prediction.predict import LABELS, NUMBERS, Prediction
from dtp_dist.text.numbers import percent, short

DIGITS = 7
"""Of a number: as many as float32 has."""

ALSO = 2
"""How many of the other classes a table shows, the most probable first."""

NUMBERS_SHOWN = 6
"""Columns of numbers that a table has at most."""


def as_json(found: Sequence[Prediction]) -> str:
    """Return a JSON list with one object for each example."""
    return json.dumps([_object(each) for each in found], indent=1) + "\n"


def _object(each: Prediction) -> dict[str, Any]:
    place = {"file": each.file} | ({} if each.index is None else {"index": each.index})
    values = {name: _digits(value) for name, value in each.values.items()}
    if each.kind == NUMBERS:
        return {**place, "numbers": values}
    if each.kind == LABELS:
        return {**place, "labels": list(each.labels), "probabilities": values}
    if each.probability is None:
        return {**place, "label": each.label, "outputs": values}
    return {**place, "label": each.label, "probability": _digits(each.probability), "probabilities": values}


def as_csv(found: Sequence[Prediction]) -> str:
    """Return CSV with a row for each example and, behind what is predicted, a column for each output."""
    first = found[0]
    indexed = any(each.index is not None for each in found)
    head = ["file", *(["index"] if indexed else [])]
    head += {NUMBERS: [], LABELS: ["labels"]}.get(first.kind, ["label"])
    head += ["probability"] if first.probability is not None else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    named = first.values if first.kind == NUMBERS else [f"{_kind(first)}({name})" for name in first.values]
    writer.writerow([*head, *named])
    for each in found:
        row: list[Any] = [each.file, *([each.index] if indexed else [])]
        row += {NUMBERS: [], LABELS: [";".join(each.labels)]}.get(each.kind, [each.label])
        row += [_digits(each.probability)] if each.probability is not None else []
        writer.writerow([*row, *map(_digits, each.values.values())])
    return text.getvalue()


def _kind(each: Prediction) -> str:
    return "p" if each.probable else "output"


def rows(found: Sequence[Prediction]) -> list[list[str]]:
    """Return the rows of a table to look at, the first with the columns' names."""
    first = found[0]
    if first.kind == NUMBERS:
        shown = list(first.values)[:NUMBERS_SHOWN]
        more = ["..."] * (len(first.values) > NUMBERS_SHOWN)
        return [
            ["file", *shown, *more],
            *([_place(each), *(short(each.values[name]) for name in shown), *more] for each in found),
        ]
    if first.kind == LABELS:
        return [["file", "labels"], *([_place(each), _listed(each, each.labels) or "none"] for each in found)]
    value = "probability" if first.probable else "output"
    head = ["file", "label", value, f"next {ALSO}"]
    return [head, *(_of_class(each) for each in found)]


def _of_class(each: Prediction) -> list[str]:
    others = sorted((name for name in each.values if name != each.label), key=lambda name: -each.values[name])
    return [_place(each), each.labels[0], _value(each, each.labels[0]), _listed(each, others[:ALSO])]


def _listed(each: Prediction, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {_value(each, name)}" for name in names)


def _value(each: Prediction, name: str) -> str:
    return percent(each.values[name], 1) if each.probable else short(each.values[name])


def _place(each: Prediction) -> str:
    return each.file if each.index is None else f"{each.file}, {each.index}"


def _digits(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
