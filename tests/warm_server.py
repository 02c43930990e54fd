"""Forks the command line from a process that has imported it already; started by ``warm.py`` with: FD.

Each request is one message of JSON (arguments, folder, environment, ignored signals) with two descriptors,
for stdout and stderr; one for a stage says which numbers those that follow must have. The answer is the
process's id; when it ends, another has the id and its return code.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import io
import json
import os
import pkgutil
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import dtp_dist
from dtp_dist.cli import main as command_line
from dtp_dist.runtime.local.process import main as stage
from dtp_dist.runtime.stage import service

REQUEST = 1 << 20
DESCRIPTORS = 8
ASIDE = 500
"""A number of a descriptor that nobody asks for."""
OTHERS = ("ray", "tune")  # what imports Ray


def preload() -> None:
    """Import all of the package but what needs Ray, and freeze it, so that forks share its memory."""
    for found in pkgutil.walk_packages(dtp_dist.__path__, "dtp_dist."):
        parts = found.name.split(".")
        if not set(parts) & {*OTHERS, "__main__", "reaper"}:
            importlib.import_module(found.name)
    gc.collect()
    gc.freeze()


def become(request: dict[str, Any], outputs: list[int]) -> None:
    """Make of this fork what ``python -m dtp_dist`` would be at its start."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    for descriptor, output in zip((1, 2), outputs, strict=True):
        os.dup2(output, descriptor)
        os.close(output)
    sys.stdout, sys.stderr = text_output(1), text_output(2)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None
    main = Path(dtp_dist.__file__).with_name("__main__.py")
    sys.argv = [str(main), *request["arguments"]]
    sys.orig_argv = [sys.executable, "-m", "dtp_dist", *request["arguments"]]


def place(found: list[int], numbers: list[int]) -> None:
    """Give descriptors the numbers that they had where they come from."""
    aside = [fcntl.fcntl(each, fcntl.F_DUPFD, ASIDE) for each in found]
    for each in found:
        os.close(each)
    for each, number in zip(aside, numbers, strict=True):
        os.dup2(each, number)
        os.close(each)


def become_stage(request: dict[str, Any]) -> None:
    """Be a stage's process, which ends with its connection: its parent is the process that forks."""
    os.setsid()
    service.signal_with_parent = lambda *_: None
    sys.argv = request["arguments"]
    stage()


def text_output(descriptor: int) -> io.TextIOWrapper:
    binary = io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
    return io.TextIOWrapper(binary, encoding="utf-8", line_buffering=descriptor == 2)


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))

    def reap(*_: object) -> None:
        """Say which processes have ended; another call may come in the middle, and takes the next ones."""
        with suppress(ChildProcessError):  # there is none any more
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                line.sendall(json.dumps([ended[0], os.waitstatus_to_exitcode(ended[1])]).encode())

    signal.signal(signal.SIGINT, signal.default_int_handler)
    preload()
    signal.signal(signal.SIGCHLD, reap)
    while True:
        data, found, _, _ = socket.recv_fds(line, REQUEST, DESCRIPTORS)
        if not data:
            return
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        if pid := os.fork():
            line.sendall(json.dumps([pid, None]).encode())
            for each in found:
                os.close(each)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            continue
        line.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        request = json.loads(data)
        become(request, found[:2])
        if "stage" in request:
            place(found[2:], request["stage"])
            become_stage(request)
        command_line()


if __name__ == "__main__":
    main()
