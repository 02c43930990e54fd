"""Files that are there whole or not at all, and the errors of those that can't be written or read."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from dtp_dist.errors import StorageError
from dtp_dist.storage.run_files import PARTIAL


def write_file(path: Path, data: bytes) -> None:
    """Write and sync a file, which appears under its name only when it is whole.

    Until then it has a name that nobody can predict, so that nothing planted there is written to, and
    after a failure nothing is left of it.

    Raises:
        StorageError: it can't be written (no space, no right).
    """
    partial = path.with_name(f".dtp_dist-{secrets.token_hex(8)}{PARTIAL}")
    try:
        try:
            _write_new(partial, data)
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from None


def _write_new(path: Path, data: bytes) -> None:
    """Write and sync a file that is not there yet, nor a link in its place."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def unwritable(path: Path, error: OSError, how: str = "written") -> StorageError:
    """Return the error for a file that can't be written, with what to do."""
    text = f"{remedy(error)}, then type the same command again, or for a run dtp-dist resume"
    return StorageError(f"{path}: can't be {how} ({error.strerror}); {text}")


def unreadable(path: Path, error: OSError) -> StorageError:
    """Return the error for a file that can't be read."""
    return StorageError(f"{path}: can't be read ({error.strerror})")


def remedy(error: OSError) -> str:
    """Return what to do about something that can't be written or made."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "make room" if full else "see to it that it can be"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
