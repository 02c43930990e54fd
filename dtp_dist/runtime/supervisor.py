"""Watching stages: who is alive, what each is doing, and when that means that the run has failed.

One piece of code for every runtime with processes: the runtime brings signs of life, this decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dtp_dist.errors import LinkError, StageError, StageLostError
from dtp_dist.runtime.layout import Layout
from dtp_dist.system.clock import AwakeClock
from dtp_dist.text.numbers import short


@dataclass(frozen=True)
class Status:
    """A sign of life: ``state`` (idle, computing, waiting), in words ``where``, and ``since`` when.

    ``since`` is in seconds of the stage's own clock, and good for nothing but telling two states apart.
    """

    state: str
    where: str
    since: float


class Supervisor:
    """Judges signs of life, on a clock that stops when the judge does; everything is to be read before.

    While stages start, their silence means nothing: a process that imports torch can't answer for seconds.

    Args:
        failure_timeout: seconds within which a stage that gives none is found to be lost.
        action_timeout: seconds that one action may take.
        clock: seconds that the judge was awake; read at least at every ``check``.
        doing: stage -> what it was doing, in words, fresher than its signs of life; "" if unknown.
    """

    def __init__(
        self,
        layout: Layout,
        failure_timeout: float,
        action_timeout: float,
        clock: Callable[[], float] | None = None,
        doing: Callable[[int], str] = lambda stage: "",
    ) -> None:
        self._failure_timeout, self._action_timeout = failure_timeout, action_timeout
        self._layout, self._doing = layout, doing
        self._clock = AwakeClock(self.heartbeat) if clock is None else clock
        self._starting = True
        now = self._clock()
        self._heard = dict.fromkeys(range(layout.stages), now)
        self._told, self._began = dict(self._heard), dict(self._heard)
        self._owing: list[int] = []
        self._answered = now
        self._status = {
            stage: Status("starting", f"{layout.describe(stage)}, starting", 0.0)
            for stage in range(layout.stages)
        }

    @property
    def heartbeat(self) -> float:
        """Seconds between two signs of life that are asked of a stage."""
        return min(1.0, self._failure_timeout / 5)

    def started(self) -> None:
        """Judge silence from now on: all stages have started."""
        self._starting = False
        self._heard = dict.fromkeys(self._heard, self._clock())

    def heard(self, stage: int, status: Status | None = None) -> None:
        """Note a sign of life."""
        now = self._heard[stage] = self._clock()
        if status is None:
            return
        before = self._status[stage]
        if (status.state, status.since) != (before.state, before.since):
            self._began[stage] = now
        self._status[stage], self._told[stage] = status, now

    def silent(self, stage: int) -> bool:
        """Whether a sign of life has stayed out for so long that ``failure_timeout`` would pass.

        The last one may have come just before the stage froze, or a heartbeat earlier.
        """
        silent = self._clock() - self._heard[stage]
        return not self._starting and silent > self._failure_timeout - self.heartbeat

    def where(self, stage: int) -> str:
        """Return the last known place of a stage: stage, layers, action, layer, minibatch."""
        seen = self._doing(stage)
        return f"{self._layout.describe(stage)}, {seen}" if seen else self._status[stage].where

    def died(self, stage: int, how: str) -> StageLostError:
        """Return the error for a stage that has ended."""
        return StageLostError(f"stage {stage} was lost: {how}; last seen in {self.where(stage)}")

    def check(self, awaited: Iterable[int]) -> None:
        """Judge all stages, and the links of those that still owe an answer.

        Raises:
            StageLostError: a stage shows no sign of life.
            StageError: one action takes too long.
            LinkError: all stages that owe an answer wait for a message at once, so one was lost.
        """
        now = self._clock()
        for stage, status in self._status.items():
            if self.silent(stage):
                silent = now - self._heard[stage]
                text = f"no sign of life for {short(silent)} s (parallel.failure_timeout); last seen in"
                raise StageLostError(f"stage {stage} was lost: {text} {self.where(stage)}")
            if status.state == "computing" and self._lasted(stage) > self._action_timeout:
                text = (
                    f"one action takes longer than {short(self._action_timeout)} s (parallel.action_timeout)"
                )
                raise StageError(f"{status.where}: {text}")
        self._check_links(list(awaited), now)

    def _lasted(self, stage: int) -> float:
        """Return for how long a stage has been seen in its last state."""
        return self._told[stage] - self._began[stage]

    def _check_links(self, owing: list[int], now: float) -> None:
        """Raise if all stages that owe an answer wait, by signs of life from after the last answer."""
        if owing != self._owing:
            self._owing, self._answered = owing, now
        if not owing or any(self._status[stage].state != "waiting" for stage in owing):
            return
        if min(self._told[stage] for stage in owing) <= self._answered + self.heartbeat:
            return  # what was seen before the last answer may be over
        # A state is seen up to a heartbeat late, at both ends: nobody may wait longer than failure_timeout.
        if min(self._lasted(stage) for stage in owing) > self._failure_timeout - 2 * self.heartbeat:
            places = "; ".join(self._status[stage].where for stage in owing)
            raise LinkError(f"a message was lost: all stages wait for one: {places}")
