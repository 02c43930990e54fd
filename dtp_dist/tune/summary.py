"""What a search leaves: a table, ``trials.csv`` and ``best.yaml``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from dtp_dist.storage.files import write_file
from dtp_dist.text.measures import measured_in
from dtp_dist.text.numbers import short
from dtp_dist.text.printable import printable
from dtp_dist.trials.trial import ERROR, LOSS, Outcome
from dtp_dist.tune.plan import as_config, best_of

TRIALS, BEST = "trials.csv", "best.yaml"


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes by their metric, the lowest first; failed ones and those without one last."""

    def key(outcome: Outcome) -> tuple[bool, float, int]:
        reached = math.inf if outcome.reached is None else outcome.reached
        return outcome.state == "failed", reached, outcome.trial.number

    return sorted(outcomes, key=key)


def trial_table(outcomes: Sequence[Outcome]) -> Table:
    """Return the outcomes as a table."""
    keys = list(outcomes[0].trial.values) if outcomes else []
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    metric = outcomes[0].trial.metric if outcomes else ERROR
    what = "%" if metric.endswith(ERROR) else "loss"
    for name in ("trial", "state", "epoch", f"valid {what}", f"test {what}"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("trial", "state") else "right")
    for key in keys:
        table.add_column(_head(key), overflow="fold", justify="right")
    for outcome in outcomes:
        drawn = outcome.trial.values.values()
        on_test = outcome.run.last(metric.replace("valid", "test"))
        numbers = (outcome.run.place("epoch"), outcome.reached, on_test)
        cells = [
            outcome.trial.name,
            outcome.state,
            *("–" if value is None else short(value) for value in numbers),
            *(short(value) if isinstance(value, float) else str(value) for value in drawn),
        ]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _head(key: str) -> str:
    """Return the last two parts of a key on narrow lines; trials.csv has the whole."""
    return "\n".join(key.split(".")[-2:]).replace("_", "_\n")


def write_trials(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Write ``trials.csv``: a row a trial, with its settings, what it reached, and why it failed.

    Raises:
        StorageError: it can't be written.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    keys = list(outcomes[0].trial.values) if outcomes else []
    known = measured_in(each.run.measured() for each in outcomes)
    measured = ["train_loss", *(f"{split}_{name}" for split, name in known)]
    if outcomes and outcomes[0].trial.metric.endswith(LOSS):
        measured += ["valid_loss", "test_loss"]
    rows.writerow(["trial", "state", "epoch", *measured, *keys, "message"])
    for each in outcomes:
        values = [each.run.place("epoch"), *(each.run.last(name) for name in measured)]
        rows.writerow([each.trial.name, each.state, *values, *each.trial.values.values(), each.message])
    write_file(folder / TRIALS, text.getvalue().encode())


def write_best(folder: Path, outcomes: Sequence[Outcome], name: str) -> Outcome | None:
    """Write ``best.yaml``, which ``train`` takes, and return whose it is; None where no trial was evaluated.

    Raises:
        StorageError: it can't be written.
    """
    best = best_of(outcomes)
    if best is not None:
        write_file(folder / BEST, as_config(best, name).encode())
    return best
