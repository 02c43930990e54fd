"""One line of metrics from the reports of all stages."""

from __future__ import annotations

import time

from dtp_dist.monitor.base import Monitors
from dtp_dist.runtime.segment import Report
from dtp_dist.schedule import Phase
from dtp_dist.system.process import resident_bytes
from dtp_dist.text.numbers import short

DIVERGED = 1e5
"""A train loss that no run comes back from: cross-entropy begins at the logarithm of the classes.

Of one in the labels' own units, so many times the first.
"""


class Collector:
    """Waits until every stage has reported on a minibatch, then gives the monitors one line.

    ``any_units``: the loss is in the labels' own units.
    """

    def __init__(self, monitors: Monitors, stages: int, batch_size: int, *, any_units: bool = False) -> None:
        self._monitors, self._stages, self._batch_size = monitors, stages, batch_size
        self._waiting: dict[tuple[str, int], list[Report]] = {}
        self._last: tuple[int, float] | None = None
        self.reached = 0
        """Minibatches that a stage's updates have come to, as far as was reported."""
        self._warned = False
        self._most_loss = None if any_units else DIVERGED

    def begin(self, first: int) -> None:
        """Start to measure speed at minibatch ``first``: nothing before it counts."""
        self._last = (first, time.monotonic())
        self.reached = first

    def forget(self) -> None:
        """Drop what stages of a lost generation have reported."""
        self._waiting.clear()

    def report(self, report: Report) -> None:
        """Take one stage's report."""
        key = (str(report.segment.phase), report.minibatch)
        gathered = self._waiting.setdefault(key, [])
        gathered.append(report)
        if len(gathered) == self._stages:
            del self._waiting[key]
            self._tell(gathered)

    def _tell(self, reports: list[Report]) -> None:
        segment, done = reports[0].segment, reports[0].minibatch + 1
        values: dict[str, float] = {}
        for report in sorted(reports, key=lambda each: each.stage):
            values.update({_told(name): value for name, value in report.values.items()})
        busy = [value for name, value in values.items() if name.endswith("/busy")]
        if busy:
            values["idle"] = 1.0 - sum(busy) / len(busy)
        values["driver/memory_mb"] = resident_bytes() / 1e6
        now = time.monotonic()
        if self._last is not None and done > self._last[0]:
            examples = (done - self._last[0]) * self._batch_size
            values["samples_per_second"] = examples / max(now - self._last[1], 1e-9)
        self._last = (done, now)
        self.reached = segment.first if segment.phase is Phase.INVERSE else done
        if "train_loss" in values and self._diverges(values["train_loss"]):
            text = f"train loss {short(values['train_loss'])} at minibatch {done}: the run diverges"
            text += "; lower learning rates may help"
            self._monitors.event(segment.first, segment.epoch + 1, "warning", message=text)
        if segment.phase is Phase.INVERSE:
            self._monitors.values(
                segment.first, segment.epoch + 1, values, minibatch=done, phase=str(segment.phase)
            )
        else:
            self._monitors.values(done, segment.epoch + 1, values)

    def _diverges(self, loss: float) -> bool:
        """Return whether a train loss shows for the first time that the run diverges."""
        if self._most_loss is None:
            self._most_loss = DIVERGED * loss
        diverges = loss > self._most_loss and not self._warned
        self._warned = self._warned or diverges
        return diverges


def _told(name: str) -> str:
    """Return the name of a reported value in a line: the outputs' own are those of training."""
    return name if "/" in name else f"train_{name}"
