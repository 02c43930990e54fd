"""Actions, the links they use, and the one generator of a stage's schedule."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from dtp_dist.errors import ScheduleError
from dtp_dist.flow import TWO_WAVES, Flow
from dtp_dist.phase import Phase


class Kind(StrEnum):
    """What an action does."""

    FORWARD = "F"
    INVERSE = "I"
    TARGET = "T"
    UPDATE = "U"


MESSAGES: Mapping[Kind, str] = {Kind.FORWARD: "activation", Kind.TARGET: "target"}
"""What the actions that send a message send, by kind."""


_KINDS: Mapping[Phase, tuple[Kind, ...]] = {
    Phase.BOTH: (Kind.FORWARD, Kind.INVERSE, Kind.TARGET, Kind.UPDATE),
    Phase.INVERSE: (Kind.FORWARD, Kind.INVERSE),
    Phase.FORWARD: (Kind.FORWARD, Kind.TARGET, Kind.UPDATE),
    Phase.EVALUATE: (Kind.FORWARD,),
}

_STEPS = {Kind.FORWARD: 1, Kind.TARGET: -1}  # activations go to the next stage, targets to the one before


class Action(NamedTuple):
    """One entry of a stage's schedule; prints as `2F0`: stage 2, forward, minibatch 0."""

    kind: Kind
    stage: int
    minibatch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.minibatch}"


class Link(NamedTuple):
    """A first-in, first-out connection of neighbours; `kind` is that of the actions at both its ends."""

    source: int
    target: int
    kind: Kind

    def __str__(self) -> str:
        return f"{MESSAGES[self.kind]} link {self.source}->{self.target}"


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


def kinds_of(phase: Phase, flow: Flow = TWO_WAVES) -> tuple[Kind, ...]:
    """The actions that a phase requires of every stage for every minibatch, F first.

    Inverses that learn in U need T in the phase that is for them alone, too.
    """
    if flow.inverse_in == "U" and phase is not Phase.EVALUATE:
        return _KINDS[Phase.FORWARD]
    return _KINDS[phase]


def leading(stage: int, stages: int, flow: Flow) -> Kind:
    """Which of a minibatch's F and T `stage` does first: F, unless T needs nothing of it and comes sooner.

    Then F has `stage` steps to come and T `S-1 - stage`; the stage where they meet does F first.
    """
    return Kind.FORWARD if flow.target_reads_forward or 2 * stage < stages else Kind.TARGET


def order(stage: int, stages: int, phase: Phase, flow: Flow = TWO_WAVES) -> tuple[Kind, ...]:
    """The actions of a phase in the order in which `stage` does them for one minibatch."""
    kinds = kinds_of(phase, flow)
    if Kind.TARGET in kinds and leading(stage, stages, flow) is Kind.TARGET:
        return Kind.TARGET, Kind.FORWARD, Kind.UPDATE
    return kinds


def effective_in_flight(stages: int, in_flight: int) -> int:
    """The D that takes effect, `min(in_flight, stages)`; ScheduleError if either is below 1."""
    for name, value in (("stages", stages), ("in_flight", in_flight)):
        if value < 1:
            raise ScheduleError(f"{name} is {value}; it must be at least 1")
    return min(in_flight, stages)


def window(stage: int, stages: int, in_flight: int, flow: Flow = TWO_WAVES) -> int:
    """Minibatches that `stage` may have between the first of their F and T and their U.

    `min(D, S-s)` where T follows on F. Where both waves run at once, a minibatch's second wave comes `d =
    |S-1 - 2s|` steps after its first one: `ceil(D (d+1) / S)`, D at both ends and the fewest where they meet.

    Raises ScheduleError for bad values.
    """
    depth = effective_in_flight(stages, in_flight)
    if not 0 <= stage < stages:
        raise ScheduleError(f"stage is {stage}; with {stages} stages it must be one of 0..{stages - 1}")
    if flow.target_reads_forward:
        return min(depth, stages - stage)
    return -(-depth * (abs(stages - 1 - 2 * stage) + 1) // stages)


def delay(stage: int, stages: int, in_flight: int, flow: Flow = TWO_WAVES) -> int:
    """Updates applied to `stage` between a minibatch's F and its U once the pipeline is full.

    None where T comes first: U follows on F. Raises ScheduleError for bad values.
    """
    ahead = window(stage, stages, in_flight, flow) - 1
    return ahead if leading(stage, stages, flow) is Kind.FORWARD else 0


def stage_actions(
    stage: int, stages: int, minibatches: range, in_flight: int, phase: Phase, flow: Flow = TWO_WAVES
) -> Iterator[Action]:
    """The actions of one stage, made as they are asked for.

    With w = `window(...)`, the first w minibatches go forward (F, then I where the phase has it). Then
    target and forward alternate: T and U of the oldest minibatch, F and I of the next (1F1B). Phases
    without targets only go forward. Where T needs nothing of F, a stage that T reaches sooner does the
    same with T in the place of F: w times T, then F and U of the oldest, T of the next.

    Raises ScheduleError at the call, not at the first action, for values that make no schedule.
    """
    ahead = window(stage, stages, in_flight, flow)
    if minibatches.step != 1 or minibatches.start < 0:
        raise ScheduleError(f"minibatches is {minibatches}; it must start at 0 or above and have step 1")
    return _generate(stage, minibatches, ahead, order(stage, stages, phase, flow))


def _generate(stage: int, minibatches: range, ahead: int, kinds: Sequence[Kind]) -> Iterator[Action]:
    second = [place for place, kind in enumerate(kinds) if kind in MESSAGES][1:]
    turn = second[0] if second else len(kinds)
    going, coming = kinds[:turn], kinds[turn:]
    for minibatch in minibatches[:ahead]:
        for kind in going:
            yield Action(kind, stage, minibatch)
    for minibatch in minibatches:
        for kind in coming:
            yield Action(kind, stage, minibatch)
        if minibatch + ahead in minibatches:
            for kind in going:
                yield Action(kind, stage, minibatch + ahead)
