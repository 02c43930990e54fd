"""The process of one stage, which ``local.py`` starts with ``main``: FD.

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
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from dtp_dist.runtime.stage.handshake import Failure, LocalSetup
from dtp_dist.system.garbage import importing
from dtp_dist.system.output import take_output

if TYPE_CHECKING:
    from dtp_dist.runtime.stage.service import StageService


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
    descriptor = int(sys.argv[1])
    take_output(optional=True)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as any signal that ends it: a lost stage
    connection = Connection(descriptor)
    try:
        setup: LocalSetup = connection.recv()
    except (EOFError, OSError):
        os._exit(1)  # the parent was stopped before it said anything
    sys.path[:] = setup.path
    control = Control(connection, setup)
    try:
        with importing():
            from dtp_dist.runtime.stage.service import LocalService

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
