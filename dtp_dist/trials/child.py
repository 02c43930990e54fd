"""A process that trains trials, as the parent sees it that starts it."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from dtp_dist import import_path
from dtp_dist.system.process import signal_with_parent
from dtp_dist.trials.trial import Trial
from dtp_dist.trials.worker import job_of

START = import_path.program_of("dtp_dist.trials", "process")
READ_BYTES = 1 << 16


class Child:
    """A process that trains one trial after another, as its parent sees it.

    Attributes:
        trial: what it trains.
        begun: whether it has begun with that.
        due: when it must have, of ``time.monotonic``.
        line: to it and from it.
        process: itself.
    """

    def __init__(self, log: io.FileIO, variables: dict[str, str]) -> None:
        self.trial: Trial | None = None
        self.begun, self.due = False, 0.0
        self.line, theirs = socket.socketpair()
        self._heard = b""
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, str(theirs.fileno()), import_path.PACKAGE],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the parent's to handle
                preexec_fn=partial(signal_with_parent, os.getpid(), signal.SIGTERM),
                env=import_path.stage_environment() | variables,
            )

    def begin(self, trial: Trial) -> None:
        """Let it train a trial; that it is gone, or does not read, shows when it is listened to."""
        limit = trial.config.parallel.start_timeout
        self.trial, self.begun, self.due = trial, False, time.monotonic() + limit
        job = asdict(replace(job_of(trial), past=False))
        self.line.settimeout(limit)
        with suppress(OSError):
            self.line.sendall(json.dumps(job, default=str).encode() + b"\n")

    def listen(self) -> list[dict[str, Any]]:
        """Return what it has said since, which is there to be read.

        Raises:
            EOFError: it is gone.
        """
        try:
            data = self.line.recv(READ_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError
        *lines, self._heard = (self._heard + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def leave(self) -> None:
        """Let it end by itself once it has nothing more to train."""
        self.line.close()
