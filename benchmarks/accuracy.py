"""Test errors of the core experiments, docs/results/accuracy.csv: exact, pipelined, and their ablations.

    python benchmarks/accuracy.py --data ../shared/data [--jobs 2] [--only exact pipelined] [--seeds 0 1 2]

Every run is an ordinary run directory under --runs; runs that are done are not run again. Pipelined runs use
the in-process runtime, which ends with the same bits as local processes (tests/parity), so that several
runs share a machine's cores.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from helpers.measuring import ROOT, machine, today
from helpers.resumable import Result, run

DEEP = ("parallel.stages=8", "parallel.in_flight=8")
PLAIN = ("optimizer.delay_memory=0", "optimizer.lookahead=0")
SCALED = (*DEEP, "optimizer.delay_power=0.5", *PLAIN)
COLUMNS = ("experiment", "config", "mean", "each_seed", "training_error", "machine", "date")


@dataclass(frozen=True)
class Experiment:
    """A config with overrides, and its seeds."""

    title: str
    config: str
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)


EXPERIMENTS = {
    "exact": Experiment("exact: 1 stage, D = 1", "mnist_dtp_adam"),
    "pipelined": Experiment("8 stages, D = 8, defaults", "mnist_dtp_adam", DEEP),
    "scaled": Experiment("8 stages, D = 8, rate / sqrt(1 + delay) alone", "mnist_dtp_adam", SCALED),
    "scaled-current-jacobian": Experiment(
        "the same, jacobian: current", "mnist_dtp_adam", (*SCALED, "rule.jacobian=current")
    ),
    "scaled-stale": Experiment("the same, anchor: stale", "mnist_dtp_adam", (*SCALED, "rule.anchor=stale")),
    "unscaled": Experiment(
        "8 stages, D = 8, no remedy for delay", "mnist_dtp_adam", (*DEEP, "optimizer.delay_power=0", *PLAIN)
    ),
    "fashion": Experiment("Fashion-MNIST, exact", "fashion_mnist_dtp"),
    "fashion-pipelined": Experiment("Fashion-MNIST, 8 stages, D = 8, defaults", "fashion_mnist_dtp", DEEP),
    "fashion-scaled": Experiment(
        "Fashion-MNIST, 8 stages, D = 8, rate / sqrt(1 + delay) alone", "fashion_mnist_dtp", SCALED
    ),
    "backprop": Experiment("backpropagation, exact", "mnist_backprop"),
    "backprop-pipelined": Experiment("backpropagation, 8 stages, D = 8, defaults", "mnist_backprop", DEEP),
    "backprop-scaled": Experiment(
        "backpropagation, 8 stages, D = 8, rate / sqrt(1 + delay) alone", "mnist_backprop", SCALED
    ),
}


def train(name: str, seed: int, options: argparse.Namespace) -> Result | None:
    """Run one experiment with one seed unless its result is there; return the result, None if it failed."""
    experiment = EXPERIMENTS[name]
    config = ROOT / "configs" / f"{experiment.config}.yaml"
    given = [f"seed={seed}", f"data.root={options.data}", "parallel.runtime=inprocess"]
    found = run(config, Path(options.runs) / f"{name}-{seed}", [*experiment.overrides, *given])
    if found is not None:
        print(f"{name}, seed {seed}: test error {found['test_error']:.2f} %", flush=True)
    return found


def row(name: str, results: list[Result | None]) -> tuple[str, ...]:
    """Return one row of the table: what ``COLUMNS`` names."""
    experiment = EXPERIMENTS[name]
    errors = [result["test_error"] for result in results if result]
    failed = len(results) - len(errors)
    mean = f"{statistics.mean(errors):.2f}" if errors else "-"
    each = ", ".join(f"{error:.2f}" for error in errors) + (
        f" ({failed} stopped, not finite)" if failed else ""
    )
    train = f"{statistics.mean(r['train_error'] for r in results if r):.2f}" if errors else "-"
    config = " ".join([f"{experiment.config}.yaml", *experiment.overrides])
    return experiment.title, config, mean, each, train, machine(), today()


def main() -> None:
    """Run everything that is missing and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data", help="folder of the data sets")
    parser.add_argument("--runs", default="runs/accuracy", help="folder of the run directories")
    parser.add_argument("--out", default=str(ROOT / "docs" / "results" / "accuracy.csv"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(EXPERIMENTS), choices=list(EXPERIMENTS))
    parser.add_argument("--seeds", nargs="*", type=int, help="instead of the experiments' own")
    options = parser.parse_args()
    seeds = {name: options.seeds or list(EXPERIMENTS[name].seeds) for name in options.only}
    jobs = [(name, seed) for name in options.only for seed in seeds[name]]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda job: train(*job, options), jobs))
    found = [
        row(name, [one for (other, _), one in zip(jobs, results, strict=True) if other == name])
        for name in options.only
    ]
    target = Path(options.out)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *found])
    print(f"written to {target}")


if __name__ == "__main__":
    main()
