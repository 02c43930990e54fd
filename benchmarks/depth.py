"""What 32 minibatches in flight cost a network of 32 layers: 784-31x128-10 on MNIST, next to none in flight.

    python benchmarks/depth.py --data ../shared/data [--only 'muon-*'] [--seeds 0 1 2 3 4] [--epochs 8]

Every run is an ordinary run directory under --runs, of the in-process runtime. Runs that are done are not run
again, half-finished ones are resumed. ``docs/results/depth.csv`` is made of all runs of the table below that
are done, whatever their length and seed and whichever --only names.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from helpers.measuring import ROOT, machine, written_on
from helpers.resumable import Result, run
from results_table import listed

DEPTH = 32
CONFIG = ROOT / "configs" / "mnist_dtp_adam.yaml"
NETWORK = (
    "model.layers=[{kind: dense, units: 128, repeat: 31}, {kind: dense, units: 10, activation: linear}]",
)
RATE = "{schedule: cosine, start: %s, length: LENGTH, unit: minibatch}"
ADAM = "optimizer.forward={name: adam, lr: %s}"
MUON = (
    "optimizer.forward={name: muon, lr: %s, momentum: 0.9, nesterov: false, weight_decay: 0, "
    "adjust_lr_fn: match_rms_adamw, others: {name: adam, lr: %s}}"
)
PLAIN = ("optimizer.delay_power=0", "optimizer.delay_memory=0", "optimizer.lookahead=0")
LONGER = ("optimizer.delay_power=0.5", "optimizer.delay_memory=0.8")
BATCHES = 500
"""Of an epoch: ``LENGTH`` of a schedule is all of a run."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "adam-plain": (ADAM % "1.0e-4", *PLAIN),
    "adam": (ADAM % "1.0e-4",),
    "adam-cosine": (ADAM % (RATE % "1.0e-4"),),
    "adam-cosine-longer": (ADAM % (RATE % "1.0e-4"), *LONGER),
    "muon-cosine-longer": (MUON % (RATE % "1.0e-3", RATE % "1.0e-3"), *LONGER),
    "muon-half-cosine-longer": (MUON % (RATE % "5.0e-4", RATE % "5.0e-4"), *LONGER),
}
PIPELINES = {"exact": 1, "deep": DEPTH}
NAME = re.compile(r"(?P<variant>.+)-(?P<pipeline>exact|deep)-(?P<epochs>\d+)e-seed(?P<seed>\d+)")


@dataclass(frozen=True)
class Run:
    """One run: a variant, exact or deep, its length in epochs and its seed."""

    variant: str
    pipeline: str
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        """The run's folder: ``default-deep-8e-seed0``."""
        return f"{self.variant}-{self.pipeline}-{self.epochs}e-seed{self.seed}"

    def train(self, options: argparse.Namespace) -> None:
        """Run it unless it is done, and say what came out."""
        depth = PIPELINES[self.pipeline]
        given = (
            f"parallel.stages={depth}",
            f"parallel.in_flight={depth}",
            f"train.epochs={self.epochs}",
            f"seed={self.seed}",
            f"data.root={options.data}",
            "parallel.runtime=inprocess",
        )
        folder = Path(options.runs) / self.name
        length = str(BATCHES * self.epochs)
        variant = (each.replace("LENGTH", length) for each in VARIANTS[self.variant])
        result = run(CONFIG, folder, (*NETWORK, *variant, *given))
        if result is not None:
            errors = ", ".join(
                f"{split} {result[f'{split}_error']:.2f}" for split in ("valid", "test", "train")
            )
            print(f"{self.name}: {errors} %", flush=True)

    def result(self, options: argparse.Namespace) -> Result | None:
        """Return its result and its date, None where it is not done."""
        path = Path(options.runs) / self.name / "result.json"
        return {**json.loads(path.read_text()), "date": written_on(path)} if path.exists() else None


def done(options: argparse.Namespace) -> list[tuple[Run, Result]]:
    """Return the runs of the table that are done, with their results."""

    def found() -> Iterator[tuple[Run, Result]]:
        for path in Path(options.runs).glob("*/result.json"):
            match = NAME.fullmatch(path.parent.name)
            if match and match["variant"] in VARIANTS:
                each = Run(match["variant"], match["pipeline"], int(match["epochs"]), int(match["seed"]))
                result = each.result(options)
                if result is not None:
                    yield each, result

    order = list(VARIANTS)
    return sorted(
        found(),
        key=lambda pair: (
            -pair[0].epochs,
            order.index(pair[0].variant),
            -len(pair[0].pipeline),
            pair[0].seed,
        ),
    )


def write_csv(pairs: list[tuple[Run, Result]], path: Path) -> None:
    """Write one line per run."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        names = ["variant", "pipeline", "epochs", "seed", "test", "valid", "train", "seconds"]
        rows.writerow([*names, "overrides", "machine", "date"])
        for each, result in pairs:
            values = (f"{result[f'{split}_error']:.3f}" for split in ("test", "valid", "train"))
            start = [each.variant, each.pipeline, each.epochs, each.seed, *values, f"{result['seconds']:.0f}"]
            rows.writerow([*start, " ".join(VARIANTS[each.variant]), machine(), result["date"]])


def table(path: Path) -> list[str]:
    """Return the lines of a table of the trace: a variant, exact or deep, and its errors over the seeds."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["| epochs | variant | D | test error | validation error | training error |"]
    lines.append("|---|---|---|---|---|---|")
    for group in dict.fromkeys((row["epochs"], row["variant"], row["pipeline"]) for row in rows):
        chosen = [row for row in rows if (row["epochs"], row["variant"], row["pipeline"]) == group]
        test, valid, train = ([float(row[name]) for row in chosen] for name in ("test", "valid", "train"))
        epochs, variant, pipeline = group
        errors = (listed(test), listed(valid), f"{statistics.mean(train):.2f}")
        lines.append(f"| {' | '.join((epochs, variant, str(PIPELINES[pipeline]), *errors))} |")
    return lines


def main() -> None:
    """Run what is missing, print the table and write the trace."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data", help="folder of the data sets")
    parser.add_argument("--runs", default="runs/depth", help="folder of the run directories")
    parser.add_argument("--out", default=str(ROOT / "docs" / "results"), help="folder of the trace")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of the names of runs to train")
    options = parser.parse_args()
    for seed in options.seeds:
        for variant in VARIANTS:
            for pipeline in PIPELINES:
                each = Run(variant, pipeline, options.epochs, seed)
                if any(fnmatch(each.name, pattern) for pattern in options.only):
                    each.train(options)
    path = Path(options.out) / "depth.csv"
    write_csv(done(options), path)
    print("\n".join(table(path)))


if __name__ == "__main__":
    main()
