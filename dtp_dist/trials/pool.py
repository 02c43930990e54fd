"""Several trials at once, each in a process of this machine, without Ray: started, watched, ended."""

from __future__ import annotations

import io
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dtp_dist.runtime.processes import thread_variables
from dtp_dist.storage.files import unwritable
from dtp_dist.system import remains
from dtp_dist.system.interruption import check, held
from dtp_dist.system.process import ending
from dtp_dist.text.foreign import open_log
from dtp_dist.trials.child import Child
from dtp_dist.trials.process import BEGUN, ENDED
from dtp_dist.trials.trial import Trial, end, processes_of, progress, record

LOG = "workers.log"
"""What the processes print: warnings, and what a user's own code says."""

LOOK_SECONDS = 0.5
END_SECONDS = 20.0
"""Seconds that runs which are to stop may take to end in good order, all together."""

KILL_SECONDS = 10.0

Tell = Callable[[str], None]


def train_all(trials: Sequence[Trial], *, jobs: int | None, folder: Path, tell: Tell) -> None:
    """Train trials until each is done or failed; what became of one is in its folder, or in its record.

    Args:
        trials: those that are not yet, at least one, in the order in which they are begun.
        jobs: how many at once; None for as many as there are cores for.
        folder: the one that all are in, for the log.
        tell: takes a line for whoever watches.

    Raises:
        StorageError: a file can't be written.
    """
    try:
        log = open_log(folder / LOG)
    except OSError as error:
        raise unwritable(folder / LOG, error) from None
    with log:
        pool = _Pool(trials, log, tell)
        try:
            pool.run(min(jobs or at_once(trials), len(trials)))
        finally:
            pool.close()


def at_once(trials: Sequence[Trial]) -> int:
    """Return how many trials there are cores for; one where Ray places the stages."""
    if any(trial.config.parallel.runtime == "ray" for trial in trials):
        return 1
    busy = max(processes_of(trial.config) * trial.config.parallel.threads for trial in trials)
    return max(1, (os.cpu_count() or 1) // busy)


class _Pool:
    """Workers, and the trials that none of them has begun yet."""

    def __init__(self, trials: Sequence[Trial], log: io.FileIO, tell: Tell) -> None:
        self._due, self._log, self._tell = list(trials), log, tell
        self._variables = thread_variables(trials[0].config)
        self._selector = selectors.DefaultSelector()
        self._workers: list[Child] = []
        self._left: list[Child] = []

    def run(self, jobs: int) -> None:
        """Train all, ``jobs`` at a time."""
        for _ in range(jobs):
            self._start()
        while self._workers:
            check()
            for key, _ in self._selector.select(LOOK_SECONDS):
                self._hear(key.data)
            for worker in list(self._workers):
                if not worker.begun and time.monotonic() > worker.due:
                    self._lost(worker, "its process did not begin within parallel.start_timeout")

    def _start(self) -> None:
        with held():  # whoever is started is ended
            worker = Child(self._log, self._variables)
            self._workers.append(worker)
        self._selector.register(worker.line, selectors.EVENT_READ, worker)
        worker.begin(self._due.pop(0))

    def _hear(self, worker: Child) -> None:
        trial = worker.trial
        assert trial is not None
        try:
            for values in worker.listen():
                if BEGUN in values:
                    worker.begun = True
                elif ENDED not in values:
                    self._tell(progress(trial, values))
                else:
                    self._ended(worker, trial)
        except EOFError:
            try:
                how = ending(worker.process.wait(END_SECONDS))
            except subprocess.TimeoutExpired:
                how = "its process does not answer any more"
            self._lost(worker, how)

    def _ended(self, worker: Child, trial: Trial) -> None:
        """Give a worker its next trial, if there is one."""
        self._tell(end(trial))
        if self._due:
            worker.begin(self._due.pop(0))
        else:
            self._retire(worker)

    def _lost(self, worker: Child, how: str) -> None:
        """Record that a worker is gone, or of no use, and replace it."""
        trial = worker.trial
        assert trial is not None
        worker.process.kill()
        record(trial.record, "failed", f"{how}; the same command resumes it", final=False)
        self._tell(end(trial))
        self._retire(worker)
        if self._due:
            self._start()

    def _retire(self, worker: Child) -> None:
        self._selector.unregister(worker.line)
        self._workers.remove(worker)
        self._left.append(worker)
        worker.leave()

    @held()
    def close(self) -> None:
        """Stop what still trains, in good order where it can, and wait until every process has ended."""
        for worker in self._workers:
            worker.process.terminate()
            worker.leave()
        every = [*self._workers, *self._left]
        for worker in _unended(every, END_SECONDS):
            worker.process.kill()
        for worker in _unended(every, KILL_SECONDS):
            remains.add(worker.process, "a trial's worker")
        self._selector.close()


def _unended(workers: Sequence[Child], seconds: float) -> Iterator[Child]:
    """Yield those whose processes have not ended after some seconds, all together."""
    limit = time.monotonic() + seconds
    for worker in workers:
        try:
            worker.process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            yield worker
