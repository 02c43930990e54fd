"""A pipeline replayed one action after another: slow, plain, and what the fast simulation must equal."""

from __future__ import annotations

from collections import defaultdict

from dtp_dist.planning.simulate import Timing
from dtp_dist.schedule import Kind, Schedule, receives, sends

NAMES = {"F": "forward", "I": "inverse", "T": "target", "U": "update"}
MESSAGES = {"F": "activation", "T": "target"}


def replay(schedule: Schedule, timing: Timing, capacity: int) -> list[list[tuple[str, int, int, int]]]:
    """Return each stage's actions and waits: name, minibatch, start and end in nanoseconds."""
    rows = schedule.rows()
    spans: list[list[tuple[str, int, int, int]]] = [[] for _ in rows]
    arrivals, taken, free = defaultdict(list), defaultdict(list), defaultdict(int)
    clock, place = [0] * len(rows), [0] * len(rows)

    def of(part, kind: Kind, stage: int) -> int:
        return int(part[kind][stage]) if kind in part else 0

    def step(stage: int) -> bool:
        """Do the stage's next action if its message and the room for what it sends are known."""
        if place[stage] == len(rows[stage]):
            return False
        action = rows[stage][place[stage]]
        kind, now, add = action.kind, clock[stage], spans[stage].append
        inbox, outbox = receives(action, len(rows)), sends(action, len(rows))
        lead = of(timing.lead, kind, stage)
        if inbox and len(arrivals[inbox]) == len(taken[inbox]):
            return False
        over = 0
        if outbox and len(arrivals[outbox]) >= capacity:
            number = len(arrivals[outbox]) - capacity
            if number >= len(taken[outbox]):
                return False
            over = taken[outbox][number]
        begun = now + lead
        if inbox:
            begun = max(now, arrivals[inbox][len(taken[inbox])]) + lead
            add((f"wait for {MESSAGES[kind]}", action.minibatch, now, begun))
            taken[inbox].append(begun)
        done = begun + of(timing.actions, kind, stage)
        add((NAMES[kind], action.minibatch, begun, done))
        if outbox:
            sent = max(done, over) + of(timing.send, kind, stage)
            add((f"send {MESSAGES[kind]}", action.minibatch, done, sent))
            free[outbox] = max(sent, free[outbox]) + of(timing.transfer, kind, stage)
            arrivals[outbox].append(free[outbox] + of(timing.latency, kind, stage))
            done = sent
        clock[stage] = done
        place[stage] += 1
        return True

    while any(step(stage) for stage in range(len(rows))):
        pass
    assert place == [len(row) for row in rows], "stages wait in a circle"
    return spans
