"""What a run measures, handed on to an experiment tracker in a thread of its own.

Nothing here waits for the tracker but the end of the run, ``LIMIT`` seconds at most: lines are put in a
queue, and the thread takes them from there. A tracker that can't be reached is reported once and tried again.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dtp_dist.errors import StorageError, in_one_line
from dtp_dist.loggers.base import Logger, Point, State, Tracked
from dtp_dist.monitor.base import Line, Monitor
from dtp_dist.storage.files import write_file
from dtp_dist.text.foreign import read_file
from dtp_dist.text.numbers import whole

LIMIT, LIMIT_OF_FAILED = 20.0, 5.0
"""Seconds that a run waits at its end for a tracker to take what is left; for one that was reported."""
UNSAID = 1.0
"""Seconds of it in which nothing is said of that."""
SILENCE = 30.0
"""Seconds without an answer after which a tracker is reported."""
PAUSES = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Seconds between two attempts after an error; the last from then on."""
MOST = 20_000
"""Lines that wait for a tracker; those that come when there are so many are given up."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_ID_BYTES = 256


class Tracking(Monitor):
    """One tracker of a run.

    Args:
        name: of the tracker.
        logger: what hands on to it.
        run: as the tracker gets to know it.
        warn: takes what went wrong, in any thread.
        say: takes what is waited for, in the thread that closes it.
    """

    def __init__(
        self,
        name: str,
        logger: Logger,
        run: Tracked,
        warn: Callable[[str], None],
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._name, self._logger, self._run, self._warn, self._say = name, logger, run, warn, say
        self._path = run.run_dir / f"{name}.id"
        self._lines: queue.SimpleQueue[Point | None] = queue.SimpleQueue()
        self._waiting: list[Point] = []
        self._opened, self._ended = False, threading.Event()
        self._state, self._facts = State.FAILED, {"run_dir": str(run.run_dir)}
        self._busy_since: float | None = None
        self._warned, self._given_up = False, 0
        self._thread = threading.Thread(target=self._serve, name=f"logger {name}", daemon=True)
        self._thread.start()

    def write(self, line: Line) -> None:
        """Put measured values in the queue, and take note of how the run ends."""
        if line.event in list(State):
            self._state = State(line.event)
            if sha256 := line.details.get("weights_sha256"):
                self._facts["weights_sha256"] = sha256
        if line.values:
            of_inverses = "phase" in line.details
            values = {_name(name, of_inverses): value for name, value in line.values.items()}
            self._put(Point(int(line.details.get("minibatch", line.step)), time.time(), values))
        since = self._busy_since
        if since is not None and time.monotonic() - since > SILENCE:
            self._say_once(f"has not answered for {whole(SILENCE)} s")

    def _put(self, point: Point) -> None:
        if self._lines.qsize() + len(self._waiting) < MOST:
            self._lines.put(point)
        else:
            self._given_up += 1

    def close(self) -> None:
        """Let the thread hand on what is left, and wait for it for a limited time."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._lines.put(None)
        limit = LIMIT_OF_FAILED if self._warned else LIMIT
        self._thread.join(min(UNSAID, limit))
        if self._thread.is_alive() and limit > UNSAID:
            self._say(f"waiting for {self._name} to take what is left, {whole(limit)} s at most")
            self._thread.join(limit - UNSAID)
        left = len(self._waiting) + self._given_up
        if self._thread.is_alive() or left:
            what = f"{left} lines" if left else "the end of the run"
            self._warn(f"{self._name}: {what} did not get there; metrics.jsonl has everything")

    def _serve(self) -> None:
        failures = 0
        while True:
            last = self._gather()
            self._busy_since = time.monotonic()
            try:
                self._hand_on()
                if last:
                    self._logger.end(self._state, self._facts)
                failures = 0
            except Exception as error:
                self._say_once(in_one_line(error))
                failures += 1
            finally:
                self._busy_since = None
            if last:
                return
            if failures:
                self._ended.wait(PAUSES[min(failures, len(PAUSES)) - 1])

    def _gather(self) -> bool:
        """Take all lines that are there, and wait for one if nothing is to be done before.

        Returns whether the last has come.
        """
        with suppress(queue.Empty):
            line = self._lines.get(block=self._opened and not self._waiting)
            while line is not None:
                self._waiting.append(line)
                line = self._lines.get_nowait()
            return True
        return False

    def _hand_on(self) -> None:
        if not self._opened:
            self._open()
        if self._waiting:
            self._logger.log(self._waiting)
            self._waiting.clear()

    def _open(self) -> None:
        """Begin the tracker's run, or continue the one of an earlier process, and keep its id."""
        kept = read_id(self._path)
        found = self._logger.open(self._run, kept)
        self._opened = True
        if found == kept:
            return
        if kept is not None:
            self._warn(f"{self._name}: there is no run {kept} any more; a new one is begun: {found}")
        try:
            write_file(self._path, found.encode())
        except StorageError as error:
            self._warn(f"{self._name}: {error}")

    def _say_once(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            again = "" if self._ended.is_set() else f"; training continues, and {self._name} is tried again"
            self._warn(f"{self._name}: {what}{again}")


def _name(name: str, of_inverses: bool) -> str:
    """Return a value's name; a pass of inverse updates has its own for what other passes measure as well."""
    return f"inverse_pass/{name}" if of_inverses and not name.startswith("layer/") else name


def read_id(path: Path) -> str | None:
    """Return the id of a tracker's run that is kept in a file, None where there is none."""
    try:
        text = read_file(path, _ID_BYTES).decode(errors="replace").strip()
    except OSError:
        return None
    return text if _ID.fullmatch(text) else None
