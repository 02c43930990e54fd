"""What each stage does, in which order: actions, the one generator, validation and drawing.

Stage 0 is the top row, time runs to the right, one tick an action, `.` is idle. F forward, I inverse
update, T target, U forward update; `python -m dtp_dist.schedule --stages 3 --minibatches 4 --in-flight 3`:

stage 0 | F0 I0 F1 I1 F2 I2 T0 U0 F3 I3 T1 U1 .  .  T2 U2 .  .  T3 U3
stage 1 | .  F0 I0 F1 I1 T0 U0 F2 I2 T1 U1 F3 I3 T2 U2 .  .  T3 U3 .
stage 2 | .  .  F0 I0 T0 U0 F1 I1 T1 U1 F2 I2 T2 U2 F3 I3 T3 U3 .  .
"""

import argparse
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, NoReturn

from dtp_dist.errors import ScheduleError


class Kind(StrEnum):
    """What an action does."""

    FORWARD = "F"
    INVERSE = "I"
    TARGET = "T"
    UPDATE = "U"


class Phase(StrEnum):
    """What a segment of the run is for."""

    BOTH = "both"
    INVERSE = "inverse"
    FORWARD = "forward"
    EVALUATE = "evaluate"


KINDS: Mapping[Phase, tuple[Kind, ...]] = {
    Phase.BOTH: (Kind.FORWARD, Kind.INVERSE, Kind.TARGET, Kind.UPDATE),
    Phase.INVERSE: (Kind.FORWARD, Kind.INVERSE),
    Phase.FORWARD: (Kind.FORWARD, Kind.TARGET, Kind.UPDATE),
    Phase.EVALUATE: (Kind.FORWARD,),
}
"""The actions a phase requires of every stage for every minibatch, in their order."""

_STEPS = {Kind.FORWARD: 1, Kind.TARGET: -1}  # activations go to the next stage, targets to the one before
_ACTION = re.compile(r"(0|[1-9][0-9]*)([FITU])(0|[1-9][0-9]*)")
_SHOWN = 6  # actions listed on either side of a failing one


class Action(NamedTuple):
    """One entry of a stage's schedule; prints as `2F0`: stage 2, forward, minibatch 0."""

    kind: Kind
    stage: int
    minibatch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.minibatch}"

    @classmethod
    def parse(cls, text: str) -> "Action":
        """The action that prints as `text`; ValueError if there is none."""
        match = _ACTION.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not an action; write stage, F, I, T or U, and minibatch: 2F0")
        return cls(Kind(match[2]), int(match[1]), int(match[3]))


class Link(NamedTuple):
    """A first-in, first-out connection of neighbours; `kind` is that of the actions at both its ends."""

    source: int
    target: int
    kind: Kind

    def __str__(self) -> str:
        return f"{'activation' if self.kind is Kind.FORWARD else 'target'} link {self.source}->{self.target}"


Rows = Sequence[Sequence[Action]]
"""The actions of every stage, in order: `rows[stage][position]`."""


def receives(action: Action, stages: int) -> Link | None:
    """The link on which `action` receives its message before it starts, if it needs one."""
    step = _STEPS.get(action.kind)
    if step is None or not 0 <= action.stage - step < stages:
        return None
    return Link(action.stage - step, action.stage, action.kind)


def sends(action: Action, stages: int) -> Link | None:
    """The link on which `action` sends its result as soon as it is finished, if anyone needs it."""
    step = _STEPS.get(action.kind)
    if step is None or not 0 <= action.stage + step < stages:
        return None
    return Link(action.stage, action.stage + step, action.kind)


def effective_in_flight(stages: int, in_flight: int) -> int:
    """The D that takes effect, `min(in_flight, stages)`; ScheduleError if either is below 1."""
    for name, value in (("stages", stages), ("in_flight", in_flight)):
        if value < 1:
            raise ScheduleError(f"{name} is {value}; it must be at least 1")
    return min(in_flight, stages)


def window(stage: int, stages: int, in_flight: int) -> int:
    """Forwards that `stage` does before its first target, `min(D, S-s)`; ScheduleError for bad values."""
    depth = effective_in_flight(stages, in_flight)
    if not 0 <= stage < stages:
        raise ScheduleError(f"stage is {stage}; with {stages} stages it must be one of 0..{stages - 1}")
    return min(depth, stages - stage)


def delay(stage: int, stages: int, in_flight: int) -> int:
    """Updates applied to `stage` between a minibatch's F and its U once the pipeline is full.

    Raises ScheduleError for bad values.
    """
    return window(stage, stages, in_flight) - 1


