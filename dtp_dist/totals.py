"""What a driver counts in a run, as plain data, so that a run that goes on ends with the same result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dtp_dist.algorithm.meter import Meter
from dtp_dist.runtime.segment import SegmentResult


@dataclass
class Totals:
    """Sums over the training segments so far.

    Attributes:
        step: minibatches whose last update is done.
        epoch: 0-based.
        seconds: of the training segments alone; ``examples`` and ``busy`` (per stage, seconds) likewise.
        errors: percent, by split, of the newest evaluation.
    """

    step: int = 0
    epoch: int = 0
    bytes_sent: int = 0
    examples: int = 0
    seconds: float = 0.0
    busy: list[float] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    this_epoch: Meter = field(default_factory=Meter)
    before: Meter = field(default_factory=Meter)

    def count(self, result: SegmentResult, *, learns: bool) -> None:
        """Count a training segment; ``learns``: whether its examples and losses count (not in I alone)."""
        self.seconds += result.seconds
        self.bytes_sent += result.bytes_sent
        if len(self.busy) != len(result.stages):  # a run that goes on with another number of stages
            self.busy = [0.0] * len(result.stages)
        self.busy = [total + stage.busy for total, stage in zip(self.busy, result.stages, strict=True)]
        if learns:
            self.examples += result.examples
            self.this_epoch.add_all(result.means, result.examples)

    def end_epoch(self) -> None:
        """Begin a new epoch's means."""
        self.before = self.this_epoch.take()

    def epoch_values(self) -> dict[str, float]:
        """Return training loss, error (where they are measured) and speed for a line of metrics."""
        values = {f"train_{name}": value for name, value in self.this_epoch.means().items()}
        return {**values, "samples_per_second": self.samples_per_second}

    def last_epoch(self) -> dict[str, float]:
        """Return loss and error of the epoch that is going on, or of the one that has just ended."""
        return (self.this_epoch if self.this_epoch.weight("loss") else self.before).means()

    @property
    def samples_per_second(self) -> float:
        """Training examples per second of training segments."""
        return self.examples / max(self.seconds, 1e-9)

    def busy_shares(self) -> list[float]:
        """Return each stage's busy share of the training segments' time."""
        return [busy / max(self.seconds, 1e-9) for busy in self.busy]

    def state(self) -> dict[str, Any]:
        """Return everything but step and epoch as plain data."""
        return {
            "bytes_sent": self.bytes_sent,
            "examples": self.examples,
            "seconds": self.seconds,
            "busy": self.busy,
            "errors": self.errors,
            "this_epoch": self.this_epoch.state(),
            "before": self.before.state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], step: int, epoch: int) -> Totals:
        """Return the totals that ``state`` came from."""
        fields: dict[str, Any] = dict(state)
        for name in ("this_epoch", "before"):
            fields[name] = Meter.from_state(state[name])
        return cls(step=step, epoch=epoch, **fields)
