"""What checkpoints cost, and Ray against the local runtime: 784-7x240-10 on MNIST, S = 2, D = 2.

    python benchmarks/overhead.py --data ../shared/data [--only checkpoint|ray]

Turns with and without the thing measured alternate within one run, so that a noisy machine is as noisy for
each; figures are medians of the rounds, ratios are medians of each round's ratio.

A turn of the first part is 500 minibatches of local stages, without a checkpoint or with one in the middle:
the drain, the copies, the files and the manifest, as the driver writes them, all whole within the turn. In
the second part two local stages and two of Ray's actors are up and take turns of 100 minibatches.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from dtp_dist.schedule import Phase
from dtp_dist.storage.checkpoint import FileEntry, Manifest, complete_checkpoint, new_checkpoint
from dtp_dist.training.totals import Totals
from helpers.measuring import Measured, config, machine

STAGES = ("parallel.stages=2", "parallel.in_flight=2", "parallel.failure_timeout=100")
EVERY = 500
TURN = 100
TRANSPORTS = {"shared memory": "shm", "ipc": "ipc", "TCP with CURVE": "tcp"}


def checkpoint_turn(run: Measured, folder: Path) -> float:
    """Train ``EVERY`` minibatches with a checkpoint in the middle; return the seconds."""

    def done(files: list[FileEntry]) -> None:
        told = Manifest(run.next, 0, Phase.BOTH, 0, "0" * 64, tuple(files), Totals().state())
        complete_checkpoint(place, told, 2)

    start = time.perf_counter()
    run.train(EVERY // 2)
    place = new_checkpoint(folder, run.next)
    run.runtime.save(place, done)
    run.train(EVERY - EVERY // 2)
    run.runtime.flush()
    return time.perf_counter() - start


def plain_turn(run: Measured) -> float:
    """Train ``EVERY`` minibatches; return the seconds."""
    start = time.perf_counter()
    run.train(EVERY)
    return time.perf_counter() - start


def measure_checkpoints(data: str, rounds: int) -> None:
    """Measure and print what a checkpoint every ``EVERY`` minibatches costs."""
    run = Measured(config(data, *STAGES, "parallel.runtime=local"))
    folder = Path(tempfile.mkdtemp(prefix="overhead-"))
    found: list[dict[str, float]] = []
    try:
        plain_turn(run)
        for number in range(rounds):
            turns = [("with", lambda: checkpoint_turn(run, folder)), ("without", lambda: plain_turn(run))]
            if number % 2:
                turns.reverse()  # a machine that gets slower is no argument for the first
            found.append({name: turn() for name, turn in turns})
    finally:
        run.runtime.close()
        shutil.rmtree(folder)
    costs = [100 * (one["with"] / one["without"] - 1) for one in found]
    plain = statistics.median(one["without"] for one in found)
    print(
        f"a checkpoint every {EVERY} minibatches costs {statistics.median(costs):.1f} % "
        f"({min(costs):.1f} to {max(costs):.1f} in {rounds} rounds) of {plain:.2f} s"
    )


def measure_ray(data: str, rounds: int, name: str, transport: str) -> None:
    """Measure and print Ray's speed against the local runtime's over one transport, on a Ray of its own."""
    import ray

    runs: dict[str, Measured] = {}
    found: list[dict[str, float]] = []
    try:
        for runtime in ("local", "ray"):
            where = (f"parallel.transport={transport}", f"parallel.runtime={runtime}")
            runs[runtime] = Measured(config(data, *STAGES, *where))
        for number in range(rounds + 1):
            turns = list(runs.items())
            if number % 2:
                turns.reverse()
            found.append({key: run.train(TURN) for key, run in turns})
    finally:
        for run in runs.values():
            run.runtime.close()
        ray.shutdown()
    found = found[1:]  # the first round warms up
    rates = {
        key: statistics.median(run.config.data.batch_size / one[key] for one in found)
        for key, run in runs.items()
    }
    ratios = [one["local"] / one["ray"] for one in found]
    print(
        f"over {name}: local {rates['local']:.0f} samples/s, Ray {rates['ray']:.0f} samples/s, "
        f"{statistics.median(ratios):.3f} of local's ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


def main() -> None:
    """Measure both parts, or one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data")
    parser.add_argument("--only", choices=("checkpoint", "ray"))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(machine(), flush=True)
    if options.only != "ray":
        measure_checkpoints(options.data, options.rounds)
    if options.only != "checkpoint":
        for name, transport in TRANSPORTS.items():
            measure_ray(options.data, options.rounds, name, transport)


if __name__ == "__main__":
    main()
