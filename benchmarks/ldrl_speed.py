"""Speed of L-DRL on 784-5x256-10 with K inverse iterations: exact in one process against two local stages.

    python benchmarks/ldrl_speed.py --data ../shared/data

Both runtimes stay up and take turns, so that a noisy machine is as noisy for each; the ratio is the median of
each round's ratio. Both compute the exact algorithm (D = 1): the stages' inverse updates run at once.
"""

from __future__ import annotations

import argparse
import statistics

from helpers.measuring import ROOT, Measured, config, estimated_work, gemm_rate, machine

CONFIG = ROOT / "configs" / "ernoult2022_mlp_mnist.yaml"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--minibatches", type=int, default=60)
    parser.add_argument("--iterations", type=int, default=20, help="K")
    parser.add_argument("--partition", default="null", help="of the two stages, e.g. [3,3]; null: planned")
    options = parser.parse_args()
    common = (f"model.defaults.inverse.iterations={options.iterations}", "monitor.tensorboard=false")
    local = ("parallel.runtime=local", "parallel.stages=2", f"parallel.partition={options.partition}")
    single = Measured(config(options.data, *common, path=CONFIG))
    double = Measured(config(options.data, *common, *local, path=CONFIG))
    try:
        print(machine())
        print(f"one core: {gemm_rate(0.5):.0f} GFLOP/s in float32 products")
        print_plan(double)
        for run in (single, double):
            run.train(options.minibatches // 3 + 1)
        rounds = [
            (single.train(options.minibatches), double.train(options.minibatches))
            for _ in range(options.rounds)
        ]
        report(rounds, single, double)
    finally:
        for run in (single, double):
            run.runtime.close()


def print_plan(run: Measured) -> None:
    """Print the partition, each layer's planned share of the work and what it lets two stages gain."""
    costs = estimated_work(run.config)
    cut = run.runtime.layout.partition[0]
    shares = " ".join(f"{100 * cost / sum(costs):.1f}" for cost in costs)
    print(f"partition {list(run.runtime.layout.partition)}, planned shares of the layers, %: {shares}")
    print(f"bound by planned work {sum(costs) / max(sum(costs[:cut]), sum(costs[cut:])):.2f}")


def report(rounds: list[tuple[float, float]], single: Measured, double: Measured) -> None:
    """Print medians, ratios and how busy each stage was in the last round."""
    batch = single.config.data.batch_size
    for name, run, times in (
        ("exact, one process", single, [one for one, _ in rounds]),
        ("exact, two local stages", double, [two for _, two in rounds]),
    ):
        busy = " ".join(f"{100 * share:.0f}%" for share in run.busy)
        middle = statistics.median(times)
        print(
            f"{name}: {1e3 * middle:.2f} ms a minibatch ({1e3 * min(times):.2f} to {1e3 * max(times):.2f}), "
            f"{batch / middle:.0f} samples/s, busy {busy}"
        )
    ratios = [one / two for one, two in rounds]
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