def stage_actions(
    stage: int, stages: int, minibatches: range, in_flight: int, phase: Phase
) -> Iterator[Action]:
    """The actions of one stage, made as they are asked for.

    With w = `window(...)`, the first w minibatches go forward (F, then I where the phase has it). Then
    target and forward alternate: T and U of the oldest minibatch, F and I of the next (1F1B). Phases
    without targets only go forward.

    Raises ScheduleError at the call, not at the first action, for values that make no schedule.
    """
    ahead = window(stage, stages, in_flight)
    if minibatches.step != 1 or minibatches.start < 0:
        raise ScheduleError(f"minibatches is {minibatches}; it must start at 0 or above and have step 1")
    return _generate(stage, minibatches, ahead, KINDS[phase])


def _generate(stage: int, minibatches: range, ahead: int, kinds: Sequence[Kind]) -> Iterator[Action]:
    going: list[Kind] = [kind for kind in kinds if kind in (Kind.FORWARD, Kind.INVERSE)]
    coming: list[Kind] = [kind for kind in kinds if kind in (Kind.TARGET, Kind.UPDATE)]
    for minibatch in minibatches[:ahead]:
        for kind in going:
            yield Action(kind, stage, minibatch)
    for minibatch in minibatches:
        for kind in coming:
            yield Action(kind, stage, minibatch)
        if minibatch + ahead in minibatches:
            for kind in going:
                yield Action(kind, stage, minibatch + ahead)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The schedule of one segment, for all stages; ScheduleError for values that make none."""

    stages: int
    minibatches: range
    in_flight: int
    phase: Phase = Phase.BOTH

    def __post_init__(self) -> None:
        self.actions(0)

    def actions(self, stage: int) -> Iterator[Action]:
        """The actions of `stage`, lazily; ScheduleError if there is no such stage."""
        return stage_actions(stage, self.stages, self.minibatches, self.in_flight, self.phase)

    def rows(self) -> list[list[Action]]:
        """The actions of all stages, as lists."""
        return [list(self.actions(stage)) for stage in range(self.stages)]

    def validate(self, capacity: int | None = None) -> None:
        """Check the schedule as `validate` does; ScheduleError if it breaks a rule."""
        validate(self.rows(), self, capacity)

    def draw(self) -> str:
        """The drawing of the schedule, as `draw` makes it."""
        return draw(self.rows())


def validate(rows: Rows, schedule: Schedule, capacity: int | None = None) -> None:
    """Check that `rows`, wherever they come from, are a sound schedule for what `schedule` describes.

    Every minibatch has its phase's actions once in every stage, in the order F, I, T, U; a stage has at
    most its window of minibatches between F and U; both ends of every link have the same order; and no
    stages wait for each other in a circle when a link holds `capacity` messages (default: the effective
    D) and a full one blocks its sender. Linear in the number of actions.

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
    _execute(rows, capacity)


def _check_row(rows: Rows, stage: int, schedule: Schedule) -> None:
    row, kinds = rows[stage], KINDS[schedule.phase]
    allowed = window(stage, schedule.stages, schedule.in_flight)
    done = dict.fromkeys(schedule.minibatches, 0)
    unfinished: dict[int, None] = {}  # between F and U, oldest first
    for position, action in enumerate(row):
        problem = _misplaced(action, stage, kinds, done)
        if problem:
            raise _failure(f"{action} {problem}", rows, {stage: position})
        done[action.minibatch] += 1
        if action.kind is Kind.FORWARD:
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


def _execute(rows: Rows, capacity: int) -> list[list[int]]:
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


def draw(rows: Rows) -> str:
    """A table of `rows`: stage 0 on top, a column per tick, `.` where a stage is idle.

    Each action takes one tick and starts once its stage is free and its message, sent at the end of the
    action that made it, is there. Raises ScheduleError where the ends of a link differ in order or stages
    wait in a circle.
    """
    ticks = _execute(rows, capacity=1 + max(map(len, rows), default=0))
    length = max((row[-1] + 1 for row in ticks if row), default=0)
    cells = [["."] * length for _ in rows]
    for stage, row in enumerate(rows):
        for tick, action in zip(ticks[stage], row, strict=True):
            cells[stage][tick] = f"{action.kind}{action.minibatch}"
    width = max((len(cell) for line in cells for cell in line), default=0)
    margin = len(str(len(rows) - 1))
    lines = (" ".join(cell.ljust(width) for cell in line) for line in cells)
    return "\n".join(f"stage {s:>{margin}} | {line}".rstrip() for s, line in enumerate(lines))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the drawing that the command line asks for; bad values end it with one line and code 2."""
    parser = _Parser("python -m dtp_dist.schedule", description="Draw the schedule of a pipeline.")
    parser.add_argument("--stages", type=int, required=True)
    parser.add_argument("--minibatches", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--phase", choices=[phase.value for phase in Phase], default=Phase.BOTH.value)
    given = parser.parse_args(arguments)
    if given.minibatches < 0:
        parser.error(f"minibatches is {given.minibatches}; it must be at least 0")
    try:
        schedule = Schedule(given.stages, range(given.minibatches), given.in_flight, Phase(given.phase))
    except ScheduleError as error:
        parser.error(str(error))
    print(schedule.draw())


if __name__ == "__main__":
    main()
