"""One line of shared memory a stage: what its process was doing, readable whatever became of the process."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile

from dtp_dist.runtime.stage.timeline import in_words

_BOARD = struct.Struct("<24sq")
SIZE = _BOARD.size


def new_board() -> int:
    """Return a descriptor of fresh shared memory for one ``StatusBoard``."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("dtp-dist-last-seen")
    else:
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
    os.write(descriptor, bytes(SIZE))
    return descriptor


class StatusBoard:
    """What a stage does and with which minibatch, in a board; its process writes, its parent reads."""

    def __init__(self, descriptor: int) -> None:
        """Take over ``descriptor``."""
        self._memory = mmap.mmap(descriptor, SIZE)
        os.close(descriptor)
        self._names: dict[str, bytes] = {}

    def write(self, name: str, minibatch: int) -> None:
        """Replace what is there, which costs less than a microsecond; minibatch -1 means none."""
        packed = self._names.get(name)
        if packed is None:
            packed = self._names[name] = name.encode()
        _BOARD.pack_into(self._memory, 0, packed, minibatch)

    def read(self) -> str:
        """Return it in words, "" if nothing was written."""
        packed, minibatch = _BOARD.unpack_from(self._memory)
        name = packed.rstrip(b"\0").decode(errors="replace")
        return in_words(name, minibatch) if name else ""

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
