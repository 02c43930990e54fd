"""How long an exact step (one minibatch in flight) takes by each rule, on virtual devices of equal costs.

    python benchmarks/exact_step.py --data ../shared/data [--stages 4 8 16] [--rules backprop dtp ccl]

Stages sleep 5 ms for F, for T and for U, and dtp's for I, instead of computing; processes, links and messages
are real. A round is a short and a long segment; what the long one has more minibatches and takes longer gives
the time from one minibatch to the next. Medians of the rounds; in docs/results/exact_step.csv and .md.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

from dtp_dist.planning.predict import predict
from dtp_dist.profiling.costs import pipeline_of
from helpers.measuring import ROOT, Measured, config, machine, today

COST = 5.0  # ms an action
SHORT, LONG = 5, 25
LAYERS = "[{kind: dense, units: 240, repeat: 15}, {kind: dense, units: 10, activation: linear}]"
CONFIGS = {"backprop": "mnist_backprop", "dtp": "mnist_dtp_adam", "ccl": "ccl2024_mnist"}
RESULTS = ROOT / "docs" / "results"
COLUMNS = {
    "rule": "rule",
    "stages": "stages",
    "actions": "actions of a step, one after another",
    "step": "measured, ms a step",
    "least": "least",
    "most": "most",
    "alone": "actions alone, ms a step",
}


def measure(data: str, rule: str, stages: int, rounds: int) -> dict[str, str]:
    """Return a row of the table."""
    costs = f"{{F: {COST}, I: {COST if rule == 'dtp' else 0}, T: {COST}, U: {COST}}}"
    overrides = ("parallel.runtime=local", f"parallel.stages={stages}", "parallel.in_flight=1")
    settings = config(
        data,
        *overrides,
        "data.batch_size=100",
        f"parallel.virtual_costs={costs}",
        f"model.layers={LAYERS}",
        path=ROOT / "configs" / f"{CONFIGS[rule]}.yaml",
    )
    partition = settings.parallel.partition
    assert partition is not None
    alone = 1e3 * predict(pipeline_of(settings, [1], measured=False), partition, 1).exact
    run = Measured(settings)
    found = []
    try:
        run.train(SHORT)
        for _ in range(rounds):
            short = SHORT * run.train(SHORT)
            found.append(1e3 * (LONG * run.train(LONG) - short) / (LONG - SHORT))
    finally:
        run.runtime.close()
    return {
        "rule": rule,
        "stages": str(stages),
        "actions": f"{alone / COST:.0f}",
        "step": f"{statistics.median(found):.1f}",
        "least": f"{min(found):.1f}",
        "most": f"{max(found):.1f}",
        "alone": f"{alone:.1f}",
        "machine": machine(),
        "date": today(),
    }


def main() -> None:
    """Measure, print, and write what was found beside what was found before."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data")
    parser.add_argument("--stages", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--rules", nargs="+", default=list(CONFIGS), choices=CONFIGS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of both files")
    options = parser.parse_args()
    for stages in options.stages:
        for rule in options.rules:
            row = measure(options.data, rule, stages, options.rounds)
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            write(options.results, row)


def write(folder: Path, row: dict[str, str]) -> None:
    """Put a row in its place in both files."""
    path = folder / "exact_step.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    rows = [each for each in rows if (each["rule"], each["stages"]) != (row["rule"], row["stages"])]
    rows = sorted([*rows, row], key=lambda each: (int(each["stages"]), float(each["alone"])))
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, [*COLUMNS, "machine", "date"], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(each[name] for name in COLUMNS) + " |" for each in rows]
    head = (
        "# An exact step, by rule\n\nOne minibatch in flight on virtual devices that sleep "
        f"{COST:g} ms for each action ([virtual.md](../virtual.md)), on\n{machine()}.\n"
        "`benchmarks/exact_step.py` says how it was measured. All of it is virtual: nothing was learned.\n\n"
    )
    (folder / "exact_step.md").write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
