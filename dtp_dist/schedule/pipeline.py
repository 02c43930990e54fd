"""The schedule of one segment, for all stages."""

from collections.abc import Iterator
from dataclasses import dataclass

from dtp_dist.flow import TWO_WAVES, Flow
from dtp_dist.phase import Phase
from dtp_dist.schedule.actions import Action, stage_actions


@dataclass(frozen=True, slots=True)
class Schedule:
    """The schedule of one segment, for all stages; ScheduleError for values that make none."""

    stages: int
    minibatches: range
    in_flight: int
    phase: Phase = Phase.BOTH
    flow: Flow = TWO_WAVES

    def __post_init__(self) -> None:
        self.actions(0)

    def actions(self, stage: int) -> Iterator[Action]:
        """The actions of `stage`, lazily; ScheduleError if there is no such stage."""
        return stage_actions(stage, self.stages, self.minibatches, self.in_flight, self.phase, self.flow)

    def rows(self) -> list[list[Action]]:
        """The actions of all stages, as lists."""
        return [list(self.actions(stage)) for stage in range(self.stages)]
