"""Processes that this one started and could not end, so that nobody is told that nothing is left."""

from __future__ import annotations

import subprocess

_LEFT: list[tuple[subprocess.Popen[bytes], str]] = []


def add(process: subprocess.Popen[bytes], what: str) -> None:
    """Note a process that was killed and is still there: the system holds it, as for a disk that hangs."""
    _LEFT.append((process, what))


def still_running() -> str:
    """Return, in words, what is still there, "" if nothing is."""
    left = [f"process {process.pid} ({what})" for process, what in _LEFT if process.poll() is None]
    if not left:
        return ""
    return (
        f"{', '.join(left)} was killed but has not ended: the system holds it; look at the disks that it uses"
    )
