"""A ring of slots in memory that two processes share."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

from dtp_dist.transport.messages import MAX_PAYLOADS

__all__ = ["Ring"]

_ALIGNMENT = 64  # bytes; what the processor's wide loads like


class Ring:
    """The slots of one link, in memory that both processes see."""

    def __init__(self, descriptor: int, slots: int, max_bytes: int) -> None:
        self._stride = _stride(max_bytes)
        self._slots = slots
        self._memory = memoryview(mmap.mmap(descriptor, slots * self._stride))

    @staticmethod
    def size(slots: int, max_bytes: int) -> int:
        """Return the bytes that a ring takes; those that are never written cost nothing."""
        return slots * _stride(max_bytes)

    def places(self, sequence: int, sizes: Sequence[int]) -> list[memoryview]:
        """Return the memory of each payload of message ``sequence``, in all at most ``max_bytes``."""
        start = sequence % self._slots * self._stride
        found = []
        for size in sizes:
            found.append(self._memory[start : start + size])
            start += -(-size // _ALIGNMENT) * _ALIGNMENT
        return found


def _stride(max_bytes: int) -> int:
    """Return the size of a slot: whole pages, with room to align each payload (HELLO has none)."""
    return -(-(max_bytes + _ALIGNMENT * MAX_PAYLOADS) // mmap.PAGESIZE) * mmap.PAGESIZE
