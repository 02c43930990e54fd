"""What a stage did when: busy and waiting time, and the last actions for the trace."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from dtp_dist.schedule import Activity, Span

SPANS_PER_MINIBATCH = 8
NOTHING = "idle"


def in_words(doing: str, minibatch: int) -> str:
    """Return e.g. "update, minibatch 20"; an idle stage's minibatch is its last."""
    if doing == NOTHING:
        return NOTHING if minibatch < 0 else f"{NOTHING} after minibatch {minibatch}"
    return f"{doing}, minibatch {minibatch}"


class Timeline:
    """A stage's own record; ``now`` says what it is doing, with which minibatch, since when."""

    def __init__(self, keep_minibatches: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.busy = 0.0
        self.waiting = 0.0
        self.reading = 0.0  # of the busy time
        self.now: tuple[Activity | None, int, float] = (None, -1, clock())
        self._spans: deque[Span] = deque(maxlen=keep_minibatches * SPANS_PER_MINIBATCH)
        self.keeps_spans = False
        self.tell: Callable[[str, int], None] | None = None  # called with every mark

    @property
    def state(self) -> str:
        """Whether the stage is computing, waiting or idle."""
        activity = self.now[0]
        return "idle" if activity is None else "waiting" if activity.waits else "computing"

    def mark(self, activity: Activity | None, minibatch: int) -> None:
        """Say what the stage does from now on; None where it has nothing to do."""
        self.now = (activity, minibatch, self.clock())
        if self.tell is not None:
            self.tell(activity or NOTHING, minibatch)

    def during(self, activity: Activity, minibatch: int) -> Timeline:
        """Count the time of the block as busy, or as waiting if the activity is a wait."""
        self.mark(activity, minibatch)
        return self

    def __enter__(self) -> None:
        """Begin the block that ``during`` has announced."""

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """End it; what raised stays what the stage was doing."""
        if kind is not None:
            return
        end = self.clock()
        activity, minibatch, start = self.now
        assert activity is not None
        if activity.waits:
            self.waiting += end - start
        else:
            self.busy += end - start
        if activity is Activity.DATA:
            self.reading += end - start
        if self.keeps_spans:
            self._spans.append(Span(activity, minibatch, start, end))

    def spans(self) -> list[Span]:
        """Return the last actions and waits, oldest first."""
        return list(self._spans)
