"""When everything happens where T needs nothing of F: both waves at once, worked out a generation at a time.

A stage's *near* action of a minibatch is the one that comes first there (F below the middle, T above it), its
*far* one the other, with U behind. A stage with a window of w has the order near(k + w-1), far(k), U(k),
near(k + w), ...; these first three are its part in generation k. Windows grow towards both ends, so a near
action needs its neighbour's of the same generation, where the windows are equal, or of one before; the far
wave begins at the middle, with near actions of this generation or one before. So a generation is two near
waves, then two far waves, each a running maximum ``a[s+1] = max(a[s] + step[s], base[s])`` that begins anew
wherever the message that a stage takes in is of a generation before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtp_dist.planning.timing import NEVER, Times, Timing
from dtp_dist.schedule import Kind, Schedule, leading, window

Outcome = tuple[Times, Times, dict[Kind, NDArray[np.int64]]]
"""When each stage is done, when each minibatch is, and what ``Simulation.kept`` has of each kind."""


class _Messages:
    """The actions of one kind with the messages that they send, of the last minibatches."""

    def __init__(self, timing: Timing, kind: Kind, kept: int, most: int) -> None:
        self.direction, self.stages = (1 if kind is Kind.FORWARD else -1), timing.stages
        self.lead, self.cost = timing.of(timing.lead, kind), timing.of(timing.actions, kind)
        self.send, self.transfer = timing.of(timing.send, kind), timing.of(timing.transfer, kind)
        self.latency = timing.of(timing.latency, kind)
        self.step = self.lead + self.cost + self.send + self.transfer + self.latency
        self.free = np.full(timing.stages, NEVER, np.int64)
        self.arrival = np.full((most, timing.stages), NEVER, np.int64)  # by minibatch, modulo ``most``
        self.begun = np.full((most, timing.stages), NEVER, np.int64)
        self.kept = np.zeros((6, kept, timing.stages), np.int64)

    def receiver(self, at: Times) -> Times:
        """Return the stages that the messages of the stages ``at`` go to, their own where there is none."""
        return np.clip(at + self.direction, 0, self.stages - 1)


@dataclass(frozen=True)
class _Run:
    """One replay: the schedule's windows, how many messages a link holds, how many minibatches there are."""

    count: int
    capacity: int
    first_kept: int
    update: Times  # what U takes, its lead and itself
    update_lead: Times

    def wave(self, line: _Messages, at: Times, number: Times, ready: Times, *, far: bool) -> None:
        """Do one action of each of the stages ``at``, in the direction of their messages.

        ``number``: the minibatch of each. ``ready`` becomes when each is done with it and, behind a far
        action, with its U.
        """
        receiver, row = line.receiver(at), number % len(line.arrival)
        at_end = receiver == at
        room = line.begun[(number - self.capacity) % len(line.begun), receiver]
        room = np.where(at_end | (number < self.capacity), NEVER, room)
        self._carry(line, at, number, ready, room)
        asked = ready[at]
        begun = np.maximum(asked, line.arrival[row, at]) + line.lead[at]
        done = begun + line.cost[at]
        sent = np.maximum(done, room) + line.send[at]
        line.free[at] = np.maximum(sent, line.free[at]) + line.transfer[at]
        line.begun[row, at] = begun
        sends = ~at_end
        line.arrival[row[sends], receiver[sends]] = (line.free[at] + line.latency[at])[sends]
        after = sent + (self.update_lead[at] if far else 0)
        ready[at] = sent + (self.update[at] if far else 0)
        rows = number - self.first_kept
        chosen = rows >= 0
        for part, times in enumerate((asked, begun, done, sent, after, ready[at])):
            line.kept[part, rows[chosen], at[chosen]] = times[chosen]

    @staticmethod
    def _carry(line: _Messages, at: Times, number: Times, ready: Times, room: Times) -> None:
        """Work out when the messages of a wave arrive within it."""
        base = np.maximum(ready[at] + line.lead[at] + line.cost[at], room) + line.send[at]
        base = np.maximum(base, line.free[at]) + line.transfer[at] + line.latency[at]
        passed = np.cumsum(line.step[at])
        known = line.arrival[number % len(line.arrival), at] - (passed - line.step[at])
        anew = np.concatenate([[True], number[1:] != number[:-1]])
        best = np.where(anew, np.maximum(base - passed, known), base - passed)
        apart = (np.cumsum(anew) - 1) * (
            best.max() - best.min() + 1
        )  # so that no stretch sees the one before
        best = np.maximum.accumulate(best + apart) - apart
        inner = ~anew[1:]
        line.arrival[(number % len(line.arrival))[1:][inner], at[1:][inner]] = (best + passed)[:-1][inner]


def one_wave(schedule: Schedule, timing: Timing, capacity: int, keep: int) -> Outcome:
    """Return what came of a schedule with both waves at once.

    A link holds ``capacity`` messages, D at least; the times of the last ``keep`` minibatches are kept.
    """
    stages, count = schedule.stages, len(schedule.minibatches)
    every = range(stages)
    windows = np.array([window(each, stages, schedule.in_flight, schedule.flow) for each in every])
    low = [leading(each, stages, schedule.flow) is Kind.FORWARD for each in every].count(True)
    below, above = np.arange(low), np.arange(low, stages)
    most = int(windows.max()) + capacity + 1
    up, down = (_Messages(timing, kind, keep, most) for kind in (Kind.FORWARD, Kind.TARGET))
    update_lead = timing.of(timing.lead, Kind.UPDATE)
    update = update_lead + timing.of(timing.actions, Kind.UPDATE)
    run = _Run(count, capacity, count - keep, update, update_lead)
    ready, finished = np.zeros(stages, np.int64), np.zeros(count, np.int64)
    for generation in range(1 - int(windows.max()), count):
        for line, at in ((up, below), (down, above[::-1])):
            number = generation + windows[at] - 1
            due = (number >= 0) & (number < count)
            if due.any():
                run.wave(line, at[due], number[due], ready, far=False)
        if generation >= 0:
            for line, at in ((down, below[::-1]), (up, above)):
                if len(at):
                    run.wave(line, at, np.full(len(at), generation), ready, far=True)
            finished[generation] = ready.max()
    return ready, finished, {Kind.FORWARD: up.kept, Kind.TARGET: down.kept}
