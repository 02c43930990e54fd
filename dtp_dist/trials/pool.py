"""Several trials at once, each in a process of this machine, without Ray: started, watched, ended."""

from __future__ import annotations

import io
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from dtp_dist import import_path
from dtp_dist.runtime.processes import thread_variables
from dtp_dist.storage.files import unwritable
from dtp_dist.system import remains
from dtp_dist.system.interruption import check, held
from dtp_dist.system.process import ending, signal_with_parent
from dtp_dist.text.foreign import open_log
from dtp_dist.trials.process import ENDED
from dtp_dist.trials.trial import Trial, end, processes_of, progress, record
from dtp_dist.trials.worker import job_of

START = import_path.program_of("dtp_dist.trials", "process")
LOG = "workers.log"
"""What the processes print: warnings, and what a user's own code says."""

LOOK_SECONDS = 0.5
END_SECONDS = 20.0
"""Seconds that runs which are to stop may take to end in good order, all together."""

KILL_SECONDS = 10.0
READ_BYTES = 1 << 16

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


class _Worker:
    """A process that trains one trial after another, as its parent sees it."""

    def __init__(self, log: io.FileIO, variables: dict[str, str]) -> None:
        self.trial: Trial | None = None
        self.reading, writing = os.pipe()
        self._heard = b""
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, str(writing), import_path.PACKAGE],
                pass_fds=[writing],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the parent's to handle
                preexec_fn=partial(signal_with_parent, os.getpid(), signal.SIGTERM),
                env=import_path.stage_environment() | variables,
            )
        finally:
            os.close(writing)

    def begin(self, trial: Trial) -> None:
        """Let it train a trial; that it is gone shows when it is listened to."""
        self.trial = trial
        job = asdict(replace(job_of(trial), past=False))
        with suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(job, default=str).encode() + b"\n")
            self.process.stdin.flush()

    def listen(self) -> list[dict[str, Any]]:
        """Return what it has said since.

        Raises:
            EOFError: it is gone.
        """
        data = os.read(self.reading, READ_BYTES)
        if not data:
            raise EOFError
        *lines, self._heard = (self._heard + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def leave(self) -> None:
        """Let it end by itself once it has nothing more to train."""
        with suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        os.close(self.reading)


class _Pool:
    """Workers, and the trials that none of them has begun yet."""

    def __init__(self, trials: Sequence[Trial], log: io.FileIO, tell: Tell) -> None:
        self._due, self._log, self._tell = list(trials), log, tell
        self._variables = thread_variables(trials[0].config)
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []
        self._left: list[_Worker] = []

    def run(self, jobs: int) -> None:
        """Train all, ``jobs`` at a time."""
        for _ in range(jobs):
            self._start()
        while self._workers:
            check()
            for key, _ in self._selector.select(LOOK_SECONDS):
                self._hear(key.data)

    def _start(self) -> None:
        with held():  # whoever is started is ended
            worker = _Worker(self._log, self._variables)
            self._workers.append(worker)
        self._selector.register(worker.reading, selectors.EVENT_READ, worker)
        worker.begin(self._due.pop(0))

    def _hear(self, worker: _Worker) -> None:
        trial = worker.trial
        assert trial is not None
        try:
            for values in worker.listen():
                if ENDED not in values:
                    self._tell(progress(trial, values))
                    continue
                self._tell(end(trial))
                if self._due:
                    worker.begin(self._due.pop(0))
                else:
                    self._retire(worker)
        except EOFError:
            self._lost(worker, trial)

    def _lost(self, worker: _Worker, trial: Trial) -> None:
        """Record that a worker is gone, and replace it."""
        try:
            how = ending(worker.process.wait(END_SECONDS))
        except subprocess.TimeoutExpired:
            how = "its process does not answer any more"
        record(trial.record, "failed", f"{how}; the same command resumes it", final=False)
        self._tell(end(trial))
        self._retire(worker)
        if self._due:
            self._start()

    def _retire(self, worker: _Worker) -> None:
        self._selector.unregister(worker.reading)
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


def _unended(workers: Sequence[_Worker], seconds: float) -> Iterator[_Worker]:
    """Yield those whose processes have not ended after some seconds, all together."""
    limit = time.monotonic() + seconds
    for worker in workers:
        try:
            worker.process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            yield worker
