"""Random faults, one after the other, in runs that must end as if there had been none.

    python benchmarks/soak.py --data ../shared/data [--faults 20] [--seed 0] [--runtime local|ray]

MNIST's 784-7x240-10 (without --data: digits) with S = 4 and D = 4, a checkpoint every 25 minibatches. A fault
is kill -9 or SIGSTOP of a stage, a cut of all links of a stage, or kill -9 of the driver followed by
``resume``; their order and the minibatches come from the seed, and each kind meets the stages in turn.
Signals come from outside, so some minibatches late; a fault that comes after its run's end is put into
another run. Every run must end with the weights of an undisturbed one. Prints a line for each fault; exits
with 1 if a run was lost or differs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import cycle, takewhile
from pathlib import Path

from common import CONFIG, ROOT, machine
from disturbed import DisturbedRun, RunOver
from dtp_dist import load_config, train

KINDS = ("kill", "freeze", "cut", "driver")
WORDS = {
    "kill": "kill -9 of stage {}",
    "freeze": "SIGSTOP of stage {}",
    "cut": "links of stage {} cut",
    "driver": "kill -9 of the driver",
}
STAGES, EVERY, PER_RUN = 4, 25, 3
ORPHAN_LIMIT = 20.0


@dataclass(frozen=True)
class Fault:
    """What happens to which stage, once about that many minibatches are done."""

    kind: str
    stage: int
    minibatch: int

    def __str__(self) -> str:
        return WORDS[self.kind].format(self.stage)


class Soak:
    """All faults and what came of them."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._random = random.Random(options.seed)
        self.kinds = [KINDS[number % len(KINDS)] for number in range(options.faults)]
        self._random.shuffle(self.kinds)
        first = self._random.randrange(STAGES)
        self._stages = {kind: cycle((*range(first, STAGES), *range(first))) for kind in KINDS}
        self.done: list[tuple[Fault, float]] = []
        self.config = str(CONFIG if options.data else ROOT / "configs" / "digits_dtp.yaml")
        self._common = (
            *([f"data.root={options.data}", "data.test_examples=1000"] if options.data else []),
            *(f"parallel.stages={STAGES}", f"parallel.in_flight={STAGES}"),
            *(f"train.max_steps={options.minibatches}", "train.epochs=1000", "train.evaluate_every=0"),
            *(f"train.checkpoint_every={EVERY}", "monitor.every=1", "monitor.tensorboard=false"),
        )

    def undisturbed(self) -> str:
        """Return the weights' hash of a run in one process without faults."""
        given = [f"run_dir={self._folder / 'undisturbed'}", *self._common]
        return str(train(load_config(self.config, given)).result["weights_sha256"])

    def go(self, due: str) -> bool:
        """Run until every fault has happened; return whether all runs ended with the hash that is due."""
        for number in range(3 * self._options.faults):
            if not self.kinds:
                return True
            kinds, self.kinds = self.kinds[:PER_RUN], self.kinds[PER_RUN:]
            run = DisturbedRun(self._folder / f"run-{number}")
            try:
                self._disturb(run, self._plan(kinds))
                code = run.wait_for_end()
            except TimeoutError as error:
                print(f"LOST: {error}")
                return False
            finally:
                run.stop()
            if code != 0:
                print(f"LOST: exit code {code}: {run.said()}")
                return False
            found = json.loads((run.run_dir / "result.json").read_text())["weights_sha256"]
            print(f"run {number} ended with {found[:16]}", flush=True)
            if found != due:
                print(f"IT DIFFERS: expected {due[:16]}")
                return False
        print(f"LOST: {len(self.kinds)} faults came too late again and again; ask for more minibatches")
        return False

    def _plan(self, kinds: list[str]) -> list[Fault]:
        """Return faults of these kinds, each at a random minibatch of its own part of the run."""
        part = (self._options.minibatches - EVERY) // len(kinds)
        faults = []
        for number, kind in enumerate(kinds):
            minibatch = part * number + self._random.randint(1, part * 2 // 3)
            if kind == "driver":
                minibatch = max(minibatch, 2 * EVERY)  # there is a whole checkpoint to resume from
            faults.append(Fault(kind, next(self._stages[kind]), minibatch))
        return faults

    def _disturb(self, run: DisturbedRun, faults: list[Fault]) -> None:
        """Start a run and let the faults happen to it; those that came too late are put back."""
        runtime = f"parallel.runtime={self._options.runtime}"
        overrides = [f"run_dir={run.run_dir}", runtime, f"parallel.max_restarts={2 * PER_RUN}"]
        run.start("train", self.config, *self._common, *overrides, env=cuts(faults))
        for number, fault in enumerate(faults):
            try:
                since, notes = self._do(run, fault, faults[number + 1 :])
                step, back = run.wait_until_back("resumed" if fault.kind == "driver" else "recovered")
            except RunOver:
                self.kinds += [each.kind for each in faults[number:]]
                return
            self.done.append((fault, back - since))
            print(
                f"{len(self.done):3}: {fault}, when minibatch {fault.minibatch} was due{notes}; "
                f"{back - since:.1f} s until minibatch {step}, the first beyond the checkpoint",
                flush=True,
            )

    def _do(self, run: DisturbedRun, fault: Fault, later: list[Fault]) -> tuple[float, str]:
        """Let a fault happen; return when, and what was seen at once."""
        if fault.kind == "cut":
            run.wait_for_event("stage lost")
            return run.progressed, f" (noticed {time.monotonic() - run.progressed:.1f} s later)"
        run.wait_for_step(fault.minibatch)
        if fault.kind != "driver":
            since = run.signal(fault.stage, signal.SIGKILL if fault.kind == "kill" else signal.SIGSTOP)
            seen = run.step
            noticed = run.wait_for_event("stage lost")[1]
            return since, f" ({seen} were done, noticed {noticed - since:.1f} s later)"
        since = time.monotonic()
        gone = run.kill_driver(ORPHAN_LIMIT)
        run.start("resume", str(run.run_dir), env=cuts(later))
        return since, f" (all of it gone {gone:.1f} s later)"


def cuts(faults: list[Fault]) -> dict[str, str]:
    """Return the environment of a driver whose run is to have these faults, up to the driver's own."""
    found = [
        f"generation={generation} stage={fault.stage} minibatch={fault.minibatch} action=F do=cut"
        for generation, fault in enumerate(takewhile(lambda each: each.kind != "driver", faults))
        if fault.kind == "cut"
    ]
    return {"DTP_DIST_FAULT": "; ".join(found)}


def main() -> None:
    """Disturb, compare and sum up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of the data sets, with MNIST; without it, digits")
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runtime", choices=("local", "ray"), default="local")
    parser.add_argument("--minibatches", type=int, default=300)
    options = parser.parse_args()
    print(machine())
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(options, folder)
    due = soak.undisturbed()
    print(f"undisturbed: {due[:16]}", flush=True)
    same = soak.go(due)
    for kind in KINDS:
        times = [seconds for fault, seconds in soak.done if fault.kind == kind]
        if times:
            middle = statistics.median(times)
            print(f"{kind}: {len(times)} times, median {middle:.1f} s, worst {max(times):.1f} s")
    if same:
        print(f"{len(soak.done)} faults, {options.runtime}: none lost, all runs ended with the same weights")
        shutil.rmtree(folder)
    else:
        print(f"the runs are in {folder}")
    sys.exit(not same)


if __name__ == "__main__":
    main()
