"""What delay costs: test error against (stages, in flight), and exact next to eight stages, eight in flight.

    python benchmarks/staleness.py --data ../shared/data [--jobs 2] [--only 'dtp-*' '*-8x8-*'] [--seeds 0 1 2]

Every run is an ordinary run directory under --runs, of the in-process runtime, which ends with the same bits
as local processes (tests/parity). Runs that are done are not run again, half-finished ones are resumed.
Tables and figure are made of all the runs that are done, whichever --only names.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from depth import table as depth_table
from helpers.measuring import ROOT, machine, written_on
from helpers.resumable import Result, run
from results_table import listed

SHAPES = ((1, 1), (2, 2), (4, 4), (8, 2), (8, 4), (8, 8))
RULES = {
    "dtp": ("mnist_dtp_adam", (), "DTP, anchor: current"),
    "dtp_stale": ("mnist_dtp_adam", ("rule.anchor=stale",), "DTP, anchor: stale"),
    "backprop": ("mnist_backprop", (), "backpropagation as a rule"),
}
PLAIN = ("optimizer.delay_memory=0", "optimizer.lookahead=0")
RATES = {
    "unscaled": (("optimizer.delay_power=0", *PLAIN), "unscaled rate"),
    "scaled": (("optimizer.delay_power=0.5", *PLAIN), "rate / sqrt(1 + delay)"),
    "default": ((), "default"),
}
TEXT = """# What delay costs

Measured by `benchmarks/staleness.py` on {machine};
in-process runtime, one thread, CPU float32. MNIST, `mnist_dtp_adam.yaml` and, for backpropagation,
`mnist_backprop.yaml`. Errors in percent, mean and sample deviation over the seeds; the training error is that
of the last epoch, while it was still learning.
Rates:

- *unscaled*: no remedy for delay at all;
- *rate / sqrt(1 + delay)*: `optimizer.delay_power=0.5` and no other remedy;
- *default*: rate / (1 + delay)^0.3, Adam's memory times sqrt(1 + delay), and a forward pass that looks ahead
  (`dtp_dist/algorithm/delay.py`); [staleness_search.md](staleness_search.md) says what else was tried.

## Exact next to eight stages with eight in flight, default settings

{gap}

## 32 stages with 32 in flight

`benchmarks/depth.py`: 784-31x128-10, else as `mnist_dtp_adam.yaml`; D = 1 is exact. Variants:

- *adam*: rate 1e-4, delays as by default; *cosine*: a rate that falls to 0 over the run;
- *longer*: `optimizer.delay_power=0.5 optimizer.delay_memory=0.8`;
- *muon*: `name: muon` with rate 1e-3 (*half*: 5e-4), `adjust_lr_fn: match_rms_adamw`, neither weight decay
  nor Nesterov.

{deep}

