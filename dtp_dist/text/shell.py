"""Commands as a person can type them from where they are."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def typed(program: str, *words: object) -> str:
    """Return the command that starts a program of this installation, quoted for a shell.

    It goes by its name where the shell finds it by that, else by its path.

    Args:
        program: ``dtp-dist`` or another script that is installed next to Python.
        words: its arguments.
    """
    return shlex.join([*_start(program), *map(str, words)])


def _start(program: str) -> list[str]:
    mine, found = Path(sys.executable).with_name(program), shutil.which(program)
    if found is not None and (not mine.exists() or os.path.samefile(found, mine)):
        return [program]
    if mine.exists():
        return [_from_here(mine)]
    return [_from_here(Path(sys.executable)), "-m", "dtp_dist"] if program == "dtp-dist" else [program]


def _from_here(path: Path) -> str:
    """Return the path as it is from the working directory if it lies below that."""
    below = os.path.relpath(path)
    return str(path) if below.startswith(os.pardir) else below
