"""A clock for whoever waits or judges: it stands still while its own process does."""

from __future__ import annotations

import time
from collections.abc import Callable


class AwakeClock:
    """Seconds during which its reader was there to see what happens.

    It is read in a loop. A process that was stopped (SIGSTOP, a suspended job, a closed lid), held up by a
    slow disk or kept off its core can't blame others for that time: between two readings at most ``longest``
    seconds count.

    Args:
        longest: seconds, more than the loop usually takes for one round.
        clock: seconds, monotonic.
    """

    def __init__(self, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest, self._clock = longest, clock
        self._last, self._seen = clock(), 0.0

    def __call__(self) -> float:
        """Return the seconds since the start that were seen."""
        now = self._clock()
        self._seen += min(now - self._last, self._longest)
        self._last = now
        return self._seen
