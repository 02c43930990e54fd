"""A segment: one phase over a range of minibatches, drained at its end; and what comes back from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from dtp_dist.schedule import Phase


@dataclass(frozen=True)
class Segment:
    """``count`` minibatches of ``split`` from number ``first`` on.

    Attributes:
        epoch: 0-based.
        first: number of the first minibatch, counted from the run's start (from 0 in an evaluation).
        offset: place of the first minibatch within its epoch.
        passes: how often each minibatch of the data comes, under a number of its own (in an evaluation).
        repeat: which it is of several passes of inverse updates over the same minibatches, from 0.
    """

    phase: Phase
    split: str
    epoch: int
    first: int
    count: int
    offset: int
    passes: int = 1
    repeat: int = 0

    @property
    def minibatches(self) -> range:
        """The numbers of its minibatches."""
        return range(self.first, self.first + self.count)

    @property
    def trains(self) -> bool:
        """Whether anything learns in it."""
        return self.phase is not Phase.EVALUATE

    def index(self, minibatch: int) -> int:
        """Return a minibatch's place within its epoch."""
        return self.offset + (minibatch - self.first) // self.passes


@dataclass(frozen=True)
class Report:
    """What a stage measured since its last report, when ``minibatch`` was done in it."""

    stage: int
    segment: Segment
    minibatch: int
    values: dict[str, float]


@dataclass(frozen=True)
class StageSummary:
    """What a stage did in a segment; times in seconds, sums over the segment.

    ``reading`` is what it took the first stage to get its minibatches, and part of ``busy``.
    """

    busy: float
    waiting: float
    bytes_sent: int
    reading: float = 0.0
    examples: int = 0
    means: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SegmentResult:
    """What all stages did in a segment that took ``seconds``; ``means`` are the last stage's."""

    seconds: float
    stages: list[StageSummary]

    @property
    def means(self) -> dict[str, float]:
        """The output's loss and metrics by name, where the phase measures them (docs/losses.md)."""
        return self.stages[-1].means

    @property
    def reading(self) -> float:
        """Seconds in which the first stage read its minibatches, or waited for who reads them ahead."""
        return self.stages[0].reading

    @property
    def examples(self) -> int:
        """Examples that reached the output."""
        return self.stages[-1].examples

    @property
    def bytes_sent(self) -> int:
        """Bytes of all messages."""
        return sum(stage.bytes_sent for stage in self.stages)
