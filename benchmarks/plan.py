"""What ``dtp-dist plan`` predicts next to what a local run does, and the planned cut next to an equal one.

    python benchmarks/plan.py --data ../shared/data [--only NAME ...] [--write]

For each network layers and messages are measured, as the command does, and then run: one stage, two exact
stages and two with two minibatches in flight, one process a stage; and backpropagation as a rule on two exact
stages cut alike, which is what "backprop step" foresees. All runtimes stay up and take turns, with a plan of
its own in every round, so that a noisy machine is as noisy for each: its speed drifts by a tenth within
minutes. Figures are medians of the rounds. With ``--write`` they go to docs/results/plan.md and plan.csv.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

from dtp_dist.config import Config
from dtp_dist.planning.predict import Pipeline, Prediction, best_partition, predict
from dtp_dist.profiling.costs import pipeline_of
from helpers.measuring import CONFIG, ROOT, Measured, config, machine, today

WIDE = "[{kind: dense, units: 1024, repeat: 4}, {kind: dense, units: 10, activation: linear}]"
UNBALANCED = (
    "[{kind: dense, units: 800, repeat: 2}, {kind: dense, units: 160, repeat: 5},"
    " {kind: dense, units: 10, activation: linear}]"
)
NETWORKS = {
    "784-7x240-10": (),
    "784-4x1024-10": (f"model.layers={WIDE}",),
    "784-2x800-5x160-10": (f"model.layers={UNBALANCED}",),
}
EQUAL_CUT = "784-2x800-5x160-10"
CASES = ((1, 1), (2, 1), (2, 2))
"""Stages and minibatches in flight."""

DEPTHS = sorted({in_flight for _, in_flight in CASES})
CONFIGS = {"dtp": CONFIG, "backprop": ROOT / "configs" / "mnist_backprop.yaml"}


class Case(NamedTuple):
    """A rule, and what is foreseen for it."""

    rule: str
    foreseen: Prediction


@dataclass(frozen=True)
class Row:
    """One pipeline, foreseen and measured; idle shares in percent."""

    network: str
    rule: str
    stages: int
    in_flight: int
    partition: str
    planned_samples_per_second: float
    measured_samples_per_second: float
    slowest_round: float
    fastest_round: float
    planned_idle: float
    measured_idle: float
    machine: str = field(default_factory=machine)
    date: str = field(default_factory=today)

    @property
    def off(self) -> float:
        """How far the planned speed is from the measured, in percent of it."""
        return 100 * (self.planned_samples_per_second / self.measured_samples_per_second - 1)

    @property
    def points(self) -> float:
        """How far the planned idle share is from the measured, in points."""
        return self.planned_idle - self.measured_idle


def cases(name: str, settings: Config, pipeline: Pipeline) -> Iterator[Case]:
    """Yield the cases of a network, an equal cut at the end where it is compared."""
    for stages, in_flight in CASES:
        yield Case("dtp", predict(pipeline, best_partition(pipeline.costs, stages, in_flight), in_flight))
    yield Case("backprop", foresee(pipeline, "backprop", best_partition(pipeline.costs, 2, 1), 1))
    layers = len(settings.model.options)
    if name == EQUAL_CUT:
        yield Case("dtp", predict(pipeline, [layers - layers // 2, layers // 2], 2))


def foresee(pipeline: Pipeline, rule: str, partition: Sequence[int], in_flight: int) -> Prediction:
    """Return what is foreseen for a rule."""
    twin = pipeline.backprop if rule == "backprop" else pipeline
    assert twin is not None
    return predict(twin, partition, in_flight)


def run(data: str, name: str, rounds: int, seconds: float) -> list[Row]:
    """Plan a network, run it, and return a row for each case."""
    settings = config(data, *NETWORKS[name])
    chosen = list(cases(name, settings, pipeline_of(settings, DEPTHS, measured=True)))
    runs: list[Measured] = []
    planned: list[list[Prediction]] = [[] for _ in chosen]
    speeds: list[list[float]] = [[] for _ in chosen]
    idle: list[list[float]] = [[] for _ in chosen]
    try:
        for each in chosen:
            path = CONFIGS[each.rule]
            runs.append(Measured(config(data, *NETWORKS[name], *overrides(each.foreseen), path=path)))
        for number in range(rounds + 1):  # the first warms up
            pipeline = pipeline_of(settings, DEPTHS, measured=True) if number else None
            for case, one in enumerate(runs):
                rule, first = chosen[case]
                spent = one.train(max(10, int(seconds / first.period)))
                if pipeline is not None:
                    planned[case].append(foresee(pipeline, rule, first.partition, first.in_flight))
                    speeds[case].append(settings.data.batch_size / spent)
                    idle[case].append(100 * (1 - statistics.mean(one.busy)))
    finally:
        for one in runs:
            one.runtime.close()
    return [
        Row(
            network=name,
            rule=each.rule,
            stages=len(each.foreseen.partition),
            in_flight=each.foreseen.in_flight,
            partition=" ".join(map(str, each.foreseen.partition)),
            planned_samples_per_second=statistics.median(
                settings.data.batch_size / foreseen.period for foreseen in plans
            ),
            measured_samples_per_second=statistics.median(speed),
            slowest_round=min(speed),
            fastest_round=max(speed),
            planned_idle=statistics.median(100 * foreseen.idle for foreseen in plans),
            measured_idle=statistics.median(waited),
        )
        for each, plans, speed, waited in zip(chosen, planned, speeds, idle, strict=True)
    ]


def overrides(planned: Prediction) -> tuple[str, ...]:
    """Return what a configuration needs to run as planned."""
    cut = ",".join(map(str, planned.partition))
    stages = len(planned.partition)
    return (
        "parallel.runtime=local",
        f"parallel.stages={stages}",
        f"parallel.in_flight={planned.in_flight}",
        f"parallel.partition=[{cut}]",
    )


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    names = ["network", "rule", "stages", "D", "cut", "planned samples/s", "measured (rounds)", "off"]
    names += ["planned idle", "measured"]
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        spread = f"{row.slowest_round:.0f} to {row.fastest_round:.0f}"
        yield (
            f"| {row.network} | {row.rule} | {row.stages} | {row.in_flight} | {row.partition} "
            f"| {row.planned_samples_per_second:.0f} | {row.measured_samples_per_second:.0f} ({spread}) "
            f"| {row.off:+.1f} % | {row.planned_idle:.1f} % | {row.measured_idle:.1f} % |"
        )


def verdict(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what the table comes to."""
    speed, idle = max(abs(row.off) for row in rows), max(abs(row.points) for row in rows)
    yield f"Planned speeds are at most {speed:.1f} % off, idle shares at most {idle:.1f} points."
    cut = [row for row in rows if row.network == EQUAL_CUT and row.stages == 2 and row.in_flight == 2]
    if len(cut) == 2:
        ratio = cut[0].measured_samples_per_second / cut[1].measured_samples_per_second
        yield (
            f"The planned cut of {EQUAL_CUT} into {cut[0].partition} layers reached {ratio:.2f} times the "
            f"samples/s of the cut into {cut[1].partition}."
        )


def write(rows: Sequence[Row]) -> None:
    """Write docs/results/plan.md and plan.csv."""
    folder = ROOT / "docs" / "results"
    text = [
        "# What `dtp-dist plan` predicts, and what runs do",
        "",
        f"`benchmarks/plan.py`; {machine()}.",
        "",
    ]
    text += [
        "MNIST, minibatches of 100, float32, one thread a stage, local processes. D: minibatches in flight."
    ]
    text += ["", *table(rows), "", *verdict(rows)]
    (folder / "plan.md").write_text("\n".join(text) + "\n")
    with Path(folder / "plan.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data")
    parser.add_argument("--only", nargs="*", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn, about")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows: list[Row] = []
    print(machine(), flush=True)
    for name in options.only:
        found = run(options.data, name, options.rounds, options.seconds)
        print("\n".join(table(found)), flush=True)
        rows += found
    print("\n".join(verdict(rows)))
    if options.write:
        write(rows)


if __name__ == "__main__":
    main()
