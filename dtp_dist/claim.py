"""Folders that one process at a time writes to."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from dtp_dist.errors import CheckpointError


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder for this caller alone; the system lets go of it when the process ends, however it ends.

    It is an advisory lock (flock) on the folder itself: reading goes on, and nothing is left behind. On a
    file system that has no such locks, as some that are mounted from elsewhere, nothing is held.

    Raises:
        CheckpointError: the folder is held already, or can't be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CheckpointError(f"{folder}: can't be opened ({error.strerror})") from None
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = "another process is at work in it; wait until that has ended, or name another folder"
        raise CheckpointError(f"{folder}: {text}") from None
    except OSError:  # no locks here
        return
