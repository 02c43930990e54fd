"""The gauges of ray.util.metrics: real ones, which refuse a wrong tag, and what was set in them."""

from __future__ import annotations

import pytest
from ray.util.metrics import Gauge

from dtp_dist.runtime.ray.metrics import RayMetrics
from dtp_dist.runtime.segment import Report, Segment
from dtp_dist.schedule import Phase

SEGMENT = Segment(Phase.BOTH, "train", 0, first=40, count=20, offset=0)


class Recorded(Gauge):
    """A gauge that also keeps its last value for every set of tags."""

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        super().__init__(name, description, tag_keys)
        self.kept: dict[tuple[str, ...], float] = {}

    def set(self, value, tags=None):
        super().set(value, tags)
        self.kept[tuple(tags[key] for key in self.info["tag_keys"])] = value


@pytest.fixture
def gauges() -> dict[str, Recorded]:
    return {}


@pytest.fixture
def times() -> list[float]:
    """What the clock shows, last entry first to go."""
    return [14.0, 12.0, 10.0, 0.0]


@pytest.fixture
def metrics(gauges: dict[str, Recorded], times: list[float]) -> RayMetrics:
    def make(name: str, description: str, tags: tuple[str, ...]) -> Recorded:
        return gauges.setdefault(name, Recorded(name, description, tags))

    return RayMetrics("exp", 1, 100, make, times.pop)


def report(stage: int, minibatch: int, **values: float) -> Report:
    named = {name.replace("__", "/"): value for name, value in values.items()}
    return Report(stage, SEGMENT, minibatch, named)


def test_busy_share_and_inverse_loss_are_recorded_by_stage(metrics, gauges):
    metrics.report(report(0, 49, stage__0__busy=0.25, layer__2__inverse_loss=2.0, layer__3__inverse_loss=4.0))
    assert gauges["dtp_dist_stage_busy"].kept == {("exp", "0"): 0.25}
    assert gauges["dtp_dist_stage_inverse_loss"].kept == {("exp", "0"): 3.0}
    assert gauges["dtp_dist_samples_per_second"].kept == {}, "the last stage says how far the run is"


def test_speed_is_measured_from_the_segments_begin_on(metrics, gauges):
    metrics.begin(SEGMENT)
    metrics.report(report(1, 49, stage__1__busy=1.0))
    assert gauges["dtp_dist_samples_per_second"].kept == {("exp",): 10 * 100 / 2.0}
    metrics.report(report(1, 54, stage__1__busy=1.0))
    assert gauges["dtp_dist_samples_per_second"].kept == {("exp",): 5 * 100 / 2.0}
    assert gauges["dtp_dist_stage_inverse_loss"].kept == {}, "a stage may have no inverse"