Machine and date of each run are in [depth.csv](depth.csv);
[staleness_search.md](staleness_search.md#32-stages-with-32-in-flight) says why these, and what they came to.

## Every depth of the pipeline, {epochs} epochs, seeds {seeds}

![test error against stages and minibatches in flight](staleness.png)

{grid}
"""
GAP_EPOCHS, GAP_SEEDS = (12, 30), (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Run:
    """One run: a rule on ``stages`` with ``in_flight``, its rate, its length and its seed."""

    rule: str
    stages: int
    in_flight: int
    rate: str
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        """The run's folder: ``dtp-8x8-default-12e-seed0``."""
        return f"{self.rule}-{self.stages}x{self.in_flight}-{self.rate}-{self.epochs}e-seed{self.seed}"

    def train(self, options: argparse.Namespace) -> None:
        """Run it unless it is done, and say what came out."""
        config, overrides, _ = RULES[self.rule]
        given = (
            f"parallel.stages={self.stages}",
            f"parallel.in_flight={self.in_flight}",
            f"train.epochs={self.epochs}",
            f"seed={self.seed}",
            f"data.root={options.data}",
            "parallel.runtime=inprocess",
        )
        path = ROOT / "configs" / f"{config}.yaml"
        result = run(path, Path(options.runs) / self.name, (*overrides, *RATES[self.rate][0], *given))
        if result is not None:
            print(f"{self.name}: test error {result['test_error']:.2f} %", flush=True)

    def result(self, options: argparse.Namespace) -> Result | None:
        """Return its result and its date, None where it is not done."""
        path = Path(options.runs) / self.name / "result.json"
        return {**json.loads(path.read_text()), "date": written_on(path)} if path.exists() else None


def grid(seeds: Iterable[int], epochs: int) -> list[Run]:
    """Return the runs of the first table; without delay anchor and rate make no difference."""
    return [
        Run(rule, *shape, rate, epochs, seed)
        for seed in seeds
        for shape in SHAPES
        for rule in RULES
        for rate in RATES
        if shape != (1, 1) or (rule != "dtp_stale" and rate == "default")
    ]


def gap(epochs: int, seeds: Iterable[int]) -> list[Run]:
    """Return the runs of the second table."""
    return [Run("dtp", *shape, "default", epochs, seed) for seed in seeds for shape in ((1, 1), (8, 8))]


def found(runs: Iterable[Run], options: argparse.Namespace) -> list[tuple[Run, Result]]:
    """Return the runs that are done, with their results."""
    pairs = [(each, each.result(options)) for each in dict.fromkeys(runs)]
    return [(each, result) for each, result in pairs if result is not None]


def errors(done: list[tuple[Run, Result]], split: str, **wanted: object) -> list[float]:
    """Return one error per seed of the runs whose fields are as ``wanted``."""
    chosen = [
        (each.seed, result[f"{split}_error"])
        for each, result in done
        if all(getattr(each, name) == value for name, value in wanted.items())
    ]
    return [error for _, error in sorted(chosen)]


def grid_table(done: list[tuple[Run, Result]]) -> list[str]:
    """Return the lines of the first table."""
    lines = [
        "| rule | rate | stages, in flight | test error | training error |",
        "|---|---|---|---|---|",
    ]
    for rule, (_, _, title) in RULES.items():
        for stages, in_flight in SHAPES:
            for rate, (_, words) in RATES.items():
                wanted = {"rule": rule, "rate": rate, "stages": stages, "in_flight": in_flight}
                tests = errors(done, "test", **wanted)
                if tests:
                    train = statistics.mean(errors(done, "train", **wanted))
                    shown = words if in_flight > 1 else "-"
                    cells = (title, shown, f"{stages}, {in_flight}", listed(tests), f"{train:.2f}")
                    lines.append(f"| {' | '.join(cells)} |")
    return lines


def gap_table(done: list[tuple[Run, Result]]) -> list[str]:
    """Return the lines of the second table."""
    lines = [
        "| epochs | error | 1 stage, D = 1 | 8 stages, D = 8 | difference of the means |",
        "|---|---|---|---|---|",
    ]
    for epochs in GAP_EPOCHS:
        for split in ("test", "valid", "train"):
            exact = errors(done, split, epochs=epochs, stages=1)
            deep = errors(done, split, epochs=epochs, stages=8)
            if exact and deep:
                difference = statistics.mean(deep) - statistics.mean(exact)
                lines.append(f"| {epochs} | {split} | {listed(exact)} | {listed(deep)} | {difference:+.2f} |")
    return lines


def draw(done: list[tuple[Run, Result]], path: Path) -> None:
    """Write the figure of the first table: a panel per rule, a line per rate, bars from least to most."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, panels = pyplot.subplots(1, len(RULES), figsize=(11, 3.6), sharey=True)
    ticks = [f"{stages}, {in_flight}" for stages, in_flight in SHAPES]
    for panel, (rule, (_, _, title)) in zip(panels, RULES.items(), strict=True):
        for rate, (_, words) in RATES.items():
            points = [
                (place, tests)
                for place, (stages, in_flight) in enumerate(SHAPES)
                if (tests := grid_point(done, rule, rate, stages, in_flight))
            ]
            means = [statistics.mean(tests) for _, tests in points]
            below = [mean - min(tests) for mean, (_, tests) in zip(means, points, strict=True)]
            above = [max(tests) - mean for mean, (_, tests) in zip(means, points, strict=True)]
            places = [place for place, _ in points]
            panel.errorbar(places, means, yerr=(below, above), marker="o", capsize=3, label=words)
        panel.set(title=title, xlabel="stages, in flight", xticks=range(len(SHAPES)), xticklabels=ticks)
        panel.grid(alpha=0.3)
    panels[0].set(ylabel="test error, %", yscale="log")
    panels[0].yaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)))
    panels[0].yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    panels[0].yaxis.set_minor_locator(ticker.NullLocator())
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def grid_point(
    done: list[tuple[Run, Result]], rule: str, rate: str, stages: int, in_flight: int
) -> list[float]:
    """Return the test errors of a point of the figure; the exact one belongs to all lines of its rule."""
    if in_flight == 1:
        rule, rate = rule.removesuffix("_stale"), "default"
    return errors(done, "test", rule=rule, rate=rate, stages=stages, in_flight=in_flight)


def write_csv(done: list[tuple[Run, Result]], path: Path) -> None:
    """Write one line per run."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        names = ["rule", "rate", "stages", "in_flight", "epochs", "seed", "test", "valid", "train"]
        rows.writerow([*names, "machine", "date"])
        for each, result in done:
            values = (f"{result[f'{split}_error']:.3f}" for split in ("test", "valid", "train"))
            run = [each.rule, each.rate, each.stages, each.in_flight, each.epochs, each.seed]
            rows.writerow([*run, *values, machine(), result["date"]])


def write(options: argparse.Namespace) -> None:
    """Write ``staleness.md``, ``staleness.csv`` and ``staleness.png`` of the runs that are done."""
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    points = grid(options.seeds, options.epochs)
    pairs = [each for epochs in GAP_EPOCHS for each in gap(epochs, GAP_SEEDS)]
    table = found(points, options)
    draw(table, out / "staleness.png")
    write_csv(found([*points, *pairs], options), out / "staleness.csv")
    text = TEXT.format(
        machine=machine(),
        epochs=options.epochs,
        seeds=", ".join(str(seed) for seed in options.seeds),
        gap="\n".join(gap_table(found(pairs, options))),
        grid="\n".join(grid_table(table)),
        deep="\n".join(depth_table(ROOT / "docs" / "results" / "depth.csv")),
    )
    (out / "staleness.md").write_text(text)
    print(f"written to {out / 'staleness.md'}, .csv and .png")


def main() -> None:
    """Run everything that is missing and write tables and figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data", help="folder of the data sets")
    parser.add_argument("--runs", default="runs/staleness", help="folder of the run directories")
    parser.add_argument("--out", default=str(ROOT / "docs" / "results"), help="folder of tables and figure")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--epochs", type=int, default=12, help="of the first table's runs")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="of the first table's runs")
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of the names of runs to train")
    options = parser.parse_args()
    runs = [*(each for epochs in GAP_EPOCHS for each in gap(epochs, GAP_SEEDS))]
    runs = list(dict.fromkeys([*runs, *grid(options.seeds, options.epochs)]))
    chosen = [each for each in runs if any(fnmatch(each.name, pattern) for pattern in options.only)]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda each: each.train(options), chosen))
    write(options)


if __name__ == "__main__":
    main()
