"""The command line, and stages, in processes that start at once: forks of one that has imported all.

From ``dtp_dist.cli.main`` on they are what ``python -m dtp_dist`` is, which takes seconds to get there;
stages from ``main`` of their program on. What is about those seconds (the path, early signals) is tested with
the real ones: ``cold=True`` (runs.py), and stages of which a test does not ask for ``warm_stages``.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ANSWER_BYTES = 200
HEEDED = (signal.SIGHUP, signal.SIGTERM)


class WarmProcess:
    """What the tests use of ``subprocess.Popen``, for a fork of the server; outputs go to files."""

    def __init__(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self._outputs = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2)]  # noqa: SIM115
        self._begin(cwd, env, [each.fileno() for each in self._outputs])

    def _begin(self, cwd: Path, env: Mapping[str, str], descriptors: list[int], **more: Any) -> None:
        """Have it forked, with ``descriptors`` of this process, the first two for its outputs."""
        request = {
            "arguments": self.args,
            "cwd": str(cwd),
            "env": dict(env),
            "ignored": [each for each in HEEDED if signal.getsignal(each) == signal.SIG_IGN],
            **more,
        }
        self._server = server()
        self.pid = self._server.start(json.dumps(request), descriptors)

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ended(self.pid, 0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self._server.ended(self.pid, timeout)
        if self.returncode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end and return what was written on stdout and stderr."""
        self.wait(timeout)
        return self._written(0), self._written(1)

    def _written(self, output: int) -> str:
        self._outputs[output].seek(0)
        return self._outputs[output].read()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended since, and the server is about to say so
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmStage(WarmProcess):
    """A stage's process, given the command that would start it from nothing; it ends with its connection."""

    def __init__(
        self, command: Sequence[str], *, pass_fds: Sequence[int], env: Mapping[str, str], **_: Any
    ) -> None:
        self.args = list(command[3:])  # after python -P -c
        self.returncode = None
        self._begin(Path.cwd(), env, [1, 2, *pass_fds], stage=list(pass_fds))


class Server:
    """The process that forks, one for each process of tests."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)  # a request stays whole
        program = Path(__file__).with_name("warm_server.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(program), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        self._changed = threading.Condition()
        self._started: list[int] = []
        self._codes: dict[int, int] = {}
        self._gone = False
        threading.Thread(target=self._read, name="warm server", daemon=True).start()

    def start(self, request: str, outputs: list[int]) -> int:
        """Return the id of a process that does what is asked."""
        with self._changed:
            socket.send_fds(self._line, [request.encode()], outputs)
            self._changed.wait_for(lambda: self._started or self._gone)
            assert self._started, "the process that forks is gone"
            return self._started.pop()

    def ended(self, pid: int, timeout: float | None) -> int | None:
        """Return the return code of a process, or None if it does not end in time."""
        with self._changed:
            self._changed.wait_for(lambda: pid in self._codes or self._gone, timeout)
            assert pid in self._codes or not self._gone, "the process that forks is gone"
            return self._codes.pop(pid, None)

    def close(self) -> None:
        self._line.shutdown(socket.SHUT_RDWR)
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        try:
            while text := self._line.recv(ANSWER_BYTES):
                pid, code = json.loads(text)
                with self._changed:
                    if code is None:
                        self._started.append(pid)
                    else:
                        self._codes[pid] = code
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._gone = True
                self._changed.notify_all()


@cache
def server() -> Server:
    """Return this process's server, started at the first call and closed at the end."""
    started = Server()
    atexit.register(started.close)
    return started
