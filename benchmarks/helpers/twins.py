"""The papers' experiments as lines: all runs of a config that have as many epochs, next to their twin's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from helpers.published import EXPERIMENTS

Row = dict[str, Any]


@dataclass(frozen=True)
class Twin:
    """How a rule compares with its twin, after the same epochs and with the same seeds.

    Attributes:
        errors: the twin's test errors in percent, by seed.
        difference: the rule's mean minus the twin's, in points.
        epoch: the last epoch after which all of these runs were evaluated.
    """

    errors: list[float]
    difference: float
    epoch: int


@dataclass(frozen=True)
class Group:
    """The runs of one config that were asked for the same number of epochs; rows by seed."""

    name: str
    rows: Sequence[Row]
    twin: Twin | None

    @property
    def errors(self) -> list[float]:
        """The test errors in percent, by seed."""
        return [float(row["test_error"]) for row in self.rows]

    @property
    def budget(self) -> str:
        """The epochs that were run of those that the config has, and whether a run is not finished."""
        run = sorted({int(row["epochs"]) for row in self.rows})
        asked, whole = int(self.rows[0]["asked"]), int(self.rows[0]["of_epochs"])
        span = f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}"
        if asked == whole:
            return f"{span} of {whole}"
        return f"{span} of {whole}, cosines over {asked}"

    @property
    def next_to_twin(self) -> tuple[str, str]:
        """The twin's error and the difference as text: ("1.98", "+0.14"); "-" each where there is none."""
        if not EXPERIMENTS[self.name].twin:
            return "-", "-"
        if self.twin is None:
            return "not run", "-"
        notes = []
        if self.twin.epoch != max(int(row["epochs"]) for row in self.rows):
            notes.append(f"epoch {self.twin.epoch}")
        if len(self.twin.errors) < len(self.rows):
            notes.append(f"{len(self.twin.errors)} of {len(self.rows)} seeds")
        note = f" ({', '.join(notes)})" if notes else ""
        return f"{statistics.mean(self.twin.errors):.2f}{note}", f"{self.twin.difference:+.2f}"


def groups(rows: Sequence[Row]) -> list[Group]:
    """Return the rows of reproduce.csv, in its order, as groups with their twins."""
    keys = dict.fromkeys((row["name"], int(row["asked"])) for row in rows)
    return [
        Group(name, mine, _twin(mine, _rows(rows, EXPERIMENTS[name].twin, asked)))
        for name, asked in keys
        if (mine := _rows(rows, name, asked))
    ]


def _rows(rows: Sequence[Row], name: str, asked: int) -> list[Row]:
    return [row for row in rows if row["name"] == name and int(row["asked"]) == asked]


def _twin(mine: Sequence[Row], others: Sequence[Row]) -> Twin | None:
    own = {int(row["seed"]): _errors(row) for row in mine}
    twins = {int(row["seed"]): _errors(row) for row in others}
    seeds = sorted(own.keys() & twins.keys())
    if not seeds:
        return None
    both = [*(own[seed] for seed in seeds), *(twins[seed] for seed in seeds)]
    epochs = set.intersection(*(set(each) for each in both))
    if not epochs:
        return None
    last = max(epochs)
    errors = [twins[seed][last] for seed in seeds]
    difference = statistics.mean(own[seed][last] for seed in seeds) - statistics.mean(errors)
    return Twin(errors, difference, last)


def _errors(row: Row) -> dict[int, float]:
    """Return the test error after each epoch that was evaluated."""
    pairs = (pair.split(":") for pair in str(row["errors"]).split())
    return {int(epoch): float(error) for epoch, error in pairs}
