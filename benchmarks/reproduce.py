"""Run the configs named after a paper's experiment and set what was measured next to what was published.

    python benchmarks/reproduce.py NAME... [--seeds N] [--scale F] [--data DIR] [--jobs 2]
    python benchmarks/reproduce.py --report              write the table from what has been run so far

NAME is a config's name (``all`` for every one). Runs are ordinary run directories under --runs: those that
are done are not run again, those that were cut off go on. ``--scale 0.1`` runs a tenth of the epochs. The
rows of all runs are kept in docs/results/reproduce.csv, and the table in docs/results/reproduce.md is made
from them; a run that is not finished counts with its newest evaluation, and its epochs say so. Two runs at a
time share two cores (--jobs), each in one process with one thread.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import textwrap
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dtp_dist import load_config
from dtp_dist.config import Config
from dtp_dist.errors import DtpDistError
from helpers.measuring import ROOT, machine, written_on
from helpers.published import EXPERIMENTS, Experiment
from helpers.resumable import run, same_run

RESULTS = ROOT / "docs" / "results"
COLUMNS = (
    "name",
    "seed",
    "epochs",
    "of_epochs",
    "data",
    "test_error",
    "valid_error",
    "train_error",
    "seconds",
    "weights_sha256",
    "machine",
    "date",
)
Row = dict[str, Any]


def config_of(name: str) -> Path:
    """Return the file of a config's name."""
    return ROOT / "configs" / f"{name}.yaml"


def overrides_of(name: str, seed: int, scale: float, data: str) -> list[str]:
    """Return what a run changes in its config."""
    given = [f"seed={seed}", f"data.root={data}", "parallel.runtime=inprocess"]
    if scale != 1.0:
        epochs = load_config(config_of(name)).train.epochs
        given.append(f"train.epochs={max(1, round(scale * epochs))}")
    return given


def folder_of(runs: Path, name: str, seed: int, scale: float) -> Path:
    """Return the run directory of one run."""
    return runs / (name if scale == 1.0 else f"{name}-x{scale:g}") / f"seed{seed}"


def settings_of(name: str, folder: Path) -> Config | None:
    """Return a run's configuration if, but for the number of epochs, it is that of the config ``name``."""
    try:
        config = load_config(folder / "config.yaml")
    except DtpDistError:
        return None
    given = overrides_of(name, config.seed, 1.0, config.data.root)
    same = same_run(config_of(name), folder, [*given, f"train.epochs={config.train.epochs}"])
    return config if same else None


def row_of(name: str, folder: Path) -> Row | None:
    """Return what a run directory tells, of its newest evaluation where it is not finished.

    A run whose settings are not the config's counts for nothing; its number of epochs may be another.
    """
    if not (folder / "metrics.jsonl").exists():
        return None
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    evaluated = [line for line in lines if "test_error" in line]
    if not evaluated:
        return None
    config = settings_of(name, folder)
    if config is None:
        print(f"{folder}: has other settings than {name}.yaml and is left out", flush=True)
        return None
    last, result = evaluated[-1], folder / "result.json"
    done = json.loads(result.read_text()) if result.exists() else {}
    return {
        "name": name,
        "seed": config.seed,
        "epochs": last["epoch"],
        "of_epochs": load_config(config_of(name)).train.epochs,
        "data": EXPERIMENTS[name].data,
        "test_error": last["test_error"],
        "valid_error": last.get("valid_error"),
        "train_error": last.get("train_error_of_epoch", last.get("train_error")),
        "seconds": round(done.get("seconds", last["time"])),
        "weights_sha256": done.get("weights_sha256", ""),
        "machine": machine(),
        "date": written_on(result if result.exists() else folder / "metrics.jsonl"),
    }


def kept_rows(path: Path) -> list[Row]:
    """Return the rows of an earlier table."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Return one row of each (name, seed, data): that of the most epochs, the newer one among equals."""
    found: dict[tuple[str, int, str], Row] = {}
    for row in [*old, *new]:
        key = (row["name"], int(row["seed"]), row["data"])
        if key not in found or int(row["epochs"]) >= int(found[key]["epochs"]):
            found[key] = row
    order = list(EXPERIMENTS)
    kept = [row for row in found.values() if row["name"] in order]
    return sorted(kept, key=lambda row: (order.index(row["name"]), int(row["seed"])))


def published(experiment: Experiment) -> tuple[str, str]:
    """Return the published error and its source, as cells."""
    if experiment.published is None:
        return "-", "no comparable figure known"
    return f"{experiment.published:.2f}", f"{experiment.source} ({experiment.how})"


def line_of(name: str, rows: list[Row]) -> str:
    """Return one line of the table: the runs of one experiment."""
    experiment = EXPERIMENTS[name]
    epochs = sorted({int(row["epochs"]) for row in rows})
    span = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    whole = int(rows[0]["of_epochs"])
    errors = [float(row["test_error"]) for row in rows]
    spread = f" +- {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    mean, each = f"{statistics.mean(errors):.2f}{spread}", ", ".join(f"{error:.2f}" for error in errors)
    value, source = published(experiment)
    cells = [f"`{name}`", experiment.title, experiment.data, f"{span} of {whole}", mean, each, value, source]
    return f"| {' | '.join(cells)} |"


def write(rows: list[Row]) -> None:
    """Write CSV and Markdown."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / "reproduce.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    machines = sorted({row["machine"] for row in rows})
    texts = (
        "Test error in percent: mean and standard deviation over seeds 0, 1, ..., then each seed. Written by "
        "`benchmarks/reproduce.py` from `reproduce.csv`, which has a row for every run with its "
        f"seed, epochs and weights. CPU float32, one process, one thread; {'; '.join(machines)}.",
        "Published figures say where they are from, and whether they were read there or are recalled. An "
        "error before the last epoch of a config is that of the epochs that were run: nothing is "
        "extrapolated.",
    )
    lines = ["# The papers' experiments, as measured here", ""]
    for text in texts:
        lines += [*textwrap.wrap(text, 120), ""]
    lines += [
        "| config | experiment | data | epochs | test error | each seed | published | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in EXPERIMENTS:
        mine = [row for row in rows if row["name"] == name]
        if mine:
            lines.append(line_of(name, mine))
    (RESULTS / "reproduce.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or of: {', '.join(EXPERIMENTS)}")
    parser.add_argument("--seeds", type=int, default=3, help="run seeds 0 to N-1")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of each config's epochs")
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

    def one(job: tuple[str, int]) -> None:
        name, seed = job
        overrides = overrides_of(name, seed, options.scale, options.data)
        result = run(config_of(name), folder_of(options.runs, name, seed, options.scale), overrides)
        if result is not None:
            print(f"{name}, seed {seed}: test error {result['test_error']:.2f} %", flush=True)

    if not options.report:
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(one, [(name, seed) for seed in range(options.seeds) for name in names]))
    folders = [(name, path) for name in EXPERIMENTS for path in options.runs.glob(f"{name}*/seed*")]
    mine = [(n, p) for n, p in folders if p.is_dir() and p.parent.name.partition("-x")[0] == n]
    rows = [row for name, path in mine if (row := row_of(name, path)) is not None]
    write(merged(kept_rows(RESULTS / "reproduce.csv"), rows))
    print(f"written to {RESULTS / 'reproduce.md'}")


if __name__ == "__main__":
    main()
