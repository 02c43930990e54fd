"""What a search leaves: a table, ``trials.csv`` and ``best.yaml``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from dtp_dist.checkpoint import write_file
from dtp_dist.report.axis import short
from dtp_dist.tune.trials import Outcome, as_config, best_of

TRIALS, BEST = "trials.csv", "best.yaml"


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes by validation error, the lowest first; failed ones and those without one last."""

    def key(outcome: Outcome) -> tuple[bool, float, int]:
        error = math.inf if outcome.valid_error is None else outcome.valid_error
        return outcome.state == "failed", error, outcome.trial.number

    return sorted(outcomes, key=key)


def trial_table(outcomes: Sequence[Outcome]) -> Table:
    """Return the outcomes as a table."""
    keys = list(outcomes[0].trial.values) if outcomes else []
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("trial", "state", "epoch", "valid %", "test %"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("trial", "state") else "right")
    for key in keys:
        table.add_column(_head(key), overflow="fold", justify="right")
    for outcome in outcomes:
        drawn = outcome.trial.values.values()
        numbers = (outcome.run.place("epoch"), outcome.valid_error, outcome.run.last("test_error"))
        cells = [
            outcome.trial.name,
            outcome.state,
            *("–" if value is None else short(value) for value in numbers),
            *(_brief(value) if isinstance(value, float) else str(value) for value in drawn),
        ]
        table.add_row(*map(Text, cells))
    return table


def _head(key: str) -> str:
    """Return the last two parts of a key on narrow lines; trials.csv has the whole."""
    return "\n".join(key.split(".")[-2:]).replace("_", "_\n")


def _brief(value: float) -> str:
    """Return a number in six characters or so: 0.25, 5.6e-4."""
    return f"{value:.2g}" if 0.01 <= abs(value) < 1000 else f"{value:.1e}".replace("e-0", "e-")


def write_trials(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Write ``trials.csv``: a row a trial, with its settings, errors in percent, and why it failed.

    Raises:
        CheckpointError: it can't be written.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    keys = list(outcomes[0].trial.values) if outcomes else []
    measured = ("train_loss", "valid_error", "test_error")
    rows.writerow(["trial", "state", "epoch", *measured, *keys, "message"])
    for each in outcomes:
        values = [each.run.place("epoch"), *(each.run.last(name) for name in measured)]
        rows.writerow([each.trial.name, each.state, *values, *each.trial.values.values(), each.message])
    write_file(folder / TRIALS, text.getvalue().encode())


def write_best(folder: Path, outcomes: Sequence[Outcome], name: str) -> Outcome | None:
    """Write ``best.yaml``, which ``train`` takes, and return whose it is; None where no trial has an error.

    Raises:
        CheckpointError: it can't be written.
    """
    best = best_of(outcomes)
    if best is not None:
        write_file(folder / BEST, as_config(best, name).encode())
    return best
