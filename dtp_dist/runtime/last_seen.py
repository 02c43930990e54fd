"""One line of shared memory a stage: what its process was doing, readable whatever became of the process."""

from __future__ import annotations

import mmap
import os
import tempfile

from dtp_dist.runtime.timeline import in_words

_NAME_BYTES = 24
SIZE = _NAME_BYTES + 8


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
            packed = self._names[name] = name.encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        self._memory[:SIZE] = packed + minibatch.to_bytes(8, "little", signed=True)

    def read(self) -> str:
        """Return it in words, "" if nothing was written."""
        name = self._memory[:_NAME_BYTES].rstrip(b"\0").decode(errors="replace")
        minibatch = int.from_bytes(self._memory[_NAME_BYTES:SIZE], "little", signed=True)
        return in_words("idle" if name == "idle" else "", name, minibatch) if name else ""

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
