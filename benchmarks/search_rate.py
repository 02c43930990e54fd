#!/usr/bin/env python3
"""Search one number of a config, its learning rate first of all, on the validation split.

    python benchmarks/search_rate.py --data DATA [--only CONFIG ...] [--jobs 2]

Each trial is a ``dtp-dist train`` of fewer epochs in a run directory of its own, so whatever was there before
is not run again. Adds its rows to docs/results/rate_search.csv; the test split is never looked at.
"""

from __future__ import annotations

import argparse
import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.measuring import ROOT, machine, today
from helpers.reproduced import config_of, overrides_of
from helpers.resumable import run

TRACE = ROOT / "docs" / "results" / "rate_search.csv"
COLUMNS = ("config", "key", "value", "seed", "epochs", "valid_error", "seconds", "machine", "date")


@dataclass(frozen=True)
class Search:
    """Values of one dotted key, each for a few epochs of every seed."""

    key: str
    values: tuple[float, ...]
    epochs: int
    seeds: tuple[int, ...] = (0,)


SEARCHES = {
    "lee2015_discrete_backprop": Search("optimizer.forward.lr", (3e-4, 6e-4, 1e-3, 1.6e-3, 2.6e-3), 20),
}


@dataclass(frozen=True)
class Trial:
    """One value with one seed."""

    config: str
    value: float
    seed: int


def trials(config: str) -> list[Trial]:
    """Return the trials of a config."""
    search = SEARCHES[config]
    return [Trial(config, value, seed) for value in search.values for seed in search.seeds]


def row_of(trial: Trial, options: argparse.Namespace) -> dict[str, Any]:
    """Train one trial unless its result is there; return its row."""
    search = SEARCHES[trial.config]
    given = overrides_of(trial.config, trial.seed, search.epochs, options.data)
    given += [f"{search.key}={trial.value}", "train.evaluate_every=0"]
    folder = options.runs / f"{trial.config}-{trial.value:g}" / f"seed{trial.seed}"
    found = run(config_of(trial.config), folder, given) or {}
    print(f"{trial}: validation error {found.get('valid_error', 'none')} %", flush=True)
    return {
        "config": trial.config,
        "key": search.key,
        "value": trial.value,
        "seed": trial.seed,
        "epochs": search.epochs,
        "valid_error": found.get("valid_error", "failed"),
        "seconds": round(found["seconds"]) if found else "",
        "machine": machine(),
        "date": today(),
    }


def main() -> None:
    """Run what is missing and write the trace."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data", help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/search_rate"), help="folder of the runs")
    parser.add_argument("--only", nargs="*", default=list(SEARCHES), choices=list(SEARCHES))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    chosen = [trial for name in options.only for trial in trials(name)]
    with ThreadPoolExecutor(options.jobs) as pool:
        new = list(pool.map(lambda trial: row_of(trial, options), chosen))
    kept = []
    if TRACE.exists():
        with TRACE.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["config"] not in options.only]
    with TRACE.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(kept + new)
    print(f"written to {TRACE}")


if __name__ == "__main__":
    main()
