"""A run in a process of its own, to be disturbed from outside: for the soak and recovery benchmarks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

LIMIT = 300.0
"""Seconds that any one thing may take on a busy machine."""
POLL = 0.005

Line = dict[str, Any]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class RunOver(Exception):  # noqa: N818
    """The run has ended before what was waited for came."""


class DisturbedRun:
    """``dtp-dist train`` (or ``resume``) under way; its lines of metrics are read as they come.

    ``step`` is that of the last line, ``progressed`` when a minibatch was last seen to be done,
    ``processes`` are the stages' ids, ``lost`` the events of lost stages, ``broken`` lines that are none.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.step, self.progressed = 0, 0.0
        self._metrics, self._read = run_dir / "metrics.jsonl", 0
        self._log = run_dir.with_name(f"{run_dir.name}.log")
        self.processes: list[int] = []
        self.lost: list[Line] = []
        self.broken: list[bytes] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def driver(self) -> int:
        """The driver's process id."""
        assert self._process is not None
        return self._process.pid

    def forget(self) -> None:
        """Remove the run's folder: it is trained anew."""
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.step, self._read = 0, 0
        self.lost, self.broken = [], []

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        """Start the driver with the arguments of ``dtp-dist``."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dtp_dist", *arguments],
                env={**os.environ, **(env or {})},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal(self, stage: int, number: signal.Signals) -> float:
        """Send a signal to the process of a stage, which is on this machine; return when."""
        os.kill(self.processes[stage], number)
        return time.monotonic()

    def wait_for(self, true: Callable[[Line], bool], what: str) -> tuple[Line, float]:
        """Return the next line of metrics for which ``true``, and when it was seen.

        Raises:
            RunOver: the run has ended.
            TimeoutError: none came within ``LIMIT`` seconds.
        """
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            over = self._process is None or self._process.poll() is not None
            while line := self._next():
                if true(line):
                    return line, time.monotonic()
            if over:
                raise RunOver(what)
            time.sleep(POLL)
        raise TimeoutError(f"{what}: not within {LIMIT:g} s; see {self._log}")

    def wait_for_event(self, name: str) -> tuple[Line, float]:
        """Return the next event of that name, and when it was seen; raises as ``wait_for``."""
        return self.wait_for(lambda line: line.get("event") == name, f"event {name!r}")

    def wait_for_step(self, step: int) -> float:
        """Wait until minibatch ``step`` (counted from 1) or a later one is done; raises as ``wait_for``."""
        return self.wait_for(lambda line: "event" not in line and line["step"] >= step, f"step {step}")[1]

    def ended(self, seconds: float) -> int | None:
        """Return the driver's exit code, None if it goes on for so long."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def wait_until_back(self, event: str) -> tuple[int, float]:
        """Wait for ``event`` (recovered, resumed) and the minibatch after its checkpoint.

        Returns that checkpoint's step and when the minibatch was seen to be done; raises as ``wait_for``.
        """
        step = int(self.wait_for_event(event)[0]["step"])
        return step, self.wait_for_step(step + 1)

    def kill_driver(self, limit: float) -> float:
        """Kill the driver with SIGKILL; return the seconds until nothing of it was left.

        Raises:
            TimeoutError: something is left after ``limit`` seconds.
        """
        assert self._process is not None
        under = psutil.Process(self._process.pid).children(recursive=True)
        start = time.monotonic()
        self._process.kill()
        self._process.wait()
        while left := [each for each in under if _lives(each)]:
            if time.monotonic() - start > limit:
                raise TimeoutError(f"{limit:g} s after the driver was killed there are still {left}")
            time.sleep(POLL)
        return time.monotonic() - start

    def wait_for_end(self) -> int:
        """Return the exit code of the driver, killed if it does not end within ``LIMIT`` seconds."""
        assert self._process is not None
        try:
            return self._process.wait(LIMIT)
        finally:
            self.stop()

    def stop(self) -> None:
        """End the driver, and thereby its stages."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        """Return all that the driver wrote."""
        return self._log.read_text(errors="replace")

    def said(self) -> str:
        """Return the last line that the driver wrote."""
        lines = self.log().splitlines()
        return lines[-1] if lines else "nothing"

    def _next(self) -> Line | None:
        """Return the next whole line, if there is one."""
        if not self._metrics.exists():
            return None
        with self._metrics.open("rb") as file:
            file.seek(self._read)
            text = file.readline()
        if not text.endswith(b"\n"):
            return None
        self._read += len(text)
        try:
            line: Line = json.loads(text)
        except ValueError:  # the half line of a killed driver, and nothing else, is no loss
            if text.endswith(b"}\n"):
                self.broken.append(text)
            return self._next()
        self.step = int(line["step"])
        if "event" not in line:
            self.progressed = time.monotonic()
        elif line["event"] == "started":
            self.processes = line["processes"]
        elif line["event"] == "stage lost":
            self.lost.append(line)
        return line
