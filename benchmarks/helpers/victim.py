"""A run to be disturbed with all that belongs to it: its environment, its processes, what it may leave."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from helpers.disturbed import DisturbedRun, RunOver

DISTURB = Path(__file__).resolve().parent / "disturb"
MARK = "SOAK_RUN"
ORPHAN_LIMIT, END_LIMIT, POLL = 30.0, 60.0, 0.1
RAYS_OWN = "ray"  # Ray keeps the logs of its sessions there
STORM = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class NotStarted(Exception):  # noqa: N818
    """The driver ended before its stages were there; says its last line."""


class Victim:
    """A run under way, and the random choices made for it.

    Args:
        folder: of this run alone.
        train: the arguments of ``dtp-dist train`` but for ``run_dir``.
        cuts: what is cut in the first stages, by ``DTP_DIST_FAULT``.
        others: another run's checkpoints.
    """

    def __init__(
        self, folder: Path, train: Sequence[str], cuts: str, others: Path, rng: random.Random
    ) -> None:
        folder.mkdir()
        self.run, self.rng, self.others = DisturbedRun(folder / "run"), rng, others
        self.tokens, self.scratch = folder / "tokens", folder / "tmp"
        for made in (self.tokens, self.scratch):
            made.mkdir()
        self.expected = 0  # stages that were lost on purpose
        self._train, self._mark = [*train, f"run_dir={self.run.run_dir}"], str(folder)
        self._env = {
            MARK: self._mark,
            "DTP_DIST_FAULT": cuts,
            "SOAK_TOKENS": str(self.tokens),
            "TMPDIR": str(self.scratch),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(DISTURB), os.environ.get("PYTHONPATH", "")])),
        }
        self.running = False

    def launch(self) -> None:
        """Start the driver: ``train``, or ``resume`` where there is something of the run."""
        again = (self.run.run_dir / "config.yaml").exists()
        self.run.start(
            *(["resume", str(self.run.run_dir)] if again else ["train", *self._train]), env=self._env
        )
        self.running = True

    def begin(self) -> None:
        """Launch and wait until the stages are there.

        Raises:
            NotStarted: it ended before.
        """
        self.launch()
        try:
            self.run.wait_for_event("started")
        except RunOver:
            self.running = False
            raise NotStarted(self.run.said()) from None

    def processes(self) -> list[psutil.Process]:
        """Return all that live and belong to this run, whoever their parent is; the driver first."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return sorted(found, key=lambda each: each.pid != self.run.driver)

    def left(self) -> str:
        """Return what is left ``ORPHAN_LIMIT`` seconds after the driver's end, in words; "" for nothing."""
        end = time.monotonic() + ORPHAN_LIMIT
        while found := self.processes():
            if time.monotonic() > end:
                names = [" ".join(each.cmdline()[:4]) for each in found if each.is_running()]
                for each in found:
                    each.kill()
                return f"processes {names}"
            time.sleep(POLL)
        files = sorted(path.name for path in self.scratch.iterdir())
        for name in files:
            shutil.rmtree(self.scratch / name, ignore_errors=True)
        files = [name for name in files if name != RAYS_OWN]
        return f"files {files}" if files else ""

    def kill(self) -> str:
        """Kill the driver with SIGKILL; return what is left of it."""
        os.kill(self.run.driver, signal.SIGKILL)
        self.run.ended(END_LIMIT)
        self.running = False
        return self.left()

    def storm(self) -> str:
        """Send the driver several signals within a second; return their names."""
        sent = [self.rng.choice(STORM) for _ in range(self.rng.randint(2, 5))]
        for number in sent:
            if self.run.ended(0) is None:
                os.kill(self.run.driver, number)
            time.sleep(self.rng.uniform(0, 0.9 / len(sent)))
        return " ".join(number.name[3:] for number in sent)

    def resume(self) -> str:
        """Go on with a run that was ended; return "" or why that was refused, having trained anew then."""
        try:
            self.begin()
        except NotStarted as error:
            refused = str(error)
            self.run.forget()
            self.expected = 0
            self.begin()
            return refused
        return ""

    def alarms(self) -> str:
        """Return what the run said of stages that were lost although nobody touched them; "" for nothing."""
        new = self.run.lost[self.expected :]
        self.expected = len(self.run.lost)
        return "; ".join(str(line.get("message")) for line in new)

    def close(self) -> None:
        """End what lives of it."""
        for process in self.processes():
            process.kill()
        self.run.stop()
