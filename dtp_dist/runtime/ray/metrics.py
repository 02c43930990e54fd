"""What Ray's own metrics show of a run: gauges that the driver sets when a stage reports."""

from __future__ import annotations

import time
from collections.abc import Callable

from ray.util.metrics import Gauge

from dtp_dist.runtime.segment import Report, Segment


class RayMetrics:
    """Samples/s of the run, busy share and mean inverse loss of every stage; tags: run, stage.

    Args:
        run: the run's name.
        last: number of the last stage, whose reports say how far the run is.
        batch_size: examples in a minibatch.
        gauge: makes a gauge from name, description and tag keys.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        run: str,
        last: int,
        batch_size: int,
        gauge: Callable[[str, str, tuple[str, ...]], Gauge] = Gauge,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._last, self._batch_size, self._clock = {"run": run}, last, batch_size, clock
        self._speed = gauge("dtp_dist_samples_per_second", "Samples trained per second", ("run",))
        self._busy = gauge("dtp_dist_stage_busy", "Share of time that a stage computes", ("run", "stage"))
        self._loss = gauge(
            "dtp_dist_stage_inverse_loss", "Mean inverse loss of a stage's layers", ("run", "stage")
        )
        self._mark = (0, clock())

    def begin(self, segment: Segment) -> None:
        """Start to measure speed: nothing before this segment counts."""
        self._mark = (segment.first, self._clock())

    def report(self, report: Report) -> None:
        """Take one stage's report."""
        tags = {**self._run, "stage": str(report.stage)}
        values = report.values
        self._busy.set(values[f"stage/{report.stage}/busy"], tags)
        losses = [value for name, value in values.items() if name.endswith("/inverse_loss")]
        if losses:
            self._loss.set(sum(losses) / len(losses), tags)
        if report.stage == self._last:
            (before, since), now, done = self._mark, self._clock(), report.minibatch + 1
            self._speed.set((done - before) * self._batch_size / max(now - since, 1e-9), self._run)
            self._mark = (done, now)
