"""The process of one stage: ``python -m dtp_dist.runtime.local_stage FD PARENT``, started by ``local.py``.

A control thread answers the parent from the first moment on, long before torch is imported; the main thread
does what the parent asks, one call after another. When the parent is gone, so is this process.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from dtp_dist.runtime.kernel import die_with_parent
from dtp_dist.runtime.setup import Failure, StageSetup

if TYPE_CHECKING:
    from dtp_dist.runtime.service import StageService


@dataclass(frozen=True)
class LocalSetup:
    """What a stage's process is told first: the stage's own setup and what belongs to the process."""

    stage: StageSetup
    sockets: str
    board: int
    heartbeat: float
    parent: int
    path: list[str]


class Control:
    """The thread that reads the parent's calls, sends signs of life, and ends the process with the parent."""

    def __init__(self, connection: Connection, setup: LocalSetup) -> None:
        self.calls: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()
        self.service: StageService | None = None
        self._connection, self._setup = connection, setup
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, name="control", daemon=True).start()

    def send(self, kind: str, value: Any) -> None:
        """Send one message to the parent; end the process if it is gone."""
        try:
            with self._lock:
                self._connection.send((kind, value))
        except OSError:
            self._end()

    def _serve(self) -> None:
        try:
            while True:
                if self._connection.poll(self._setup.heartbeat):
                    self.calls.put(self._connection.recv())
                if self.service is not None:
                    self.send("alive", self.service.status())
                else:
                    self.send("alive", None)
        except (EOFError, OSError):
            self._end()

    def _end(self) -> None:
        shutil.rmtree(self._setup.sockets, ignore_errors=True)
        os._exit(1)


def main() -> None:
    """Serve the parent until it closes the connection."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent(parent, signal.SIGTERM)
    connection = Connection(descriptor)
    try:
        setup: LocalSetup = connection.recv()
    except (EOFError, OSError):
        os._exit(1)  # the parent was stopped before it said anything
    sys.path[:] = setup.path
    control = Control(connection, setup)
    signal.signal(signal.SIGTERM, lambda *_: control._end())
    try:
        from dtp_dist.runtime.service import LocalService

        service = control.service = LocalService(setup, control.send)
        control.send("reply", None)
        while True:
            method, arguments = control.calls.get()
            control.send("reply", getattr(service, method)(*arguments))
    except BaseException as error:
        where = (
            control.service.where() if control.service is not None else f"stage {setup.stage.index}, starting"
        )
        control.send("failed", Failure(type(error).__name__, str(error), traceback.format_exc(), where))
        threading.Event().wait(60)  # the parent ends this process once it has read the failure
        control._end()


if __name__ == "__main__":
    from dtp_dist.runtime import local_stage

    local_stage.main()  # not this copy of the module: the parent could not unpickle a failure of __main__'s
