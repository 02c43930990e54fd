"""Run the configs named after a paper's experiment and set what was measured next to what was published.

    python benchmarks/reproduce.py NAME... [--seeds N] [--epochs N | --scale F] [--data DIR] [--jobs 2]
    python benchmarks/reproduce.py --report              write the table from what has been run so far

NAME is a config's name (``all`` for every one); ``--twins`` adds the twin of each. Runs are ordinary run
directories under --runs: those that are done are not run again, those that were cut off go on. ``--epochs 9``
runs nine epochs of each config, ``--scale 0.1`` a tenth of its own; the length of every cosine over epochs
shrinks in proportion. The rows of all runs are kept in docs/results/reproduce.csv as long as their configs
keep the settings, and the table in docs/results/reproduce.md is made from them; a run that is not finished
counts with its newest evaluation, and its epochs say so. Two runs at a time share two cores (--jobs), each in
one process with one thread.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers.published import EXPERIMENTS, Experiment
from helpers.reproduced import (
    COLUMNS,
    FILE,
    Row,
    config_of,
    epochs_of,
    folder_of,
    folders,
    kept_rows,
    merged,
    overrides_of,
    row_of,
)
from helpers.resumable import run
from helpers.twins import Group, groups

PAGE = FILE.with_suffix(".md")
HEADS = (
    "config",
    "experiment",
    "data",
    "epochs",
    "test error",
    "each seed",
    "twin",
    "difference",
    "published",
    "source",
)
TEXTS = (
    "Test error in percent: mean and standard deviation over seeds 0, 1, ..., then each seed; the mean of "
    "the twin by backpropagation after as many epochs, and the difference in points, positive where the "
    "rule's error is the higher one. Written by `benchmarks/reproduce.py` from `reproduce.csv`, which has a "
    "row for every run with its seed, epochs, errors and weights. CPU float32, one process, one thread; "
    "{machines}.",
    "Epochs are those that were run of those that the config has, and nothing is extrapolated. Where fewer "
    "were asked for, every cosine over epochs is shorter in proportion, so that rates reach their ends in "
    "the epochs that were asked for; all other schedules stay as they are. Such an error is that of a "
    "smaller budget than the published one.",
    "Published figures say where they are from, and whether they were read there or are recalled. The head "
    "of each config says which of its settings are published, and where and why ours differ.",
)


def published(experiment: Experiment) -> tuple[str, str]:
    """Return the published error and its source, as cells."""
    if experiment.published is None:
        return "-", "no comparable figure known"
    return f"{experiment.published:.2f}", f"{experiment.source} ({experiment.how})"


def line_of(group: Group) -> str:
    """Return one line of the table: the runs of one experiment."""
    experiment, errors = EXPERIMENTS[group.name], group.errors
    spread = f" +- {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    cells = [
        f"`{group.name}`",
        experiment.title,
        experiment.data,
        group.budget,
        f"{statistics.mean(errors):.2f}{spread}",
        ", ".join(f"{error:.2f}" for error in errors),
        *group.next_to_twin,
        *published(experiment),
    ]
    return f"| {' | '.join(cells)} |"


def page(rows: Sequence[Row]) -> str:
    """Return docs/results/reproduce.md."""
    machines = "; ".join(sorted({row["machine"] for row in rows}))
    lines = ["# The papers' experiments, as measured here", ""]
    for text in TEXTS:
        lines += [*textwrap.wrap(text.format(machines=machines), 120), ""]
    lines += [f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}", *map(line_of, groups(rows))]
    return "\n".join(lines) + "\n"


def write(rows: Sequence[Row]) -> None:
    """Write CSV and Markdown."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    PAGE.write_text(page(rows))


def parsed() -> argparse.Namespace:
    """Return the command line, with the names of all experiments to run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or of: {', '.join(EXPERIMENTS)}")
    parser.add_argument("--twins", action="store_true", help="run the twin of each as well")
    parser.add_argument("--seeds", type=int, default=3, help="run seeds 0 to N-1")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--epochs", type=int, help="epochs of each run, at most its config's")
    budget.add_argument("--scale", type=float, default=1.0, help="fraction of each config's epochs")
    parser.add_argument("--data", default="data", help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/reproduce"), help="folder of the runs")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--report", action="store_true", help="run nothing, write what has been run")
    options = parser.parse_args()
    names = list(EXPERIMENTS) if options.names == ["all"] else options.names
    for name in names:
        if name not in EXPERIMENTS:
            parser.error(f"{name}: is not a config; write one of {', '.join(EXPERIMENTS)}")
    if not names and not options.report:
        parser.error("name an experiment, or write --report")
    twins = [EXPERIMENTS[name].twin for name in names] if options.twins else []
    options.names = list(dict.fromkeys(filter(None, [*names, *twins])))
    return options


def budget_of(name: str, options: argparse.Namespace) -> int:
    """Return how many epochs a run is to have."""
    whole = epochs_of(name)
    return max(1, min(options.epochs or round(options.scale * whole), whole))


def main() -> None:
    """Run what is missing and write the table."""
    options = parsed()

    def one(job: tuple[str, int]) -> None:
        name, seed = job
        epochs = budget_of(name, options)
        overrides = overrides_of(name, seed, epochs, options.data)
        result = run(config_of(name), folder_of(options.runs, name, seed, epochs), overrides)
        if result is not None:
            print(f"{name}, seed {seed}: test error {result['test_error']:.2f} %", flush=True)

    if not options.report:
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(one, [(name, seed) for seed in range(options.seeds) for name in options.names]))
    rows = [row for name, path in folders(options.runs) if (row := row_of(name, path)) is not None]
    write(merged(kept_rows(), rows))
    print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
