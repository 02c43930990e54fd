"""Speed of 784-7x240-10, side by side: exact in one process against two local stages, D = 1 and D = 2.

    python benchmarks/speed.py --data ../shared/data

All runtimes stay up and take turns, so that a noisy machine is as noisy for each; figures are medians of the
rounds, ratios are medians of each round's ratio. The least work is 559 MFLOP a minibatch of 100 (products of
f and g alone), which the machine's own rate of float32 products turns into the least time.
"""

from __future__ import annotations

import argparse
import statistics

from common import Measured, config, gemm_rate, machine
from dtp_dist.config import shapes_of
from dtp_dist.planning import layer_work

WORK = 559e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--minibatches", type=int, default=250, help="half an epoch")
    parser.add_argument("--partition", default="null", help="of the two stages, e.g. [4,4]; null: planned")
    options = parser.parse_args()
    local = ("parallel.runtime=local", "parallel.stages=2", f"parallel.partition={options.partition}")
    runs = {
        "exact, one process": Measured(config(options.data)),
        "two local stages, D = 1": Measured(config(options.data, *local)),
        "two local stages, D = 2": Measured(config(options.data, *local, "parallel.in_flight=2")),
    }
    try:
        for run in runs.values():
            run.train(options.minibatches)
        rounds = []
        for _ in range(options.rounds):
            rates = {"rate": gemm_rate(0.5)}
            rounds.append(rates | {name: run.train(options.minibatches) for name, run in runs.items()})
        report(runs, rounds)
    finally:
        for run in runs.values():
            run.runtime.close()


def report(runs: dict[str, Measured], rounds: list[dict[str, float]]) -> None:
    """Print medians and ratios."""
    print(machine())
    rate = statistics.median(one["rate"] for one in rounds)
    least = WORK / rate / 1e6
    print(f"one core: {rate:.0f} GFLOP/s in float32 products, so at least {least:.2f} ms a minibatch")
    base = next(iter(runs))
    for name, run in runs.items():
        times = [1e3 * one[name] for one in rounds]
        ratios = [one[base] / one[name] for one in rounds]
        busy = " ".join(f"{100 * share:.0f}%" for share in run.busy)
        print(
            f"{name}: {statistics.median(times):.2f} ms a minibatch ({min(times):.2f} to {max(times):.2f}), "
            f"{statistics.median(ratios):.2f} times the exact rate ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"{statistics.median(times) / least:.2f} times the least, busy {busy}"
        )
    print_bound(runs["two local stages, D = 2"])


def print_bound(run: Measured) -> None:
    """Print what the layers' sizes let two stages gain at most."""
    settings = run.config
    layers = settings.model.options
    rule = settings.rule.build(len(layers))
    costs = layer_work(layers, shapes_of(settings), rule, settings.data.batch_size)
    cut = run.runtime.layout.partition[0]
    bound = sum(costs) / max(sum(costs[:cut]), sum(costs[cut:]))
    print(f"partition {list(run.runtime.layout.partition)}; bound by estimated work {bound:.2f}")
    if min(run.busy) > 0:
        print(f"bound by the stages' own busy times {sum(run.busy) / max(run.busy):.2f}")


if __name__ == "__main__":
    main()
