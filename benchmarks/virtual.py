"""What the runtime itself adds at 4, 8 and 16 stages: virtual devices of 5 ms an action, as many in flight.

    python benchmarks/virtual.py --data ../shared/data [--stages 4 8 16] [--runtimes local ray]

Stages sleep instead of computing (parallel.virtual_costs); processes, actors, links and messages are real:
100 x 240 float32 each way, and labels. The bound is the slowest stage's actions, one after another: 20 ms a
minibatch. A round is a short and a long segment; what the long one has more minibatches and takes longer
gives the time from one minibatch to the next, the pipeline being full. Medians of the rounds.

Rows of what is measured take the place of older ones in docs/results/virtual.csv, and virtual.md is written
from all of them.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

import psutil

from dtp_dist.config import Config
from dtp_dist.planning.predict import predict
from dtp_dist.profiling.costs import pipeline_of
from helpers.measuring import ROOT, Measured, config, machine, today

COST = 5.0  # ms an action
ACTIONS = 4
SHORT, LONG = 30, 130
LAYERS = "[{kind: dense, units: 240, repeat: 15}, {kind: dense, units: 10, activation: linear}]"
RESULTS = ROOT / "docs" / "results"
COLUMNS = {
    "runtime": "runtime",
    "stages": "stages, in flight",
    "bound": "bound, ms a minibatch",
    "period": "measured, ms a minibatch",
    "least": "least",
    "most": "most",
    "share": "% of the bound's speed",
    "planned": "`dtp-dist plan`, ms a minibatch",
    "segment": f"% with filling and draining ({LONG} minibatches)",
    "asleep": "asleep, ms a minibatch",
    "memory": "MB of its own a stage",
}


def measure(data: str, runtime: str, stages: int, rounds: int) -> dict[str, str]:
    """Return a row of the table."""
    overrides = (f"parallel.runtime={runtime}", f"parallel.stages={stages}", f"parallel.in_flight={stages}")
    settings = config(data, *overrides, f"parallel.virtual_costs={COST}", f"model.layers={LAYERS}")
    bound = max(sum(settings.parallel.action_costs(stage).values()) for stage in range(stages))
    run = Measured(settings)
    periods, whole, asleep = [], [], []
    try:
        run.train(SHORT)
        for _ in range(rounds):
            short = SHORT * run.train(SHORT)
            whole.append(1e3 * run.train(LONG))
            periods.append((LONG * whole[-1] - 1e3 * short) / (LONG - SHORT))
            asleep.append(whole[-1] * max(run.busy))
        pids = run.runtime.processes()
        memory = statistics.mean(psutil.Process(pid).memory_full_info().uss for pid in pids)
    finally:
        run.runtime.close()
    period = statistics.median(periods)
    return {
        "runtime": runtime,
        "stages": str(stages),
        "bound": f"{bound:.0f}",
        "period": f"{period:.2f}",
        "least": f"{min(periods):.2f}",
        "most": f"{max(periods):.2f}",
        "share": f"{100 * bound / period:.1f}",
        "planned": f"{1e3 * planned(settings):.2f}",
        "segment": f"{100 * bound / statistics.median(whole):.1f}",
        "asleep": f"{statistics.median(asleep):.2f}",
        "memory": f"{memory / 1e6:.0f}",
        "machine": machine(),
        "date": today(),
    }


def planned(settings: Config) -> float:
    """Return the seconds from one minibatch to the next that the plan foresees."""
    partition, in_flight = settings.parallel.partition, settings.parallel.in_flight
    assert partition is not None
    return predict(pipeline_of(settings, [in_flight], measured=True), partition, in_flight).period


def main() -> None:
    """Measure, print, and write what was found beside what was found before."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data")
    parser.add_argument("--stages", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--runtimes", nargs="+", default=["local", "ray"], choices=("local", "ray"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of virtual.csv and virtual.md")
    options = parser.parse_args()
    for runtime in options.runtimes:
        for stages in sorted(options.stages, reverse=True):  # one private Ray, as large as the first needs
            row = measure(options.data, runtime, stages, options.rounds)
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            write(options.results, row)


def write(folder: Path, row: dict[str, str]) -> None:
    """Put a row in its place in both files."""
    path = folder / "virtual.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    rows = [each for each in rows if (each["runtime"], each["stages"]) != (row["runtime"], row["stages"])]
    rows = sorted([*rows, row], key=lambda each: (each["runtime"], int(each["stages"])))
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, [*COLUMNS, "machine", "date"], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(each[name] for name in COLUMNS) + " |" for each in rows]
    head = (
        f"# Virtual devices\n\nWhat the runtime itself adds: stages that sleep {COST:g} ms an action\n"
        f"([virtual.md](../virtual.md)) on {machine()}.\n"
        "`benchmarks/virtual.py` says how it was measured. All of it is virtual: nothing was learned.\n\n"
    )
    (folder / "virtual.md").write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
