"""Watching stages: who is alive, what each is doing, and when that means that the run has failed.

One piece of code for every runtime with processes: the runtime brings signs of life, this decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dtp_dist.errors import LinkError, StageError, StageLostError
from dtp_dist.runtime.layout import Layout


@dataclass(frozen=True)
class Status:
    """A sign of life: ``state`` (idle, computing, waiting), in words ``where``, and for how many seconds."""

    state: str
    where: str
    seconds: float


class Supervisor:
    """Judges signs of life.

    Args:
        failure_timeout: seconds within which a stage that gives none is found to be lost.
        action_timeout: seconds that one action may take.
        clock: seconds, monotonic.
        last_seen: stage -> what it was doing, in words, fresher than its signs of life; "" if unknown.
    """

    def __init__(
        self,
        layout: Layout,
        failure_timeout: float,
        action_timeout: float,
        clock: Callable[[], float] = time.monotonic,
        last_seen: Callable[[int], str] = lambda stage: "",
    ) -> None:
        self._layout, self._clock = layout, clock
        self._failure_timeout, self._action_timeout = failure_timeout, action_timeout
        self._last_seen = last_seen
        self._heard = dict.fromkeys(range(layout.stages), clock())
        self._told = dict(self._heard)
        self._owing: list[int] = []
        self._answered = clock()
        self._status = {
            stage: Status("starting", f"{layout.describe(stage)}, starting", 0.0)
            for stage in range(layout.stages)
        }

    @property
    def heartbeat(self) -> float:
        """Seconds between two signs of life that are asked of a stage."""
        return min(1.0, self._failure_timeout / 5)

    def heard(self, stage: int, status: Status | None = None) -> None:
        """Note a sign of life."""
        self._heard[stage] = self._clock()
        if status is not None:
            self._status[stage], self._told[stage] = status, self._heard[stage]

    def silent(self, stage: int) -> bool:
        """Whether a sign of life has stayed out for so long that ``failure_timeout`` would pass.

        The last one may have come just before the stage froze, or a heartbeat earlier.
        """
        return self._clock() - self._heard[stage] > self._failure_timeout - self.heartbeat

    def where(self, stage: int) -> str:
        """Return the last known place of a stage: stage, layers, action, layer, minibatch."""
        seen = self._last_seen(stage)
        return f"{self._layout.describe(stage)}, {seen}" if seen else self._status[stage].where

    def died(self, stage: int, how: str) -> StageLostError:
        """Return the error for a stage that has ended."""
        return StageLostError(f"stage {stage} was lost: {how}; last seen in {self.where(stage)}")

    def check(self, awaited: Iterable[int]) -> None:
        """Judge the stages that still owe an answer.

        Raises:
            StageLostError: one of them shows no sign of life.
            StageError: one action takes too long.
            LinkError: all stages wait for a message at once, so one was lost.
        """
        now = self._clock()
        owing = list(awaited)
        for stage in owing:
            if self.silent(stage):
                silent = now - self._heard[stage]
                text = f"no sign of life for {silent:.1f} s (parallel.failure_timeout); last seen in"
                raise StageLostError(f"stage {stage} was lost: {text} {self.where(stage)}")
            status = self._status[stage]
            if status.state == "computing" and status.seconds > self._action_timeout:
                text = f"one action takes longer than {self._action_timeout:g} s (parallel.action_timeout)"
                raise StageError(f"{status.where}: {text}")
        self._check_links(owing, now)

    def _check_links(self, owing: list[int], now: float) -> None:
        """Raise if all stages that owe an answer wait, by signs of life from after the last answer."""
        if owing != self._owing:
            self._owing, self._answered = owing, now
        waiting = [self._status[stage] for stage in owing]
        if not owing or any(status.state != "waiting" for status in waiting):
            return
        if min(self._told[stage] for stage in owing) <= self._answered + self.heartbeat:
            return  # what was seen before the last answer may be over
        # What was told is up to a heartbeat old: nobody may wait for longer than failure_timeout.
        if min(status.seconds for status in waiting) > self._failure_timeout - self.heartbeat:
            places = "; ".join(status.where for status in waiting)
            raise LinkError(f"a message was lost: all stages wait for one: {places}")
