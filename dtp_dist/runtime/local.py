"""One process a stage on this machine: starts them, watches them, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from dtp_dist import errors
from dtp_dist.checkpoint import FileEntry
from dtp_dist.config import Config, to_dict
from dtp_dist.data import Batches
from dtp_dist.errors import DtpDistError, StageError
from dtp_dist.messages import MessageKind
from dtp_dist.runtime.base import OnReport, Runtime
from dtp_dist.runtime.last_seen import LastSeen, new_board
from dtp_dist.runtime.layout import layout_of
from dtp_dist.runtime.local_stage import Failure, StageSetup
from dtp_dist.runtime.segment import Segment, SegmentResult, Span
from dtp_dist.runtime.supervision import Supervisor

POLL, END_GRACE = 0.2, 3.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class LocalRuntime(Runtime):
    """Processes on this machine; activations and targets go from stage to stage over ZeroMQ."""

    def __init__(
        self, config: Config, batches: Mapping[str, Batches], on_report: OnReport, generation: int = 0
    ) -> None:
        del batches  # the first stage reads the data itself
        self.layout = layout_of(config)
        self._config, self._on_report, self._generation = config, on_report, generation
        self._boards: list[LastSeen] = []
        self._supervisor = Supervisor(
            self.layout,
            config.parallel.failure_timeout,
            config.parallel.action_timeout,
            last_seen=lambda stage: self._boards[stage].read(),
        )
        self._sockets = tempfile.mkdtemp(prefix="dtp-dist-")  # mode 0700
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
        limit = self._config.parallel.start_timeout
        self._gather("to start", limit)
        endpoints: list[dict[MessageKind, str]] = self._call("bind", limit=limit)
        above = [each.get(MessageKind.ACTIVATION) for each in endpoints[1:]] + [None]
        below = [None] + [each.get(MessageKind.TARGET) for each in endpoints[:-1]]
        self._call("connect", *zip(above, below, strict=True), limit=limit)
        shutil.rmtree(self._sockets, ignore_errors=True)  # connected sockets need no names
        self._call("seal")

    def _spawn(self, stage: int) -> None:
        mine, theirs = Pipe()
        board = new_board()
        threads = str(self._config.parallel.threads)
        process = subprocess.Popen(
            [sys.executable, "-m", "dtp_dist.runtime.local_stage", str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno(), board],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the parent's to handle
            env={
                **os.environ,
                **dict.fromkeys(THREAD_VARIABLES, threads),
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        )
        theirs.close()
        self._boards.append(LastSeen(board))
        self._connections.append(mine)
        self._processes.append(process)
        mine.send(
            StageSetup(
                config=to_dict(self._config),
                index=stage,
                run_id=self._run_id,
                generation=self._generation,
                sockets=self._sockets,
                board=board,
                heartbeat=self._supervisor.heartbeat,
                parent=os.getpid(),
                path=list(sys.path),
            )
        )

    def run(self, segment: Segment) -> SegmentResult:
        start = time.perf_counter()
        summaries = self._call("run", *[(segment,)] * self.layout.stages)
        return SegmentResult(time.perf_counter() - start, summaries)

    def save(self, directory: Path) -> list[FileEntry]:
        written: list[list[FileEntry]] = self._call("save", *[(str(directory),)] * self.layout.stages)
        return [entry for entries in written for entry in entries]

    def load(self, directory: Path) -> None:
        self._call("load", *[(str(directory),)] * self.layout.stages)

    def spans(self) -> list[list[Span]]:
        return self._call("spans")

    def processes(self) -> list[int]:
        return [process.pid for process in self._processes]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()  # a stage ends by itself when its connection does
        deadline = time.monotonic() + END_GRACE
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for board in self._boards:
            board.close()
        self._connections, self._processes, self._boards = [], [], []
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _call(self, method: str, *arguments: tuple[Any, ...], limit: float | None = None) -> list[Any]:
        """Ask every stage for the same method, each with its own arguments; return their replies."""
        for stage, connection in enumerate(self._connections):
            try:
                connection.send((method, arguments[stage] if arguments else ()))
            except OSError:
                raise self._supervisor.died(stage, self._how_ended(stage)) from None
        return self._gather(f"to {method}", limit)

    def _gather(self, purpose: str, limit: float | None) -> list[Any]:
        """Return one reply of every stage, watching them all meanwhile.

        Raises:
            StageError: a stage dies, freezes, raises, or ``limit`` seconds pass.
        """
        replies: dict[int, Any] = {}
        start = time.monotonic()
        stages = {id(connection): stage for stage, connection in enumerate(self._connections)}
        while len(replies) < self.layout.stages:
            for ready in wait(self._connections, POLL):
                stage = stages[id(ready)]
                self._take(stage, replies)
            owing = [stage for stage in range(self.layout.stages) if stage not in replies]
            self._supervisor.check(owing)
            if limit is not None and time.monotonic() - start > limit and owing:
                text = f"did not come {purpose} within {limit:g} s (parallel.start_timeout)"
                raise StageError(f"{self._supervisor.where(owing[0])}: {text}")
        return [replies[stage] for stage in range(self.layout.stages)]

    def _take(self, stage: int, replies: dict[int, Any]) -> None:
        try:
            kind, value = self._connections[stage].recv()
        except (EOFError, OSError):
            raise self._supervisor.died(stage, self._how_ended(stage)) from None
        self._supervisor.heard(stage, value if kind == "alive" else None)
        if kind == "report":
            self._on_report(value)
        elif kind == "reply":
            replies[stage] = value
        elif kind == "failed":
            raise failure_error(value)

    def _how_ended(self, stage: int) -> str:
        try:
            code = self._processes[stage].wait(END_GRACE)
        except subprocess.TimeoutExpired:
            return "its control connection closed"
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"


def failure_error(failure: Failure) -> DtpDistError:
    """Return a stage's failure as the error to raise here, with its own class where it is one of ours."""
    cls = getattr(errors, failure.kind, None)
    if isinstance(cls, type) and issubclass(cls, DtpDistError):
        error: DtpDistError = cls(failure.message)
    else:
        error = StageError(f"{failure.where}: {failure.kind}: {failure.message}")
    error.add_note(failure.trace)
    return error
