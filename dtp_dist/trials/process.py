"""The process that trains trials one after another, which ``child.py`` starts with ``main``: FD.

FD is a socket. A job is a line of JSON that comes; that a trial has begun, what it reaches and that it is
over are lines of JSON that go. When the other end is gone, the process ends in good order.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

from dtp_dist.system.garbage import importing
from dtp_dist.system.interruption import finish, take_signals
from dtp_dist.system.output import take_output

BEGUN, ENDED = "begun", "ended"
"""The keys of the lines that say that a trial begins, all being imported, and that it is over."""


def main() -> None:
    """Train what comes until nothing more does."""
    take_signals()
    take_output(optional=True)
    try:
        with socket.socket(fileno=int(sys.argv[1])) as line, line.makefile(encoding="utf-8") as jobs:
            for job in jobs:
                _train(json.loads(job), line)
    except (KeyboardInterrupt, SystemExit, ConnectionError):
        finish()
        sys.exit(1)


def _train(told: dict[str, Any], line: socket.socket) -> None:
    sys.path[:] = told["path"]
    with importing():
        from dtp_dist.trials.worker import Job, run_trial

    def report(values: dict[str, Any]) -> None:
        try:
            line.sendall(json.dumps(values).encode() + b"\n")
        except OSError:
            raise SystemExit(1) from None  # nobody listens any more

    report({BEGUN: True})
    places = {key: Path(told[key]) for key in ("folder", "record")}
    run_trial(Job(**{**told, **places}), report)
    report({ENDED: True})
