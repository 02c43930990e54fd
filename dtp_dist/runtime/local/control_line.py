"""The driver's end of its connection to a stage's process: read in a thread, written within a time limit."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any

JOIN_SECONDS = 2.0


class ControlLine:
    """Reads all that a stage says as it comes, so that a half-sent message can't hold up whoever listens."""

    def __init__(self, connection: Connection, said: Callable[[Any], None]) -> None:
        """Begin to read; ``said`` is called with each message, and with None at the end, in the thread."""
        self._connection, self._said = connection, said
        self._thread = threading.Thread(target=self._read, name="control line", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while True:
                self._said(self._connection.recv())
        except Exception:  # it was closed, or what came is no message
            self._said(None)

    def send(self, what: Any) -> None:
        """Send one message.

        Raises:
            BlockingIOError: it is not read in time.
            OSError: the process is gone.
        """
        self._connection.send(what)

    def close(self) -> None:
        """Close it, whoever else holds the other end; a second call does nothing."""
        if self._connection.closed:
            return
        with socket.socket(fileno=self._connection.fileno()) as end:
            with contextlib.suppress(OSError):  # the other end was closed
                end.shutdown(socket.SHUT_RDWR)  # ends the thread's read
            self._thread.join(JOIN_SECONDS)
            end.detach()
        self._connection.close()


def control_pair(said: Callable[[Any], None], limit: float) -> tuple[ControlLine, Connection]:
    """Return the driver's end, and the stage's to pass on; what is sent must be read within ``limit`` s."""
    mine, theirs = Pipe()
    with socket.socket(fileno=mine.fileno()) as end:
        seconds, rest = divmod(limit, 1)
        end.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), int(rest * 1e6))
        )
        end.detach()
    return ControlLine(mine, said), theirs
