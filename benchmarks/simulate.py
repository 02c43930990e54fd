"""How long a simulation of 1,000 stages and 10,000 minibatches takes, and how much memory.

    python benchmarks/simulate.py [--stages N] [--minibatches N]

Costs and messages differ from stage to stage, all from one seed; the last 50 minibatches are kept for a
trace.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from dtp_dist.planning.simulate import simulate
from dtp_dist.planning.timing import Timing
from dtp_dist.schedule import Kind, Phase, Schedule
from helpers.measuring import machine

KEPT = 50


def timing(stages: int) -> Timing:
    """Return actions of 1 to 5 ms and messages of a few tens of microseconds."""
    random = np.random.default_rng(0)
    actions = {kind: random.integers(1_000_000, 5_000_000, stages) for kind in Kind}
    lead, send, transfer, latency = (
        {kind: random.integers(10_000, 50_000, stages) for kind in (Kind.FORWARD, Kind.TARGET)}
        for _ in range(4)
    )
    return Timing(stages, actions, lead, send, transfer, latency)


def main() -> None:
    """Simulate with several numbers in flight, and print what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stages", type=int, default=1000)
    parser.add_argument("--minibatches", type=int, default=10_000)
    options = parser.parse_args()
    print(machine())
    costs = timing(options.stages)
    for phase in (Phase.BOTH, Phase.EVALUATE):
        for in_flight in (1, 8, options.stages):
            schedule = Schedule(options.stages, range(options.minibatches), in_flight, phase)
            start = time.perf_counter()
            found = simulate(schedule, costs, keep=KEPT)
            spent = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            print(
                f"phase {phase}, {in_flight} in flight: {spent:.1f} s, at most {peak:.2f} GB so far, "
                f"{1e3 * found.period:.2f} ms a minibatch",
                flush=True,
            )


if __name__ == "__main__":
    main()
