"""What a driver counts in a run, as plain data, so that a run that continues ends with the same result."""

from __future__ import annotations

from dataclasses import dataclass, field

from dtp_dist.algorithm.meter import Meter
from dtp_dist.runtime.segment import SegmentResult
from dtp_dist.storage.manifest import Mark, TotalsState


@dataclass
class Totals:
    """Sums over the training segments so far.

    Attributes:
        step: minibatches whose last update is done.
        epoch: 0-based.
        seconds: of the training segments alone; ``examples``, ``busy`` (per stage, seconds) and ``reading``
            (seconds of the first stage) likewise.
        evaluated: the newest evaluation's losses and metrics, named as ``valid_error``.
        best: the best evaluation, where the best checkpoint is kept.
        improved: the last one that was better than those before it by enough (``train.min_delta``), and
        waited: the epochs from it to the newest, where ``train.patience`` counts them.
        epoch_examples: of the training segments of this epoch; ``epoch_seconds`` likewise.
    """

    step: int = 0
    epoch: int = 0
    bytes_sent: int = 0
    examples: int = 0
    seconds: float = 0.0
    busy: list[float] = field(default_factory=list)
    reading: float = 0.0
    evaluated: dict[str, float] = field(default_factory=dict)
    this_epoch: Meter = field(default_factory=Meter)
    before: Meter = field(default_factory=Meter)
    best: Mark | None = None
    improved: Mark | None = None
    waited: int = 0
    epoch_examples: int = 0
    epoch_seconds: float = 0.0

    def count(self, result: SegmentResult, *, learns: bool) -> None:
        """Count a training segment; ``learns``: whether its examples and losses count (not in I alone)."""
        self.seconds += result.seconds
        self.reading += result.reading
        self.epoch_seconds += result.seconds
        self.bytes_sent += result.bytes_sent
        if len(self.busy) != len(result.stages):  # a run that continues with another number of stages
            self.busy = [0.0] * len(result.stages)
        self.busy = [total + stage.busy for total, stage in zip(self.busy, result.stages, strict=True)]
        if learns:
            self.examples += result.examples
            self.epoch_examples += result.examples
            self.this_epoch.add_all(result.means, result.examples)

    def end_epoch(self) -> None:
        """Begin a new epoch's means and speed."""
        self.before = self.this_epoch.take()
        self.epoch_examples, self.epoch_seconds = 0, 0.0

    def epoch_values(self) -> dict[str, float]:
        """Return the epoch's mean loss and metrics (where they are measured), its speed and that so far.

        Their names are not those of the values between two lines, of which a curve of its own is drawn.
        """
        values = {f"train_{name}_of_epoch": value for name, value in self.this_epoch.means().items()}
        values["samples_per_second_of_epoch"] = self.epoch_examples / max(self.epoch_seconds, 1e-9)
        values["samples_per_second_so_far"] = self.samples_per_second
        return values

    def last_epoch(self) -> dict[str, float]:
        """Return loss and metrics of the epoch that is going on, or of the one that has just ended."""
        return (self.this_epoch if self.this_epoch.weight("loss") else self.before).means()

    @property
    def samples_per_second(self) -> float:
        """Training examples per second of training segments."""
        return self.examples / max(self.seconds, 1e-9)

    @property
    def reading_share(self) -> float:
        """The share of the training segments' time in which the first stage read, or waited for its data."""
        return self.reading / max(self.seconds, 1e-9)

    def busy_shares(self) -> list[float]:
        """Return each stage's busy share of the training segments' time."""
        return [busy / max(self.seconds, 1e-9) for busy in self.busy]

    def state(self) -> TotalsState:
        """Return everything but step and epoch as plain data."""
        return TotalsState(
            bytes_sent=self.bytes_sent,
            examples=self.examples,
            seconds=self.seconds,
            busy=list(self.busy),
            reading=self.reading,
            errors=dict(self.evaluated),
            this_epoch=self.this_epoch.state(),
            before=self.before.state(),
            best=self.best,
            improved=self.improved,
            waited=self.waited,
            epoch_examples=self.epoch_examples,
            epoch_seconds=self.epoch_seconds,
        )

    @classmethod
    def from_state(cls, state: TotalsState, step: int, epoch: int) -> Totals:
        """Return the totals that ``state`` came from."""
        return cls(
            step=step,
            epoch=epoch,
            bytes_sent=state.bytes_sent,
            examples=state.examples,
            seconds=state.seconds,
            busy=list(state.busy),
            reading=state.reading,
            evaluated={_in_full(name): value for name, value in state.errors.items()},
            this_epoch=Meter.from_state(state.this_epoch),
            before=Meter.from_state(state.before),
            best=state.best,
            improved=state.improved,
            waited=state.waited,
            epoch_examples=state.epoch_examples,
            epoch_seconds=state.epoch_seconds,
        )


def _in_full(name: str) -> str:
    """Return the name of an evaluated value; errors were once told by their split alone."""
    return name if "_" in name else f"{name}_error"
