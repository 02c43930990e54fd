"""What a stage did when: busy and waiting time, and the last actions for the trace."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from dtp_dist.runtime.segment import Span

SPANS_PER_MINIBATCH = 8


def in_words(state: str, name: str, minibatch: int) -> str:
    """Return e.g. "update, minibatch 20"; an idle stage's minibatch is its last."""
    if state == "idle":
        return "idle" if minibatch < 0 else f"idle after minibatch {minibatch}"
    return f"{name}, minibatch {minibatch}"


class Timeline:
    """A stage's own record; ``now`` says what it is doing for whoever watches it."""

    def __init__(self, keep_minibatches: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.busy = 0.0
        self.waiting = 0.0
        self.now: tuple[str, str, int, float] = ("idle", "", -1, clock())
        self._spans: deque[Span] = deque(maxlen=keep_minibatches * SPANS_PER_MINIBATCH)
        self.keeps_spans = False
        self.tell: Callable[[str, int], None] | None = None  # called with every mark

    def mark(self, state: str, name: str, minibatch: int) -> float:
        """Say that the stage is now in ``state`` (computing, waiting, idle); returns the time."""
        start = self.clock()
        self.now = (state, name, minibatch, start)
        if self.tell is not None:
            self.tell(name or state, minibatch)
        return start

    def computing(self, name: str, minibatch: int) -> Timeline:
        """Count the time of the block, an action, as busy."""
        self.mark("computing", name, minibatch)
        return self

    def wait(self, name: str, minibatch: int) -> Timeline:
        """Count the time of the block, a wait for a message or for room to send one, as waiting."""
        self.mark("waiting", name, minibatch)
        return self

    def __enter__(self) -> None:
        """Begin the block that ``computing`` or ``wait`` has announced."""

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """End it; what raised stays what the stage was doing."""
        if kind is not None:
            return
        end = self.clock()
        state, name, minibatch, start = self.now
        if state == "computing":
            self.busy += end - start
        else:
            self.waiting += end - start
        if self.keeps_spans:
            self._spans.append(Span(name, minibatch, start, end))

    def spans(self) -> list[Span]:
        """Return the last actions and waits, oldest first."""
        return list(self._spans)
