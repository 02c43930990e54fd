"""Runs that differ by their seed alone are one line with a band, and one row."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dtp_dist.charts.curve import Curve
from dtp_dist.charts.svg import line_chart
from dtp_dist.report import read_run
from dtp_dist.report.groups import Group, Point, Spread, grouped, spread
from dtp_dist.report.page import page
from dtp_dist.report.read import Run
from run_folders import CONFIG, FINISHED, RESULT, STARTED, at, write_run


def seeded(folder: Path, name: str, seed: int, error: float, more: str = "", **files: str) -> Run:
    """Write and read a run of 30 minibatches whose test error is ``error``, a point before twice that."""
    lines = [STARTED, at(15, test_error=2 * error), at(30, test_error=error), FINISHED]
    config = f"{CONFIG}\nseed: {seed}\nrule: {{name: dtp}}\ndata: {{name: mnist}}\n{more}"
    result = json.dumps({**RESULT, "test_error": error})
    return read_run(write_run(folder / name, lines, **{"config": config, "result": result, **files}))


def members(groups: list[Group]) -> dict[str, list[str]]:
    return {group.name: [run.path.name for run in group.runs] for group in groups}


def test_a_spread_is_the_mean_and_the_deviation_of_a_sample():
    assert spread([]) is None
    assert spread([3.0]) == Spread(3.0, None, 1)
    assert spread([2.0, 4.0, 6.0]) == Spread(4.0, 2.0, 3)
    assert Spread(4.0, 2.0, 3).written(str) == "4.0 ± 2.0"
    assert Spread(4.0, None, 1).written(str) == "4.0"


def test_runs_that_differ_by_their_seed_and_by_names_alone_are_a_group(tmp_path):
    runs = [
        seeded(tmp_path, "dtp-seed0", 0, 4.0, "monitor: {every: 5}"),
        seeded(tmp_path, "other-seed0", 0, 9.0, "train: {epochs: 3}"),
        seeded(tmp_path, "dtp-seed1", 1, 6.0, "run_dir: elsewhere"),
        seeded(tmp_path, "dtp-seed2", 2, 8.0, "compare: {backprop: {}}"),
    ]
    groups = grouped(runs)
    assert members(groups) == {
        "dtp (3 seeds)": ["dtp-seed0", "dtp-seed1", "dtp-seed2"],
        "other-seed0": ["other-seed0"],
    }
    assert (groups[0].seeds, groups[0].last("test_error")) == ("0-2", Spread(6.0, 2.0, 3))
    assert groups[0].series("test_error") == [
        Point(15, Spread(12.0, 4.0, 3)),
        Point(30, Spread(6.0, 2.0, 3)),
    ]
    assert groups[0].over_time("test_error")[1] == Point(3.0, Spread(6.0, 2.0, 3))
    assert groups[0].over_epochs("test_error") == [Point(1, Spread(6.0, 2.0, 3))]


def test_a_seed_is_in_a_group_once_and_what_can_t_be_read_is_in_none(tmp_path):
    again = seeded(tmp_path, "again", 0, 4.0)
    first, second = seeded(tmp_path, "a", 0, 4.0), seeded(tmp_path, "b", 1, 5.0)
    broken = [seeded(tmp_path, name, 3, 5.0, config="- 1") for name in ("c", "d")]
    groups = grouped([first, again, second, *broken])
    assert [[run.path.name for run in group.runs] for group in groups] == [
        ["a", "b"],
        ["again"],
        ["c"],
        ["d"],
    ]
    assert groups[0].name == "digits (2 seeds)", "nothing in common: the experiment's name"


def test_figures_are_of_the_runs_that_are_done_and_curves_of_all(tmp_path):
    failed = [STARTED, at(15, test_error=50.0), at(15, event="failed", message="a NaN")]
    metrics = "".join(json.dumps(line) + "\n" for line in failed)
    done = seeded(tmp_path, "a-0", 0, 4.0)
    (group,) = grouped([done, seeded(tmp_path, "a-1", 1, 4.0, metrics=metrics, result="")])
    assert group.last("test_error") == Spread(4.0, None, 1)
    assert [point.spread.runs for point in group.series("test_error")] == [2, 1]
    assert '<span class="failed">1 done, 1 failed</span>' in page(list(group.runs))


def test_the_page_has_one_row_and_one_banded_line_for_a_group_and_each_run_by_itself(tmp_path):
    runs = [seeded(tmp_path, f"dtp-seed{seed}", seed, 4.0 + 2 * seed) for seed in range(3)]
    text = page([*runs, seeded(tmp_path, "alone", 0, 9.0, "train: {epochs: 3}")])
    summary = text.partition("<details>")[0]
    assert summary.count("<tr>") == 3, "the head, the group, the run alone"
    assert "6.00 ± 2.00" in summary
    assert "<td>0-2</td>" in summary
    each = text.partition("<details>")[2].partition("</details>")[0]
    assert each.count("<tr>") == 5
    assert "dtp-seed1" in each
    curves = re.findall(r'aria-label="test error, %">(.*?)</svg>', text, re.DOTALL)[0]
    assert curves.count("<polyline") == 2
    assert curves.count('<polygon class="band"') == 1
    assert "dtp (3 seeds): 6 ± 2 at 30" in curves
    assert "one standard deviation" in text
    assert "<td>0-2</td><td>0</td>" in text, "seeds are among what differs"


def test_single_runs_have_neither_band_nor_a_second_table(tmp_path):
    text = page([seeded(tmp_path, "a", 0, 4.0), seeded(tmp_path, "b", 0, 4.0, "train: {epochs: 3}")])
    assert "polygon" not in text
    assert "<details" not in text


@pytest.mark.parametrize(
    ("points", "band", "log"),
    [([(1, 1.0), (2, 100.0)], {1: 0.5, 2: 30.0}, True), ([(1, 5.0)], {1: 9.0}, None)],
)
def test_a_band_lies_within_the_picture(points: Any, band: Any, log: Any):
    text = line_chart("t", [Curve("a", points, "#000000", "", band)], x_label="x", log=log)
    (path,) = re.findall(r'class="band" points="([^"]+)"', text)
    heights = [float(pair.split(",")[1]) for pair in path.split()]
    assert len(heights) == 4, "up and down, at two places"
    assert all(30 <= height <= 238 for height in heights)
    ticks = [float(each.replace(",", "")) for each in re.findall(r'text-anchor="end">([^<]+)<', text)]
    assert max(ticks) >= max(y + band[x] for x, y in points), "the axis has room for the upper edge"
