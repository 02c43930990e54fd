"""One line of shared memory a stage: what its process was doing, readable whatever became of the process."""

from __future__ import annotations

import mmap
import os
import tempfile

SIZE = 128


def new_board() -> int:
    """Return a descriptor of fresh shared memory for one ``LastSeen``."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("dtp-dist-last-seen")
    else:
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
    os.write(descriptor, bytes(SIZE))
    return descriptor


class LastSeen:
    """The line in a board; written by the stage's process at every action, read by its parent."""

    def __init__(self, descriptor: int) -> None:
        """Take over ``descriptor``."""
        self._memory = mmap.mmap(descriptor, SIZE)
        os.close(descriptor)

    def write(self, words: str) -> None:
        """Replace the line, which costs about a microsecond."""
        self._memory[:] = words.encode()[:SIZE].ljust(SIZE, b"\0")

    def read(self) -> str:
        """Return the line, "" if none was written."""
        return self._memory[:].rstrip(b"\0").decode(errors="replace")

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
