"""Random faults, one after the other, in runs that must end as if there had been none.

    python benchmarks/soak.py [--faults 300] [--jobs 2] [--runtime local|ray] [--only KIND ...] [--again]

Each run trains the embedded digits with S = 4 and D = 4, a checkpoint every 80 minibatches, and has a seed:
it decides which kinds of fault come, when, to which stage and how long. ``soak_faults.py`` has the kinds:
stages killed, frozen, cut off, the driver killed, everything or the driver alone stopped for a while, an
fsync of 10 s, imports of 15 s, storms of signals while it starts and while it closes, checkpoints swapped and
edited. Every run must end with the weights of an undisturbed one, take nobody for lost who was not, print no
traceback, and leave no process and no file.

A line a fault, and one for each run's end, go to docs/results/soak.csv when the run is over. Seeds that are
there are not run again, unless with ``--again`` those that failed. A fault that comes after its run's end
counts for nothing. Exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import psutil

from dtp_dist import load_config, train
from helpers.disturbed import RunOver
from helpers.measuring import ROOT, machine, today
from helpers.soak_faults import HAPPEN, STARTING, Fault
from helpers.victim import NotStarted, Victim

CONFIG, RESULTS = ROOT / "configs" / "digits_dtp.yaml", ROOT / "docs" / "results" / "soak.csv"
STAGES, EVERY, PER_RUN, MINIBATCHES = 4, 80, 6, 2400
LATE, END = "too late", "end of the run"
COMMON = (
    *(f"parallel.stages={STAGES}", f"parallel.in_flight={STAGES}"),
    *(f"train.max_steps={MINIBATCHES}", "train.epochs=1000", "train.evaluate_every=0"),
    *(f"train.checkpoint_every={EVERY}", "monitor.every=5", "monitor.tensorboard=false"),
)


@dataclass(frozen=True)
class Row:
    """One fault of a run, or its end: what came of it and how long that took."""

    runtime: str
    seed: int
    kind: str
    moment: str
    outcome: str
    seconds: float
    machine: str = field(default_factory=machine)
    date: str = field(default_factory=today)

    @property
    def counts(self) -> bool:
        """Whether it is a fault that happened."""
        return self.kind != END and self.outcome != LATE

    @property
    def failed(self) -> bool:
        """Whether it is what must not be: such outcomes begin with capitals."""
        return self.outcome[:2].isupper()

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.kind}, {self.moment}: {self.outcome} ({self.seconds:.1f} s)"


def plan(seed: int, kinds: list[str]) -> list[Fault]:
    """Return the faults of a run in order: links are cut first, since that is decided when it starts."""
    shuffled = random.Random(f"deck {seed // len(kinds)}")
    deck = [kind for _ in range(PER_RUN) for kind in shuffled.sample(kinds, len(kinds))]
    first = seed % len(kinds) * PER_RUN
    rng = random.Random(f"plan {seed}")
    hand = deck[first : first + PER_RUN]
    early = rng.random() < 0.5

    def order(kind: str) -> tuple[int, float]:
        place = {"cut": 1, "storm at end": 3}.get(kind, 0 if early and kind in STARTING else 2)
        return place, rng.random()

    part = (MINIBATCHES - 2 * EVERY) // PER_RUN
    stages = rng.sample(range(STAGES), STAGES)
    return [
        Fault(
            kind,
            stages[number % STAGES],
            MINIBATCHES if kind == "storm at end" else part * number + rng.randint(1, part * 2 // 3),
        )
        for number, kind in enumerate(sorted(hand, key=order))
    ]


def cuts(faults: list[Fault]) -> str:
    """Return ``DTP_DIST_FAULT`` for the links that are cut, a restart between two."""
    cut = [fault for fault in faults if fault.kind == "cut"]
    return "; ".join(
        f"generation={generation} stage={fault.stage} minibatch={fault.minibatch} action=F do=cut"
        for generation, fault in enumerate(cut)
    )


class Soak:
    """Runs with their faults, one a seed."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._others, self._due = folder / "other" / "checkpoints", ""

    def prepare(self) -> str:
        """Train an undisturbed run, and one whose checkpoints are foreign; return the weights' hash."""
        alone = (*COMMON, "parallel.runtime=inprocess")
        found = train(load_config(str(CONFIG), [f"run_dir={self._folder / 'undisturbed'}", *alone]))
        other = [f"run_dir={self._folder / 'other'}", *alone, "seed=1", "train.keep_checkpoints=999"]
        train(load_config(str(CONFIG), other))
        self._due = str(found.result["weights_sha256"])
        return self._due

    def one(self, seed: int) -> list[Row]:
        """Disturb one run and return what came of it."""
        faults = plan(seed, self._options.only)
        folder = Path(tempfile.mkdtemp(prefix="sk"))
        overrides = [
            *(str(CONFIG), *COMMON, f"parallel.runtime={self._options.runtime}"),
            f"parallel.max_restarts={3 * PER_RUN}",
            f"parallel.failure_timeout={self._options.failure_timeout}",
        ]
        victim = Victim(folder / "v", overrides, cuts(faults), self._others, random.Random(f"run {seed}"))
        rows, start = [], time.monotonic()
        try:
            for row in self._disturb(victim, seed, faults):
                rows.append(row)
                print(row, flush=True)
            outcome = self._end(victim)
        except (OSError, psutil.Error, NotStarted) as error:  # a wait that was too long is one
            outcome = f"LOST: {error}"
        finally:
            victim.close()
        rows.append(self._row(seed, END, f"{PER_RUN} faults", outcome, start))
        print(rows[-1], flush=True)
        if rows[-1].failed:
            print(f"it is in {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        return rows

    def _disturb(self, victim: Victim, seed: int, faults: list[Fault]) -> Iterator[Row]:
        for fault in faults:
            if not victim.running and fault.kind not in STARTING:
                victim.begin()
            start = time.monotonic()
            try:
                moment, outcome = HAPPEN[fault.kind](victim, fault)
            except RunOver:
                moment, outcome = f"minibatch {fault.minibatch}", LATE
            yield self._row(seed, fault.kind, moment, outcome, start)

    def _row(self, seed: int, kind: str, moment: str, outcome: str, start: float) -> Row:
        seconds = round(time.monotonic() - start, 1)
        return Row(self._options.runtime, seed, kind, moment, outcome, seconds)

    def _end(self, victim: Victim) -> str:
        """Wait for the run's end and return what it came to."""
        code = victim.run.wait_for_end()
        result = victim.run.run_dir / "result.json"
        if not result.exists():
            return f"LOST: exit code {code}: {victim.run.said()}"
        with_lines(victim)
        found = json.loads(result.read_text())["weights_sha256"]
        log = victim.run.log()
        wrong = {
            f"WRONG BITS: {found[:16]} instead of {self._due[:16]}": found != self._due,
            f"FALSE ALARM: {victim.alarms()}": len(victim.run.lost) > victim.expected,
            "TRACEBACK": "Traceback" in log or "RecursionError" in log,
            "A BUG, it says": "(a bug" in log,
            f"BROKEN METRICS: {victim.run.broken[:1]}": bool(victim.run.broken),
            f"LEFT BEHIND: {(left := victim.left())}": bool(left),
        }
        return "; ".join(what for what, is_so in wrong.items() if is_so) or "the same bits, nothing left"


def with_lines(victim: Victim) -> None:
    """Read what is left of the lines of metrics."""
    try:
        victim.run.wait_for(lambda line: False, "the end")
    except RunOver:
        return


def read(path: Path) -> list[Row]:
    """Return the rows that were written before."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Row(**{**row, "seed": int(row["seed"]), "seconds": float(row["seconds"])})  # type: ignore[arg-type]
            for row in csv.DictReader(file)
        ]


def write(path: Path, rows: list[Row]) -> None:
    """Write all rows, in the order of their seeds; the file is whole at any time."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in sorted(rows, key=lambda row: (row.runtime, row.seed)))
    partial.rename(path)


def go(options: argparse.Namespace, soak: Soak) -> list[Row]:
    """Run seeds until there are enough faults; return the rows of this runtime."""
    rows = read(options.results)
    mine = [row for row in rows if row.runtime == options.runtime]
    bad = {row.seed for row in mine if row.failed} if options.again else set()
    rows = [row for row in rows if row.runtime != options.runtime or row.seed not in bad]
    done = {row.seed for row in rows if row.runtime == options.runtime}
    seeds, lock = (seed for seed in range(options.seed, sys.maxsize) if seed not in done), threading.Lock()

    def counted() -> int:
        return sum(row.counts for row in rows if row.runtime == options.runtime)

    def work() -> None:
        while True:
            with lock:
                if counted() >= options.faults:
                    return
                seed = next(seeds)
            found = soak.one(seed)
            with lock:
                rows.extend(found)
                write(options.results, rows)
                print(f"{counted()} faults so far", flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        for job in [pool.submit(work) for _ in range(options.jobs)]:
            job.result()
    return [row for row in rows if row.runtime == options.runtime]


def sum_up(rows: list[Row], runtime: str) -> bool:
    """Print what it came to; return whether all was as it has to be."""
    for kind in (*HAPPEN, END):
        mine = [row for row in rows if row.kind == kind and row.outcome != LATE]
        if mine:
            times, bad = [row.seconds for row in mine], sum(row.failed for row in mine)
            middle, worst = statistics.median(times), max(times)
            print(f"{kind}: {len(mine)} times, {bad} failed, median {middle:.1f} s, worst {worst:.1f} s")
    failed = [row for row in rows if row.failed]
    for row in failed:
        print(f"FAILED: {row}")
    faults, runs = sum(row.counts for row in rows), len({row.seed for row in rows})
    print(f"{faults} faults in {runs} runs, {runtime}: {len(failed)} failures")
    return not failed


def main() -> None:
    """Disturb, compare and sum up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="the first run's")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--runtime", choices=("local", "ray"), default="local")
    parser.add_argument("--only", nargs="+", choices=list(HAPPEN), default=list(HAPPEN), metavar="KIND")
    parser.add_argument("--failure-timeout", type=float, default=6.0, help="seconds")
    parser.add_argument("--again", action="store_true", help="run the seeds that failed again")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of rows")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a run gets none of them ignored
        signal.signal(number, signal.default_int_handler)
    print(machine())
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        soak = Soak(options, folder)
        print(f"undisturbed: {soak.prepare()[:16]}", flush=True)
        good = sum_up(go(options, soak), options.runtime)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
