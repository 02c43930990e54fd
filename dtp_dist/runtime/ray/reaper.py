"""Ends what a private Ray leaves when its driver is killed; ``cluster.py`` runs this file as a script.

The kernel ends Ray's servers with the driver, but their agents then try for a minute to report that to a
server that is gone, and a frozen stage would stay for ever. Needs /proc; elsewhere it finds nothing to end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

MARK = "DTP_DIST_PRIVATE_RAY"
"""Environment variable that all processes of one private Ray carry."""

GRACE = 4.0
LIMIT = 15.0


def marked(mark: str) -> list[int]:
    """Return the living processes that were started with ``MARK=mark`` in their environment."""
    entry, found = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if entry in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def main() -> None:
    """Wait for the parent's end, then see to it that what it marked ends too."""
    mark, parent = sys.argv[1], int(sys.argv[2])
    while os.getppid() == parent:
        time.sleep(0.5)
    start = time.monotonic()
    while (left := marked(mark)) and (waited := time.monotonic() - start) < LIMIT:
        for pid in left if waited > GRACE else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)


if __name__ == "__main__":
    main()
