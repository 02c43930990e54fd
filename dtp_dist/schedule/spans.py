"""What a stage's time goes to, and when: the one vocabulary of timelines, traces, simulations and reports."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from dtp_dist.schedule.actions import Kind


class Activity(StrEnum):
    """What a stage does at a time; its value is what people read."""

    DATA = "data"
    FORWARD = "forward"
    INVERSE = "inverse"
    TARGET = "target"
    UPDATE = "update"
    ALIGNMENT = "alignment"
    OTHER = "other action"  # of a trace that knows more than this version
    WAIT_ACTIVATION = "wait for activation"
    WAIT_TARGET = "wait for target"
    SEND_ACTIVATION = "send activation"
    SEND_TARGET = "send target"
    IDLE = "nothing recorded"  # overhead, or the turns of other stages where all share a thread

    @property
    def kind(self) -> Kind | None:
        """The kind of action that it is, None for what stands in no schedule."""
        return _KIND_OF.get(self)

    @property
    def waits(self) -> bool:
        """Whether the stage waits for a message, or for room to send one."""
        return self in _WAITS

    @property
    def computes(self) -> bool:
        """Whether the stage is busy."""
        return not self.waits and self is not Activity.IDLE


ACTIONS: Mapping[Kind, Activity] = {
    Kind.FORWARD: Activity.FORWARD,
    Kind.INVERSE: Activity.INVERSE,
    Kind.TARGET: Activity.TARGET,
    Kind.UPDATE: Activity.UPDATE,
}
"""What timelines, traces and messages to people call each kind of action."""

RECEIVING: Mapping[Kind, Activity] = {
    Kind.FORWARD: Activity.WAIT_ACTIVATION,
    Kind.TARGET: Activity.WAIT_TARGET,
}
"""The wait for the message of an action, by its kind."""

SENDING: Mapping[Kind, Activity] = {
    Kind.FORWARD: Activity.SEND_ACTIVATION,
    Kind.TARGET: Activity.SEND_TARGET,
}
"""The wait for room to send the message of an action, by its kind."""

_KIND_OF = {activity: kind for kind, activity in ACTIONS.items()}
_WAITS = frozenset([*RECEIVING.values(), *SENDING.values()])


class Span(NamedTuple):
    """What a stage did with a minibatch from ``start`` to ``end``, in seconds of one clock; -1 is none."""

    activity: Activity
    minibatch: int
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start

    def moved(self, seconds: float) -> "Span":
        """The same so many seconds later."""
        return self._replace(start=self.start + seconds, end=self.end + seconds)
