"""What a process asks of the operating system, and how it ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
_libc = ctypes.CDLL(None, use_errno=True)


def signal_with_parent(parent: int, number: signal.Signals) -> None:
    """Ask the kernel to send this process a signal when its parent ends (Linux; elsewhere nothing is done).

    More exactly when the thread ends that started it. The parent may have ended before the request, so its
    id is compared afterwards; then the process ends.
    """
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def ending(code: int) -> str:
    """Return in words how a process has ended, from its return code."""
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


def wake_on_time() -> None:
    """Ask the kernel to end this thread's sleeps when they are due, not up to 50 us later (Linux)."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def resident_bytes() -> int:
    """Return the memory that this process holds (Linux; elsewhere, the most that it has held)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def available_bytes() -> int:
    """Return the memory that this process may still take without the machine's swapping.

    On Linux the least of what the kernel holds to be available and what is left of the limit of this
    process's control group (version 2); elsewhere half of the machine's.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2]
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no limit ("max"), or no such group
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        found.append(max(0, limit - used))
    return min(found)
