"""What a pipeline does when: a schedule replayed with costs, without running anything.

A stage begins an action when it is free and the action's message is there; what it sends leaves before its
next action begins, and arrives after the link has carried it. All times are whole nanoseconds, so that no
order of additions matters.

The stages of a wave are worked out at once. Stages below S - D have D minibatches in flight, so a minibatch's
forward wave through all of them comes before the target wave of the one D - 1 before it, and a wave
``a[s+1] = max(a[s] + step[s], base[s])`` is a running maximum. The D - 1 stages above have fewer in flight
the higher they are: there F of minibatch k in the i-th of n stages belongs to level 2k + i, T to level
2k + 2n - 1 - i, and whatever has one level depends on lower levels alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtp_dist.errors import ScheduleError
from dtp_dist.planning.one_wave import Outcome, one_wave
from dtp_dist.planning.timing import NANOSECONDS, NEVER, Times, Timing
from dtp_dist.schedule import (
    ACTIONS,
    RECEIVING,
    SENDING,
    Kind,
    Schedule,
    Span,
    effective_in_flight,
    kinds_of,
    order,
)


@dataclass(frozen=True)
class Simulation:
    """What came of it.

    Attributes:
        total: nanoseconds until all is done.
        busy: nanoseconds each stage computed: [S].
        finished: when each minibatch's last action was over: [minibatches].
        kept: by kind (F, T) the times of the last minibatches: wait begins, action begins, action ends,
            message is sent, the next action begins, ends; [6, minibatches, S]. Next to F is I, to T U; where
            T comes first in a stage, U is next to F.
    """

    schedule: Schedule
    total: int
    busy: Times
    finished: Times
    kept: Mapping[Kind, NDArray[np.int64]]

    @property
    def period(self) -> float:
        """Seconds between two minibatches once the pipeline is full: without filling it or draining it."""
        depth = effective_in_flight(self.schedule.stages, self.schedule.in_flight)
        last = len(self.finished) - depth  # those after it see the pipeline drain
        first = last // 2
        if first >= last:
            return self.total / max(1, len(self.finished)) / NANOSECONDS
        return float(self.finished[last] - self.finished[first]) / (last - first) / NANOSECONDS

    def spans(self) -> list[list[Span]]:
        """Return each stage's last actions and waits in order, as a run records them."""
        return [sorted(self._spans_of(stage), key=lambda span: span[2:]) for stage in range(len(self.busy))]

    def _spans_of(self, stage: int) -> list[Span]:
        found: list[Span] = []
        schedule = self.schedule
        kinds = order(stage, schedule.stages, schedule.phase, schedule.flow)
        for kind, times in self.kept.items():
            receives = stage > 0 if kind is Kind.FORWARD else stage < len(self.busy) - 1
            sends = stage < len(self.busy) - 1 if kind is Kind.FORWARD else stage > 0
            first = self.schedule.minibatches.stop - times.shape[1]
            for row, at in enumerate(times[:, :, stage].T.tolist()):
                asked, begun, done, sent, next_begun, next_done = (value / NANOSECONDS for value in at)
                if receives:
                    found.append(Span(RECEIVING[kind], first + row, asked, begun))
                found.append(Span(ACTIONS[kind], first + row, begun, done))
                if sends:
                    found.append(Span(SENDING[kind], first + row, done, sent))
                if (after := _after(kind, kinds)) is not None:
                    found.append(Span(ACTIONS[after], first + row, next_begun, next_done))
        return found


def _after(kind: Kind, kinds: Sequence[Kind]) -> Kind | None:
    """Return the action without a message that follows on an F or a T, if one does."""
    after = kinds[kinds.index(kind) + 1 :][:1]
    return after[0] if after and after[0] in (Kind.INVERSE, Kind.UPDATE) else None


class _Wave:
    """The F of all stages, with what follows in the same stage (I), or their T (with U)."""

    def __init__(self, timing: Timing, kind: Kind, kept: int) -> None:
        self.direction = 1 if kind is Kind.FORWARD else -1
        after = Kind.INVERSE if kind is Kind.FORWARD else Kind.UPDATE
        self.lead, self.cost = timing.of(timing.lead, kind), timing.of(timing.actions, kind)
        self.send, self.transfer = timing.of(timing.send, kind), timing.of(timing.transfer, kind)
        self.latency = timing.of(timing.latency, kind)
        self.next_lead, self.next_cost = timing.of(timing.lead, after), timing.of(timing.actions, after)
        self.free = np.full(timing.stages, NEVER, np.int64)
        self.arrival = np.full(timing.stages + 2, NEVER, np.int64)  # of stage s at s + 1
        self.step = self.lead + self.cost + self.send + self.transfer + self.latency
        self.kept = np.zeros((6, kept, timing.stages), np.int64)

    def act(
        self, ready: Times, at: slice, rows: Times | int | None = None, room: Times | None = None
    ) -> Times:
        """Do one action and its successor in the stages ``at``, whose messages' arrivals are known.

        ``rows``: where to keep the times, for each stage or all of them. Returns when the actions begin.
        """
        asked = ready[at]
        begun = np.maximum(asked, self.arrival[_moved(at, 1)]) + self.lead[at]
        done = begun + self.cost[at]
        sent = (done if room is None else np.maximum(done, room)) + self.send[at]
        self.free[at] = np.maximum(sent, self.free[at]) + self.transfer[at]
        self.arrival[_moved(at, 1 + self.direction)] = self.free[at] + self.latency[at]
        next_begun = sent + self.next_lead[at]
        next_done = next_begun + self.next_cost[at]
        if rows is not None:
            stages = np.arange(at.start, at.stop, at.step)
            chosen = np.broadcast_to(rows, stages.shape) >= 0
            where = np.broadcast_to(rows, stages.shape)[chosen], stages[chosen]
            for part, times in enumerate((asked, begun, done, sent, next_begun, next_done)):
                self.kept[part][where] = times[chosen]
        ready[at] = next_done
        return begun

    def carry(self, ready: Times, count: int, room: Times | None = None) -> None:
        """Work out when the messages of one wave through stages 0 .. count - 1 arrive.

        The first stage's, in the direction of the wave, is known.
        """
        order = slice(None, None, self.direction)
        step, here = self.step[:count][order], slice(0, count)
        base = ready[here] + self.lead[here] + self.cost[here]
        if room is not None:
            base = np.maximum(base, room)
        base = np.maximum(base + self.send[here], self.free[here]) + self.transfer[here] + self.latency[here]
        passed = np.cumsum(step)
        arrival = self.arrival[1 : count + 1][order]
        best = np.maximum(np.maximum.accumulate(base[order] - passed), arrival[0])
        arrival[1:] = (best + passed)[:-1]


