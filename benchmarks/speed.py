"""Speed of 784-7x240-10, side by side: exact in one process, two local stages, and plain PyTorch.

    python benchmarks/speed.py --data ../shared/data [--write]

All runtimes stay up and take turns, so that a noisy machine is as noisy for each; figures are medians of the
rounds, ratios are medians of each round's ratio. The least work is 559 MFLOP a minibatch of 100 (products of
f and g alone), which the machine's own rate of float32 products turns into the least time. Plain PyTorch is
backpropagation as anyone writes it: ``nn.Sequential``, cross-entropy and the fused Adam, on one thread; its
network has no inverses to learn. With ``--write`` the figures go to docs/results/speed.csv.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from dtp_dist.config import Config, shapes_of
from dtp_dist.config.batches import load_batches
from helpers.measuring import ROOT, Measured, config, estimated_work, gemm_rate, machine, today

WORK = 559e6
RESULTS = ROOT / "docs" / "results" / "speed.csv"
COLUMNS = ("run", "config", "ms", "least", "most", "times_exact", "machine", "date")
EXACT, DEEP, PLAIN = "exact, one process", "two local stages, D = 2", "plain PyTorch backpropagation"


class Trained(Protocol):
    """Something that trains, and stays up between turns."""

    busy: list[float]

    def train(self, minibatches: int) -> float:
        """Train that many minibatches and return seconds per minibatch."""
        ...


class PlainTorch:
    """Backpropagation without dtp_dist, on a tanh network of the same widths and the same minibatches."""

    def __init__(self, settings: Config) -> None:
        widths = [shape[0] for shape in shapes_of(settings)]
        layers = [nn.Linear(below, above) for below, above in pairwise(widths)]
        hidden = [module for layer in layers[:-1] for module in (layer, nn.Tanh())]
        self._network = nn.Sequential(*hidden, layers[-1])
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=3e-4, fused=True)
        self._batches = load_batches(settings)["train"]
        self._next = 0
        self.busy: list[float] = []

    def train(self, minibatches: int) -> float:
        """Train that many minibatches, over and over those of epoch 0; return seconds per minibatch."""
        torch.set_num_threads(1)
        start = time.perf_counter()
        for index in range(self._next, self._next + minibatches):
            images, labels = self._batches.minibatch(0, index % self._batches.count)
            self._optimizer.zero_grad()
            nn.functional.cross_entropy(self._network(images), labels).backward()
            self._optimizer.step()
        self._next += minibatches
        return (time.perf_counter() - start) / minibatches


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--minibatches", type=int, default=250, help="half an epoch")
    parser.add_argument("--partition", default="null", help="of the two stages, e.g. [4,4]; null: planned")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    options = parser.parse_args()
    local = ("parallel.runtime=local", "parallel.stages=2", f"parallel.partition={options.partition}")
    own = {
        EXACT: Measured(config(options.data)),
        "two local stages, D = 1": Measured(config(options.data, *local)),
        DEEP: Measured(config(options.data, *local, "parallel.in_flight=2")),
    }
    runs: dict[str, Trained] = {**own, PLAIN: PlainTorch(config(options.data))}
    try:
        for run in runs.values():
            run.train(options.minibatches)
        rounds = []
        for _ in range(options.rounds):
            rates = {"rate": gemm_rate(0.5)}
            rounds.append(rates | {name: run.train(options.minibatches) for name, run in runs.items()})
        report(runs, rounds)
        print_bound(own[DEEP])
    finally:
        for each in own.values():
            each.runtime.close()
    if options.write:
        write(RESULTS, rounds)


def ratios_of(rounds: list[dict[str, float]], name: str) -> list[float]:
    """Return how many times the exact rate a run reached in each round."""
    return [one[EXACT] / one[name] for one in rounds]


def report(runs: dict[str, Trained], rounds: list[dict[str, float]]) -> None:
    """Print medians and ratios."""
    print(machine())
    rate = statistics.median(one["rate"] for one in rounds)
    least = WORK / rate / 1e6
    print(f"one core: {rate:.0f} GFLOP/s in float32 products, so at least {least:.2f} ms a minibatch")
    for name, run in runs.items():
        times = [1e3 * one[name] for one in rounds]
        ratios = ratios_of(rounds, name)
        busy = " ".join(f"{100 * share:.0f}%" for share in run.busy)
        print(
            f"{name}: {statistics.median(times):.2f} ms a minibatch ({min(times):.2f} to {max(times):.2f}), "
            f"{statistics.median(ratios):.2f} times the exact rate ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"{statistics.median(times) / least:.2f} times the least, busy {busy or '-'}"
        )


def write(path: Path, rounds: list[dict[str, float]]) -> None:
    """Write a row for each run: its medians, its fastest and its slowest round."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for name in (name for name in rounds[0] if name != "rate"):
            times = [1e3 * one[name] for one in rounds]
            figures = [f"{value:.1f}" for value in (statistics.median(times), min(times), max(times))]
            ratio = f"{statistics.median(ratios_of(rounds, name)):.2f}"
            rows.writerow([name, "mnist_dtp_adam.yaml", *figures, ratio, machine(), today()])


def print_bound(run: Measured) -> None:
    """Print what the layers' sizes let two stages gain at most."""
    costs = estimated_work(run.config)
    cut = run.runtime.layout.partition[0]
    bound = sum(costs) / max(sum(costs[:cut]), sum(costs[cut:]))
    print(f"partition {list(run.runtime.layout.partition)}; bound by estimated work {bound:.2f}")
    if min(run.busy) > 0:
        print(f"bound by the stages' own busy times {sum(run.busy) / max(run.busy):.2f}")


if __name__ == "__main__":
    main()
