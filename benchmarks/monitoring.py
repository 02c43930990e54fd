"""What monitoring at its defaults costs: 784-7x240-10 on MNIST, two local stages, two minibatches in flight.

    python benchmarks/monitoring.py --data ../shared/data [--turns 100]

Two runs, one with monitoring at its defaults and one without any (no TensorBoard, no trace, no lines within
an epoch), are up at once and take turns of 100 minibatches, so that a noisy machine is as noisy for each. To
take turns that short their epochs are 100 minibatches; what comes every few epochs (checkpoints, histograms,
pictures) comes every so many minibatches as on the whole of MNIST. The cost of an ordinary turn is the median
of each pair's ratio; what a turn with pictures takes longer is added in the share that such turns have.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import textwrap
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from dtp_dist import load_config, train
from dtp_dist.monitor import Monitor
from dtp_dist.monitor.base import Line
from helpers.measuring import CONFIG, ROOT, machine

TURN, EPOCH = 100, 500
EVERY = 5 * EPOCH // TURN  # the defaults of monitor.pictures_every and histograms_every, in turns
SETTINGS = (
    "parallel.runtime=local",
    "parallel.stages=2",
    "parallel.in_flight=2",
    "parallel.failure_timeout=100",
    f"data.train_examples={TURN * 100}",
    f"train.checkpoint_every={EPOCH}",
    "train.evaluate_every=0",
)
ON = (f"monitor.pictures_every={EVERY}", f"monitor.histograms_every={EVERY}")
OFF = ("monitor.tensorboard=false", "monitor.trace_minibatches=0", "monitor.every=1000000000")
TABLE = ROOT / "docs" / "results" / "monitoring.md"
PATIENCE = 600.0


class Turns(Monitor):
    """Lets its run go on until an epoch ends, and then the other one; keeps how long each turn took."""

    def __init__(self, start: threading.Barrier) -> None:
        self.seconds: list[float] = []
        self.mine, self.other = threading.Semaphore(0), threading.Semaphore(0)
        self._start = start

    def write(self, line: Line) -> None:
        """Wait for the other run at the start and at each epoch's end."""
        if line.event == "started":
            self._start.wait(PATIENCE)
        elif line.event is not None or any(name.startswith("stage/") for name in line.values):
            return
        else:
            self.seconds.append(time.perf_counter() - self._begun)
            self.other.release()
        if not self.mine.acquire(timeout=PATIENCE):
            raise TimeoutError("the other run does not go on")
        self._begun = time.perf_counter()

    def close(self) -> None:
        """Never let the other wait for this one."""
        self.other.release(10**6)


def measure(data: str, turns: int, folder: Path) -> tuple[Turns, Turns, list[str]]:
    """Return the turns of the run with monitoring, those without, and the weights both ended with."""
    barrier = threading.Barrier(2)
    on, off = Turns(barrier), Turns(barrier)
    on.other, off.other = off.mine, on.mine
    weights: list[str] = []

    def run(name: str, watched: Turns, overrides: Sequence[str]) -> None:
        own = [f"data.root={data}", f"train.epochs={turns}", f"run_dir={folder / name}"]
        result, _ = train(
            load_config(CONFIG, [*own, *SETTINGS, *overrides]), watch=[lambda steps, epochs: watched]
        )
        weights.append(result["weights_sha256"])

    threads = [threading.Thread(target=run, args=each) for each in (("on", on, ON), ("off", off, OFF))]
    for thread in threads:
        thread.start()
    on.mine.release()
    for thread in threads:
        thread.join()
    return on, off, weights


def rare(turn: int) -> bool:
    """Return whether a turn (from 0) has a picture in it: at its end, or of the checkpoint before it."""
    timeline = turn == 0 or (turn + 1) % EVERY == 0
    looks = turn == EPOCH // TURN or turn % EVERY == 0
    return timeline or (looks and turn > 0)


def report(on: list[float], off: list[float], weights: list[str]) -> str:
    """Return the page."""
    pairs = list(enumerate(zip(on, off, strict=True)))[1:-1]  # without the first and the last: start and end
    ratios = {turn: with_ / without - 1 for turn, (with_, without) in pairs}
    ordinary = [ratio for turn, ratio in ratios.items() if not rare(turn)]
    pictured = [ratio for turn, ratio in ratios.items() if rare(turn)]
    steady, extra = statistics.median(ordinary), statistics.median(pictured)
    share = 2 / EVERY  # a timeline and a look in each so many turns
    low, _, high = statistics.quantiles(ordinary, n=4)
    total = (1 - share) * steady + share * extra
    same = "the same weights" if len(set(weights)) == 1 else "DIFFERENT WEIGHTS"
    base = statistics.median(without for _, (_, without) in pairs)
    rows = [
        f"| samples/s without monitoring | {TURN * 100 / base:.0f} |",
        f"| an ordinary turn takes longer by | {_percent(steady)} "
        f"(quartiles {_percent(low)} to {_percent(high)}) |",
        f"| a turn with a picture in it takes longer by | {_percent(extra)} (median of {len(pictured)}) |",
        f"| share of such turns | {_percent(share)} |",
        f"| **cost in all** | **{_percent(total)} of the time** |",
    ]
    head = (
        "Written by `benchmarks/monitoring.py`: MNIST, 784-7x240-10, two local stages, two minibatches in "
        "flight; a run with monitoring at its defaults and one without any, both up at once, took turns of "
        f"{TURN} minibatches, {len(pairs)} each; {machine()}. Both ended with {same}."
    )
    return "\n".join(
        ["# What monitoring costs", "", textwrap.fill(head, 120), "", "| | |", "|---|---|", *rows, ""]
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data")
    parser.add_argument("--turns", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="monitoring-") as folder:
        on, off, weights = measure(options.data, options.turns, Path(folder))
    print("seconds of each turn, with monitoring and without; * has a picture in it")
    for turn, (with_, without) in enumerate(zip(on.seconds, off.seconds, strict=True)):
        print(f"{turn:4d}  {with_:.3f}  {without:.3f} {'*' if rare(turn) else ''}")
    page = report(on.seconds, off.seconds, weights)
    TABLE.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
