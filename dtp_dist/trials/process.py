"""The process that trains trials one after another, which ``pool.py`` starts with ``main``: FD.

A job is a line of JSON on its standard input; what a trial reaches, and that it is over, are lines of JSON on
the descriptor. When the other end of either is gone, the process ends in good order.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from dtp_dist.system.garbage import importing
from dtp_dist.system.interruption import finish, take_signals
from dtp_dist.system.output import take_output

ENDED = "ended"
"""The key of the line that says that a trial is over."""


def main() -> None:
    """Train what comes until nothing more does."""
    descriptor = int(sys.argv[1])
    take_signals()
    take_output(optional=True)
    try:
        for line in sys.stdin:
            _train(json.loads(line), descriptor)
    except (KeyboardInterrupt, SystemExit):
        finish()
        sys.exit(1)


def _train(told: dict[str, Any], descriptor: int) -> None:
    sys.path[:] = told["path"]
    with importing():
        from dtp_dist.trials.worker import Job, run_trial

    def report(values: dict[str, Any]) -> None:
        data = json.dumps(values).encode() + b"\n"
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError:
            raise SystemExit(1) from None  # nobody listens any more

    places = {key: Path(told[key]) for key in ("folder", "record")}
    run_trial(Job(**{**told, **places}), report)
    report({ENDED: True})
