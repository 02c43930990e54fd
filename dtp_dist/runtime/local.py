"""One process a stage on this machine: starts them, watches them, and leaves nothing behind."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from dtp_dist.config import Config, to_dict
from dtp_dist.data import Batches
from dtp_dist.runtime.base import OnReport
from dtp_dist.runtime.last_seen import LastSeen, new_board
from dtp_dist.runtime.local_stage import LocalSetup
from dtp_dist.runtime.setup import StageSetup
from dtp_dist.runtime.supervised import Heard, SupervisedRuntime, host_endpoint, thread_variables

END_GRACE = 3.0


class LocalRuntime(SupervisedRuntime):
    """Processes on this machine; activations and targets go from stage to stage over ZeroMQ."""

    def __init__(
        self, config: Config, batches: Mapping[str, Batches], on_report: OnReport, generation: int = 0
    ) -> None:
        del batches  # the first stage reads the data itself
        self._boards: list[LastSeen] = []
        super().__init__(config, on_report, generation)
        self._sockets = os.path.join(tempfile.gettempdir(), f"dtp-dist-{secrets.token_hex(8)}")
        self._run_id = os.urandom(16)
        self._connections: list[Connection] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        for stage in range(self.layout.stages):
            self._spawn(stage)
        self._gather("to start", self._config.parallel.start_timeout)
        os.mkdir(self._sockets, mode=0o700)  # now that every stage is there to remove it
        self._link_up()
        shutil.rmtree(self._sockets, ignore_errors=True)  # connected sockets need no names
        self._call("seal")

    def _spawn(self, stage: int) -> None:
        mine, theirs = Pipe()
        board = new_board()
        process = subprocess.Popen(
            [sys.executable, "-m", "dtp_dist.runtime.local_stage", str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno(), board],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the parent's to handle
            env={
                **os.environ,
                **thread_variables(self._config),
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        )
        theirs.close()
        self._boards.append(LastSeen(board))
        self._connections.append(mine)
        self._processes.append(process)
        endpoint = host_endpoint(self._config.parallel.transport, self._sockets)
        setup = StageSetup(to_dict(self._config), stage, self._run_id, self._generation, endpoint)
        mine.send(
            LocalSetup(setup, self._sockets, board, self._supervisor.heartbeat, os.getpid(), list(sys.path))
        )

    def processes(self) -> list[int]:
        return [process.pid for process in self._processes]

    def close(self) -> None:
        for process in self._processes:
            process.kill()  # frozen or not; there is nothing that a stage would have to finish
        for process in self._processes:
            process.wait()
        for connection in self._connections:
            connection.close()
        for board in self._boards:
            board.close()
        self._connections, self._processes, self._boards = [], [], []
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _ask(self, stage: int, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            self._connections[stage].send((method, arguments))
        except OSError:
            raise self._supervisor.died(stage, self._how_ended(stage)) from None

    def _listen(self, seconds: float) -> Iterator[Heard]:
        stages = {id(connection): stage for stage, connection in enumerate(self._connections)}
        for ready in wait(self._connections, seconds):
            stage = stages[id(ready)]
            try:
                kind, value = self._connections[stage].recv()
            except (EOFError, OSError):
                kind, value = "ended", self._how_ended(stage)
            yield Heard(stage, kind, value)

    def _last_seen(self, stage: int) -> str:
        return self._boards[stage].read()

    def _how_ended(self, stage: int) -> str:
        try:
            code = self._processes[stage].wait(END_GRACE)
        except subprocess.TimeoutExpired:
            return "its control connection closed"
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"
