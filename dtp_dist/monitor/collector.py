"""One line of metrics from the reports of all stages."""

from __future__ import annotations

import time

from dtp_dist.monitor.base import Monitors
from dtp_dist.runtime.kernel import resident_bytes
from dtp_dist.runtime.segment import Report
from dtp_dist.schedule import Phase

_NAMES = {"loss": "train_loss", "error": "train_error"}


class Collector:
    """Waits until every stage has reported on a minibatch, then tells the monitors one line."""

    def __init__(self, monitors: Monitors, stages: int, batch_size: int) -> None:
        self._monitors, self._stages, self._batch_size = monitors, stages, batch_size
        self._waiting: dict[tuple[str, int], list[Report]] = {}
        self._last: tuple[int, float] | None = None

    def begin(self, first: int) -> None:
        """Start to measure speed at minibatch ``first``: nothing before it counts."""
        self._last = (first, time.monotonic())

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
            values.update({_NAMES.get(name, name): value for name, value in report.values.items()})
        busy = [value for name, value in values.items() if name.endswith("/busy")]
        if busy:
            values["idle"] = 1.0 - sum(busy) / len(busy)
        values["driver/memory_mb"] = resident_bytes() / 1e6
        now = time.monotonic()
        if self._last is not None and done > self._last[0]:
            examples = (done - self._last[0]) * self._batch_size
            values["samples_per_second"] = examples / max(now - self._last[1], 1e-9)
        self._last = (done, now)
        if segment.phase is Phase.INVERSE:
            self._monitors.values(
                segment.first, segment.epoch + 1, values, minibatch=done, phase=str(segment.phase)
            )
        else:
            self._monitors.values(done, segment.epoch + 1, values)
