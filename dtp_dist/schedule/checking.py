"""Whether rows of actions, wherever they come from, are a sound schedule."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence

from dtp_dist.errors import ScheduleError
from dtp_dist.schedule.actions import (
    Action,
    Kind,
    Link,
    Rows,
    effective_in_flight,
    order,
    receives,
    sends,
    window,
)
from dtp_dist.schedule.pipeline import Schedule

_SHOWN = 6  # actions listed on either side of a failing one


def validate(rows: Rows, schedule: Schedule, capacity: int | None = None) -> None:
    """Check that `rows`, wherever they come from, are a sound schedule for what `schedule` describes.

    Every minibatch has its phase's actions once in every stage, in the order that `order` gives (F, I, T, U);
    a stage has at most its window of minibatches between the first of these and U; both ends of every link
    have the same order; and no stages wait for each other in a circle when a link holds `capacity` messages
    (default: the effective D) and a full one blocks its sender. Linear in the number of actions.

    Raises ScheduleError that names the failing action and lists its surroundings with it marked: `>2T3<`.
    """
    if capacity is None:
        capacity = effective_in_flight(schedule.stages, schedule.in_flight)
    if capacity < 1:
        raise ScheduleError(f"capacity is {capacity}; a link must hold at least 1 message")
    if len(rows) != schedule.stages:
        raise ScheduleError(f"{len(rows)} rows of actions for {schedule.stages} stages; give one per stage")
    for stage in range(schedule.stages):
        _check_row(rows, stage, schedule)
    execute(rows, capacity)


def _check_row(rows: Rows, stage: int, schedule: Schedule) -> None:
    row, kinds = rows[stage], order(stage, schedule.stages, schedule.phase, schedule.flow)
    allowed = window(stage, schedule.stages, schedule.in_flight, schedule.flow)
    done = dict.fromkeys(schedule.minibatches, 0)
    unfinished: dict[int, None] = {}  # begun and without their U, oldest first
    for position, action in enumerate(row):
        problem = _misplaced(action, stage, kinds, done)
        if problem:
            raise _failure(f"{action} {problem}", rows, {stage: position})
        done[action.minibatch] += 1
        if action.kind is kinds[0]:
            unfinished[action.minibatch] = None
        elif action.kind is Kind.UPDATE:
            del unfinished[action.minibatch]
        if len(unfinished) > allowed and Kind.UPDATE in kinds:
            due = Action(Kind.UPDATE, stage, next(iter(unfinished)))
            problem = f"comes before {due}: {len(unfinished)} minibatches in flight in a window of {allowed}"
            raise _failure(f"{action} {problem}", rows, {stage: position})
    for minibatch, count in done.items():
        if count < len(kinds):
            missing = Action(kinds[count], stage, minibatch)
            listed = [*rows[:stage], [*row, missing], *rows[stage + 1 :]]
            raise _failure(f"{missing} is missing; its row ends without it", listed, {stage: len(row)})


def _misplaced(action: Action, stage: int, kinds: Sequence[Kind], done: Mapping[int, int]) -> str | None:
    """What is wrong with doing `action` next, where `done` counts each minibatch's actions so far."""
    if action.stage != stage:
        return f"stands in the row of stage {stage}"
    if action.minibatch not in done:
        return "is of a minibatch that is not in this segment"
    if action.kind not in kinds:
        return f"has no place in a phase of {', '.join(kinds)}"
    turn, count = kinds.index(action.kind), done[action.minibatch]
    if turn < count:
        return "comes a second time"
    if turn > count:
        return f"comes before {action._replace(kind=kinds[count])}"
    return None


_Links = defaultdict[Link, deque[tuple[Action, int]]]  # messages: what sent them, and when they arrive
_Events = Iterator[tuple[Link, bool]]


def execute(rows: Rows, capacity: int) -> list[list[int]]:
    """The tick at which each action starts, if each takes one and links have room.

    Raises ScheduleError if the ends of a link differ in order, or if stages wait in a circle when a link
    with `capacity` messages blocks its sender.
    """
    links: _Links = defaultdict(deque)
    ticks: list[list[int]] = [[] for _ in rows]
    programs = [_program(rows, stage, capacity, links, ticks[stage]) for stage in range(len(rows))]
    waits: dict[int, Link] = {}
    awake = deque(range(len(rows)))
    while awake:
        stage = awake.popleft()
        waits.pop(stage, None)
        for link, blocked in programs[stage]:
            if blocked:
                waits[stage] = link
                break
            awake.append(link.source if link.target == stage else link.target)
    if waits:
        raise _circle(rows, ticks, waits)
    return ticks


def _program(rows: Rows, stage: int, capacity: int, links: _Links, ticks: list[int]) -> _Events:
    """Do the stage's row, yielding each link when it changes (False) and while it blocks (True).

    `ticks` grows when an action is over, its message sent.
    """
    clock = 0
    for position, action in enumerate(rows[stage]):
        if inbox := receives(action, len(rows)):
            while not links[inbox]:
                yield inbox, True
            sender, arrival = links[inbox].popleft()
            if sender.minibatch != action.minibatch:
                problem = f"{action} would receive what {sender} sends: wrong order on the {inbox}"
                raise _failure(problem, rows, {stage: position})
            clock = max(clock, arrival)
            yield inbox, False
        clock += 1
        if outbox := sends(action, len(rows)):
            while len(links[outbox]) >= capacity:
                yield outbox, True
            links[outbox].append((action, clock))
            yield outbox, False
        ticks.append(clock - 1)


def _circle(rows: Rows, ticks: Sequence[Sequence[int]], waits: Mapping[int, Link]) -> ScheduleError:
    marked = {stage: len(ticks[stage]) for stage in sorted(waits)}
    reasons = [
        f"{rows[stage][position]} waits to {'receive' if waits[stage].target == stage else 'send'}"
        f" on the {waits[stage]}"
        for stage, position in marked.items()
    ]
    return _failure(f"stages wait in a circle: {'; '.join(reasons)}", rows, marked)


def _failure(problem: str, rows: Rows, marked: Mapping[int, int]) -> ScheduleError:
    """The error for `problem`, with the rows around the marked positions (stage to position)."""
    near = range(max(0, min(marked) - 1), min(len(rows), max(marked) + 2))
    lines = [_listing(rows[s], marked.get(s), marked.get(s, max(marked.values()))) for s in near]
    table = "\n".join(f"stage {s}: {line}" for s, line in zip(near, lines, strict=True))
    return ScheduleError(f"{problem}\n{table}")


def _listing(row: Sequence[Action], marked: int | None, centre: int) -> str:
    shown = range(len(row))[max(0, centre - _SHOWN) : centre + _SHOWN + 1]
    cells = [f">{row[i]}<" if i == marked else str(row[i]) for i in shown]
    before, after = ["..."] * (shown.start > 0), ["..."] * (shown.stop < len(row))
    return " ".join([*before, *cells, *after])