def _moved(at: slice, by: int) -> slice:
    return slice(at.start + by, at.stop + by, at.step)


def simulate(schedule: Schedule, timing: Timing, *, capacity: int | None = None, keep: int = 0) -> Simulation:
    """Return when everything of a schedule happens, given what it takes.

    A link holds ``capacity`` messages, by default as many as a run's (D, at least two), and a full one makes
    its sender wait; where T waits for F, no more than D are ever under way. The times of the last
    ``keep`` minibatches are kept for ``spans``.

    Raises:
        ScheduleError: the capacity is below that.
    """
    depth = effective_in_flight(schedule.stages, schedule.in_flight)
    capacity = max(2, depth) if capacity is None else capacity
    kinds = kinds_of(schedule.phase, schedule.flow)
    least = depth if Kind.TARGET in kinds else 1
    if capacity < least:
        raise ScheduleError(f"capacity is {capacity}; a link must hold {least} messages")
    keep, count = min(keep, len(schedule.minibatches)), len(schedule.minibatches)
    used = _only(timing, kinds)
    if Kind.TARGET not in kinds:
        ready, finished, kept = _forwards(used, count, capacity, keep)
    elif schedule.flow.target_reads_forward:
        ready, finished, kept = _pipeline(used, count, depth, keep)
    else:
        ready, finished, kept = one_wave(schedule, used, capacity, keep)
    busy = sum((used.of(used.actions, kind) for kind in kinds), np.zeros_like(ready))
    total = int(ready.max()) if count else 0
    return Simulation(schedule, total, busy * count, finished, kept)


def _only(timing: Timing, kinds: Sequence[Kind]) -> Timing:
    """Return a timing without the kinds that a phase does not have."""
    actions, lead = (
        {kind: part[kind] for kind in kinds if kind in part} for part in (timing.actions, timing.lead)
    )
    return Timing(timing.stages, actions, lead, timing.send, timing.transfer, timing.latency)


def _forwards(timing: Timing, count: int, capacity: int, keep: int) -> Outcome:
    """Waves of forwards alone, which run ahead as far as the links have room."""
    stages, up = timing.stages, _Wave(timing, Kind.FORWARD, keep)
    ready, finished = np.zeros(stages, np.int64), np.zeros(count, np.int64)
    taken: deque[Times] = deque(maxlen=capacity)  # when the last waves' messages were taken in
    room = np.full(stages, NEVER, np.int64)
    for number in range(count):
        if len(taken) == capacity:
            room[:-1] = taken[0][1:]
        up.carry(ready, stages, room)
        row = number - (count - keep)
        taken.append(up.act(ready, slice(0, stages, 1), row if row >= 0 else None, room))
        finished[number] = ready[-1]
    return ready, finished, {Kind.FORWARD: up.kept}


def _pipeline(timing: Timing, count: int, depth: int, keep: int) -> Outcome:
    """Forwards and targets, ``depth`` minibatches in flight: below in waves, above level by level."""
    stages, above = timing.stages, depth - 1
    below = stages - above
    up, down = _Wave(timing, Kind.FORWARD, keep), _Wave(timing, Kind.TARGET, keep)
    ready, finished = np.zeros(stages, np.int64), np.zeros(count, np.int64)
    low, first_kept = slice(0, below, 1), count - keep

    def level(number: int) -> None:
        """Do the F and T of one level in the stages above; no stage has both."""
        first = max(0, number - 2 * (count - 1))
        first += (number - first) % 2
        last = min(above - 1, number)
        if first <= last:
            _do(up, first, last, lambda place: (number - place) // 2)
        first = max(0, 2 * above - 1 - number)
        first += (number - first + 1) % 2
        last = min(above - 1, 2 * (count - 1) + 2 * above - 1 - number)
        if first <= last:
            _do(down, first, last, lambda place: (number + 1 + place) // 2 - above)

    def _do(flow: _Wave, first: int, last: int, minibatch: Callable[[Any], Any]) -> None:
        at = slice(below + first, below + last + 1, 2)
        newest = max(minibatch(first), minibatch(last))
        rows = None
        if keep and newest >= first_kept:
            rows = minibatch(np.arange(first, last + 1, 2)) - first_kept
        flow.act(ready, at, rows)

    for number in range(count + above):
        if number < count:
            up.carry(ready, below)
            up.act(ready, low, number - first_kept if number >= first_kept and keep else None)
        level(2 * number)
        target = number - above
        if target >= 0:
            down.carry(ready, below)
            down.act(ready, low, target - first_kept if target >= first_kept and keep else None)
            finished[target] = ready[0]
        level(2 * number + 1)
    return ready, finished, {Kind.FORWARD: up.kept, Kind.TARGET: down.kept}
