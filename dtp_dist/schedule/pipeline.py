"""The schedule of one segment, for all stages."""

from collections.abc import Iterator
from dataclasses import dataclass

from dtp_dist.schedule.actions import Action, Phase, stage_actions
from dtp_dist.schedule.checking import validate
from dtp_dist.schedule.drawing import draw


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
