"""Folders that one process at a time writes to."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from dtp_dist.errors import StorageError
from dtp_dist.storage.run_files import PARTIAL

LOCK = ".lock"
"""The file that is locked. It stays: whoever removed it would let two others hold two files of one name."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this caller alone; the system lets go of it when the process ends, however it ends.

    It is an advisory lock (flock) on an empty file ``.lock`` in the folder, opened for writing, as NFS asks
    of it; reading continues. On a file system that has no such locks nothing is held.

    Raises:
        StorageError: the folder is held already, or can't be written to.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(folder / LOCK, flags, 0o666)
    except OSError as error:
        text = f"{error.strerror}); it must be a folder that can be written to"
        raise StorageError(f"{folder}: can't be held ({text}") from None
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but what holding it, or a file that was not finished, has left.

    Raises:
        OSError: it can't be read.
    """
    return all(path.name == LOCK or path.name.endswith(PARTIAL) for path in folder.iterdir())


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = "another process is at work in it; wait until that has ended, or name another folder"
        raise StorageError(f"{folder}: {text}") from None
    except OSError:  # no locks here
        return
