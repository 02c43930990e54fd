"""A slow disk and a cold start for the processes of a run; on their PYTHONPATH this is imported first.

Nothing is slow by itself. Each delay is asked for once by a file in the folder ``SOAK_TOKENS``, and whoever
removes it is the one that pays: ``fsync-PID`` (the next ``os.fsync`` of that process takes as many seconds as
the file says) and ``import-N`` (the next process, the driver's own apart, that imports torch; it holds the
interpreter's lock meanwhile, as unpacking and linking large libraries does).
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

FOLDER, DRIVER = "SOAK_TOKENS", "SOAK_DRIVER"


def taken(path: Path) -> int:
    """Return the seconds that a token asks for and remove it; 0 where there is none."""
    try:
        seconds = int(path.read_text())
        path.unlink()
    except (OSError, ValueError):
        return 0
    return seconds


def hold_the_interpreter(seconds: int) -> None:
    """Sleep without letting go of the interpreter's lock, however many signals come."""
    sleep, left = ctypes.PyDLL(None).sleep, seconds
    while left:
        left = sleep(left)


class ColdImport:
    """What imports torch is held up once, if a token is there; finds no module itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return nothing, later perhaps."""
        if name == "torch":
            for token in sorted(self._folder.glob("import-*")):
                if seconds := taken(token):
                    hold_the_interpreter(seconds)
                    break
        return None


def slow_fsync(folder: Path) -> None:
    """Let ``os.fsync`` look for its token."""
    fsync = os.fsync

    def wait_and_sync(descriptor: Any) -> None:
        time.sleep(taken(folder / f"fsync-{os.getpid()}"))
        fsync(descriptor)

    os.fsync = wait_and_sync


if FOLDER in os.environ:
    tokens = Path(os.environ[FOLDER])
    slow_fsync(tokens)
    if DRIVER in os.environ:
        sys.meta_path.insert(0, ColdImport(tokens))
    else:
        os.environ[DRIVER] = str(os.getpid())
