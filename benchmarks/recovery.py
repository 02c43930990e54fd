"""Time from kill -9 of a stage to the next finished minibatch beyond the checkpoint, with two stages.

    python benchmarks/recovery.py --data ../shared/data [--runtime local|ray] [--repetitions 8]

One run of MNIST's 784-7x240-10 (without --data: digits) with D = 2 and a checkpoint every 100 minibatches.
Stages are killed in turn, each time at a random minibatch after a checkpoint.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import tempfile
from pathlib import Path

from helpers.disturbed import DisturbedRun
from helpers.measuring import CONFIG, ROOT, machine

EVERY = 100


def measure(run: DisturbedRun, stage: int, wait: int) -> tuple[float, float, float]:
    """Kill a stage ``wait`` minibatches after a checkpoint.

    Returns the seconds until it was noticed, new stages were there, and a minibatch was done.
    """
    step = int(run.wait_for_event("checkpoint")[0]["step"])
    run.wait_for_step(step + wait)
    since = run.signal(stage, signal.SIGKILL)
    noticed = run.wait_for_event("stage lost")[1]
    started = run.wait_for_event("started")[1]
    _, back = run.wait_until_back("recovered")
    return noticed - since, started - since, back - since


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of the data sets, with MNIST; without it, digits")
    parser.add_argument("--runtime", choices=("local", "ray"), default="local")
    parser.add_argument("--repetitions", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(machine())
    chance = random.Random(options.seed)
    config = str(CONFIG if options.data else ROOT / "configs" / "digits_dtp.yaml")
    with tempfile.TemporaryDirectory(prefix="recovery-") as folder:
        run = DisturbedRun(Path(folder) / "run")
        run.start(
            *(
                "train",
                config,
                f"run_dir={run.run_dir}",
                *([f"data.root={options.data}"] if options.data else []),
            ),
            *(f"parallel.runtime={options.runtime}", "parallel.stages=2", "parallel.in_flight=2"),
            *(
                f"parallel.max_restarts={options.repetitions}",
                "train.epochs=100000",
                "train.evaluate_every=0",
            ),
            *(f"train.checkpoint_every={EVERY}", "monitor.every=1", "monitor.tensorboard=false"),
        )
        try:
            times = []
            for number in range(options.repetitions):
                stage = number % 2
                times.append(measure(run, stage, chance.randrange(1, EVERY - 10)))
                noticed, started, back = times[-1]
                print(
                    f"stage {stage}: noticed after {noticed:.2f} s, new stages after {started:.2f} s, "
                    f"a minibatch beyond the checkpoint after {back:.2f} s",
                    flush=True,
                )
        finally:
            run.stop()
    whole = [back for _, _, back in times]
    print(f"{options.runtime}: median {statistics.median(whole):.2f} s, worst {max(whole):.2f} s")


if __name__ == "__main__":
    main()
