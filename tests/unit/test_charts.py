"""Charts of the report: axes, ticks, and colours."""

from __future__ import annotations

import random
import re

import pytest

from dtp_dist.charts.axis import Axis, axis_of
from dtp_dist.charts.curve import Curve
from dtp_dist.charts.palette import PALETTE
from dtp_dist.charts.svg import LEFT, POINTS, RIGHT, WIDTH, line_chart, thin
from dtp_dist.charts.svg import timeline as draw_timeline
from dtp_dist.report import read_run
from dtp_dist.report.page import page
from run_folders import at, write_run


@pytest.mark.parametrize(
    ("values", "due"),
    [
        ((0.0, 7.3), Axis(0.0, 8.0)),
        ((96.0, 98.0), Axis(96.0, 98.0)),
        ((0.002, 3.0), Axis(0.001, 10.0, log=True)),
        ((0.0, 0.002, 3.0), Axis(0.001, 10.0, log=True)),
        ((-1.0, 900.0), Axis(-200.0, 1000.0)),
        ((5.0, 5.0), Axis(0.0, 10.0)),
        ((0.0, 0.0), Axis(0.0, 1.0)),
        ((-2.0,), Axis(-4.0, 0.0)),
    ],
)
def test_an_axis_holds_all_values_and_is_round(values, due):
    axis = axis_of(values)
    assert (axis.log, axis.low, axis.high) == (due.log, pytest.approx(due.low), pytest.approx(due.high))
    ticks = axis.ticks()
    assert 3 <= len(ticks) <= 11
    assert axis.low - 1e-9 <= ticks[0]
    assert ticks[-1] <= axis.high * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_no_tick_is_beyond_the_end_of_its_axis(seed):
    """A tick above the axis was drawn at its end: "8" at 7.5."""
    source = random.Random(seed)
    for _ in range(200):
        low = source.choice([0.0, source.uniform(-10, 10) * 10.0 ** source.randint(-5, 5)])
        high = low + source.uniform(0.1, 10) * 10.0 ** source.randint(-2, 5)
        for axis in (axis_of([low, high], log=False), axis_of([low, high], log=True), Axis(low, high)):
            within = 1e-6 * (axis.high - axis.low)
            assert axis.log or axis.low - within <= low < high <= axis.high + within
            ticks = axis.ticks()
            assert len(ticks) >= 3
            assert axis.low - within <= ticks[0] < ticks[-1] <= axis.high + within


@pytest.mark.parametrize("last", [7.5, 144, 107.5, 0.95, 33])
def test_a_chart_draws_ticks_where_they_are(last):
    text = line_chart("t", [Curve("a", [(0.0, 5.0), (last, 7.5)], "#000000")], x_label="x")
    ticks = re.findall(r'<text x="([\d.]+)" y="255.0" text-anchor="middle">([^<]+)<', text)
    assert len(ticks) >= 3
    for x, said in ticks:
        due = LEFT + float(said.replace(",", "")) / max(last, 1) * (WIDTH - RIGHT - LEFT)
        assert float(x) == pytest.approx(due, abs=0.1)
    timeline = draw_timeline([("a", [])], last, 1000, unit="ms", label="l")
    for x, said in re.findall(r'<text x="([\d.]+)" y="\d+.0" text-anchor="middle">([^<]+)<', timeline):
        assert float(x) == pytest.approx(170 + float(said.replace(",", "")) / last * 814, abs=0.1)


@pytest.mark.parametrize(
    ("values", "due"),
    [
        ((1.0, 1.5), Axis(1.0, 10.0, log=True)),
        ((0.0, 3.0), Axis(1.0, 10.0, log=True)),
        ((-2.0, 0.05), Axis(0.01, 0.1, log=True)),
        ((5e-324, 1.0), Axis(1e-300, 1.0, log=True)),
        ((0.0, 0.0), Axis(0.0, 1.0)),
        ((-1.0, -1.0), Axis(-2.0, 0.0)),
    ],
)
def test_a_logarithmic_axis_takes_whatever_is_measured(values, due):
    axis = axis_of(values, log=True)
    assert (axis.log, axis.low, axis.high) == (due.log, pytest.approx(due.low), pytest.approx(due.high))
    assert 3 <= len(axis.ticks()) <= 11
    assert all(0 <= axis.at(value) <= 1 for value in values)


@pytest.mark.parametrize("kind", ["forward_loss", "displacement"])
@pytest.mark.parametrize(("values", "said"), [((1.0, 2.0), "(log)"), ((0.0, 2.0), "0 at the lower edge")])
def test_forward_loss_and_displacement_have_a_logarithmic_axis_always(tmp_path, kind, values, said):
    lines = [at(10 * step, **{f"layer/1/{kind}": value}) for step, value in enumerate(values, 1)]
    text = page([read_run(write_run(tmp_path / "run", lines))])
    (title,) = re.findall(rf'class="title">([^<]*{kind.replace("_", " ")}[^<]*)<', text)
    assert "log" in title
    assert said in title


def test_a_long_series_keeps_its_peaks():
    points = [(float(step), float(step == 70_001)) for step in range(100_000)]
    kept = thin(points)
    assert len(kept) <= POINTS
    assert (70_001.0, 1.0) in kept
    assert kept == sorted(kept)


def test_busy_bars_have_the_colour_of_their_run(tmp_path):
    runs = [read_run(write_run(tmp_path / name, trace="")) for name in ("a", "b", "c")]
    text = page(runs)
    for colour in PALETTE[:3]:
        assert f'fill="{colour}"><title>stage 0, busy: 25.0 %' in text
