"""A pipeline looks alike wherever it is drawn: one colour an action, stage 0 on top, time to the right."""

from __future__ import annotations

import json
import re
from colorsys import rgb_to_hsv
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import ImageColor

import dtp_dist
from dtp_dist.charts import palette
from dtp_dist.charts.palette import ANGLES, CHROME, COLOURS
from dtp_dist.monitor import write_trace
from dtp_dist.monitor.tensorboard.timeline_picture import timeline_picture
from dtp_dist.planning.page import plan_page
from dtp_dist.planning.plan import Plan, make_plan
from dtp_dist.profiling.costs import pipeline_of
from dtp_dist.report import read_run
from dtp_dist.report.page import page
from dtp_dist.runtime.layout import Layout
from dtp_dist.schedule import ACTIONS, Activity
from run_folders import write_run
from runs import small_config

STAGES = 3
CATAPULT = {
    "generic_work": (125, 125, 125),
    "rail_response": (67, 135, 253),
    "rail_load": (13, 168, 97),
    "rail_idle": (238, 142, 0),
    "thread_state_uninterruptible": (182, 125, 143),
    "thread_state_runnable": (133, 160, 210),
    "black": (0, 0, 0),
}
"""What chrome://tracing draws for its names of colours."""


@pytest.fixture(scope="module")
def plan() -> Plan:
    config = small_config(f"parallel.in_flight={STAGES}")
    return make_plan(config, pipeline_of(config, (), measured=False), [STAGES], keep=9)


def traced(plan: Plan, path: Path) -> str:
    """Return the plan's predicted trace, as a run writes it."""
    (simulation,) = plan.chosen.simulations.values()
    write_trace(path, simulation.spans(), Layout(plan.chosen.partition, STAGES))
    return path.read_text()


class Drawn(NamedTuple):
    x: float
    y: float
    colour: str
    activity: Activity
    minibatch: int


def blocks(html: str) -> list[Drawn]:
    """Return the blocks of a timeline on a page, by what they say under the mouse."""
    place, said = r'<rect x="([\d.]+)" y="([\d.]+)" [^>]*fill="(#\w+)">', r"([a-z ]+), minibatch (\d+):"
    found = re.findall(f"{place}<title>(?:stage [0-9], )?{said}", html)
    return [Drawn(float(x), float(y), colour, Activity(name), int(k)) for x, y, colour, name, k in found]


@pytest.fixture(params=["plan", "report"])
def timeline(request, plan, tmp_path) -> list[Drawn]:
    """The same minibatches as the plan's page draws them, and the report of a run that did as planned."""
    if request.param == "plan":
        return blocks(plan_page(plan))
    return blocks(page([read_run(write_run(tmp_path / "run", trace=traced(plan, tmp_path / "trace")))]))


def test_pages_draw_actions_in_the_colours_of_the_palette(timeline):
    assert {block.activity for block in timeline} >= set(ACTIONS.values())
    assert {block.colour for block in timeline if block.colour != COLOURS[block.activity]} == set()


def test_pages_draw_stage_0_on_top_and_time_to_the_right(timeline):
    """A minibatch goes down through the stages, and then its target comes up again, both to the right."""
    last = max(block.minibatch for block in timeline)
    up, down = (
        sorted(block for block in timeline if (block.activity, block.minibatch) == (activity, last))
        for activity in (Activity.FORWARD, Activity.TARGET)
    )
    rows = [block.y for block in up]
    assert len(set(rows)) == STAGES
    assert rows == sorted(rows)
    assert rows == [block.y for block in reversed(down)]
    assert up[-1].x < down[0].x


def test_tensorboard_draws_the_same_colours(plan):
    (simulation,) = plan.chosen.simulations.values()
    image = timeline_picture(simulation.spans(), Layout(plan.chosen.partition, STAGES))
    assert image is not None
    drawn = {colour for _, colour in image.getcolors(1 << 24)}
    assert {ImageColor.getrgb(COLOURS[activity]) for activity in ACTIONS.values()} <= drawn


def test_a_trace_has_a_row_a_stage_in_order_and_the_same_colours(plan, tmp_path):
    events = json.loads(traced(plan, tmp_path / "trace"))["traceEvents"]
    places = [
        (each["tid"], each["args"]["sort_index"]) for each in events if each["name"] == "thread_sort_index"
    ]
    assert places == [(stage, stage) for stage in range(STAGES)]
    bars = [each for each in events if each["ph"] == "X"]
    assert {each["cname"] for each in bars} >= {CHROME[activity] for activity in ACTIONS.values()}
    assert all(each["cname"] == CHROME[Activity(each["args"]["kind"])] for each in bars)


@pytest.mark.parametrize("activity", ACTIONS.values())
def test_a_trace_has_the_nearest_hue_that_chrome_knows(activity):
    def hue(colour: tuple[int, ...]) -> float:
        return rgb_to_hsv(*(part / 255 for part in colour))[0]

    def distance(name: str) -> float:
        apart = abs(hue(CATAPULT[name]) - hue(ImageColor.getrgb(COLOURS[activity])))
        return min(apart, 1 - apart)

    assert CATAPULT.keys() == set(CHROME.values())
    assert min(CATAPULT, key=distance) == CHROME[activity]


def test_every_activity_has_a_colour_of_its_own():
    assert COLOURS.keys() == set(Activity)
    assert len(set(COLOURS.values())) == len(Activity)
    assert CHROME.keys() == {activity for activity in Activity if activity.computes}
    assert set(ANGLES.values()) < {COLOURS[activity] for activity in ACTIONS.values()}


def test_the_colours_of_activities_stand_in_the_palette_alone():
    package, mine = Path(dtp_dist.__file__).parent, Path(palette.__file__)
    found = [
        (path.name, colour)
        for path in package.rglob("*.py")
        for colour in COLOURS.values()
        if path != mine and colour in path.read_text().lower()
    ]
    assert found == []
