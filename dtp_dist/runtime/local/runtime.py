"""One process a stage on this machine: starts them, watches them, and leaves nothing behind."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from dtp_dist import import_path
from dtp_dist.config import Config, to_dict
from dtp_dist.runtime.base import OnReport, Say
from dtp_dist.runtime.local.control_line import ControlLine, control_pair
from dtp_dist.runtime.processes import Heard, ProcessRuntime, thread_variables
from dtp_dist.runtime.stage.handshake import LocalSetup, Place, StageSetup
from dtp_dist.runtime.status_board import StatusBoard, new_board
from dtp_dist.system import remains
from dtp_dist.system.interruption import held
from dtp_dist.system.process import ending, signal_with_parent
from dtp_dist.system.short_paths import link_folder
from dtp_dist.transport.table import chosen_transport

END_GRACE = 3.0
KILL_GRACE = 10.0
"""Seconds that the system may take to end the killed processes, all together."""

START = import_path.program_of("dtp_dist.runtime.local", "process")
"""What a stage's process runs."""


class LocalRuntime(ProcessRuntime):
    """Processes on this machine; activations and targets go from stage to stage by a transport."""

    def __init__(
        self,
        config: Config,
        on_report: OnReport,
        generation: int = 0,
        say: Say = lambda text: None,
    ) -> None:
        self._boards: list[StatusBoard] = []
        super().__init__(config, on_report, generation)
        transport = chosen_transport(config.parallel.transport)
        self._sockets = link_folder()
        self._place = Place(transport.scheme, self._sockets if transport.in_folder else "")
        self._run_id = os.urandom(16)
        self._lines: list[ControlLine] = []
        self._said: queue.SimpleQueue[tuple[int, tuple[str, Any] | None]] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start_or_close(self._start, say)

    def _start(self) -> None:
        for stage in range(self.layout.stages):
            self._spawn(stage)
        self._gather("to start", self._start_limit)
        self._supervisor.started()
        os.mkdir(self._sockets, mode=0o700)  # now that every stage is there to remove it
        self._link_up()
        shutil.rmtree(self._sockets, ignore_errors=True)  # connected sockets need no names
        self._call("seal", limit=self._start_limit)

    def _spawn(self, stage: int) -> None:
        limit = self._config.parallel.start_timeout
        line, theirs = control_pair(lambda said: self._said.put((stage, said)), limit)
        board = new_board()
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, str(theirs.fileno()), import_path.PACKAGE],
            pass_fds=[theirs.fileno(), board],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the parent's to handle
            preexec_fn=partial(signal_with_parent, os.getpid(), signal.SIGKILL),  # before it can be stopped
            env=import_path.stage_environment() | thread_variables(self._config),
        )
        theirs.close()
        self._boards.append(StatusBoard(board))
        self._lines.append(line)
        self._processes.append(process)
        setup = StageSetup(to_dict(self._config), stage, self._run_id, self._generation, self._place)
        path = import_path.stage_path()
        beat = self._supervisor.heartbeat
        self._send(stage, LocalSetup(setup, self._sockets, board, beat, os.getpid(), path))

    def processes(self) -> list[int]:
        return [process.pid for process in self._processes]

    @held()
    def close(self) -> None:
        for process in self._processes:
            process.kill()  # frozen or not; there is nothing that a stage would have to finish
        end = time.monotonic() + KILL_GRACE
        for stage, process in enumerate(self._processes):
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                remains.add(process, f"stage {stage}")
        for line in self._lines:
            line.close()
        for board in self._boards:
            board.close()
        self._lines, self._processes, self._boards = [], [], []
        shutil.rmtree(self._sockets, ignore_errors=True)
        super().close()

    def _ask(self, stage: int, method: str, arguments: tuple[Any, ...]) -> None:
        self._send(stage, (method, arguments))

    def _send(self, stage: int, what: Any) -> None:
        try:
            self._lines[stage].send(what)
        except BlockingIOError:
            raise self._supervisor.died(stage, "its process does not read what is asked of it") from None
        except OSError:
            raise self._supervisor.died(stage, self._how_ended(stage)) from None

    def _listen(self, seconds: float) -> Iterator[Heard]:
        try:
            said = self._said.get(timeout=seconds)
            while True:
                yield self._understand(*said)
                said = self._said.get_nowait()
        except queue.Empty:
            return

    def _understand(self, stage: int, said: tuple[str, Any] | None) -> Heard:
        return Heard(stage, "ended", self._how_ended(stage)) if said is None else Heard(stage, *said)

    def _doing(self, stage: int) -> str:
        return self._boards[stage].read()

    def _how_ended(self, stage: int) -> str:
        try:
            return ending(self._processes[stage].wait(END_GRACE))
        except subprocess.TimeoutExpired:
            return "its control connection closed"
