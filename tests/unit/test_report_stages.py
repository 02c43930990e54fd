"""What the report tells of stages: where their time went, and what they waited for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dtp_dist.report import read_run
from dtp_dist.report.page import page
from dtp_dist.report.read import Run
from dtp_dist.report.spans import spans_of
from dtp_dist.report.stages import longest_wait, shares
from dtp_dist.schedule import Activity
from run_folders import TRACE, span, write_run

IDLE = Activity.IDLE


def test_shares_are_of_the_common_time_and_sum_to_one(tmp_path):
    found = shares(read_run(write_run(tmp_path / "run")))
    assert found[0] == pytest.approx({"forward": 0.2, "wait for target": 0.6, "target": 0.2, IDLE: 0.0})
    assert found[1] == pytest.approx({"wait for activation": 0.3, "update": 0.6, IDLE: 0.1})


def test_without_recorded_waits_gaps_count_for_what_follows_them(tmp_path):
    bare = {"traceEvents": [each for each in TRACE["traceEvents"] if each.get("cat") != "wait"]}
    found = shares(read_run(write_run(tmp_path / "run", trace=json.dumps(bare))))
    assert found[0] == pytest.approx({"forward": 0.2, "target": 0.2, "wait for target": 0.6, IDLE: 0.0})


def bar(stage: int, kind: str, start: float, end: float, waited: float, sent: float) -> dict[str, Any]:
    """Return an action as today's traces have it: its kind and its waits are in its arguments."""
    args = {"kind": kind, "minibatch": 7, "layers": "1-2", "waited_ms": waited, "send_ms": sent}
    return {**span(stage, f"called {kind}", start, end), "args": args}


def a_run_that_waits(folder: Path, *stages: list[tuple[str, float, float, float, float]]) -> Run:
    """Return a run with the actions (kind, start, end, waited, sent) of each stage, in milliseconds."""
    bars = [bar(stage, *action) for stage, actions in enumerate(stages) for action in actions]
    name = {"ph": "M", "tid": 1, "name": "thread_name", "args": {"name": "stage 1 (layers 3-5)"}}
    return read_run(write_run(folder / "run", trace=json.dumps({"traceEvents": [name, *bars]})))


def test_what_an_action_waited_for_is_read_from_the_trace(tmp_path):
    """Real traces have no spans of waits; their length is in the arguments of the action beside them."""
    run = a_run_that_waits(tmp_path, [("data", 0, 10, 0, 0)], [("target", 6, 9, 4, 1)])
    assert shares(run)[1] == pytest.approx(
        {"target": 0.3, "wait for target": 0.4, "send target": 0.1, IDLE: 0.2}
    )
    assert "wait for target, minibatch 7: 4 ms" in page([run])


@pytest.mark.parametrize(
    ("stages", "due"),
    [
        (
            ([("target", 8, 10, 6, 0)], [("update", 0, 9, 0, 0)]),
            "Longest wait: stage 0, 60 % of this time for targets from stage 1 (layers 3-5); "
            "that one computed for 90 %.",
        ),
        (
            ([("forward", 0, 1, 0, 7)], [("forward", 5, 10, 5, 0)]),
            "Longest wait: stage 0, 70 % of this time for room to send activations to stage 1 (layers 3-5); "
            "that one computed for 50 %.",
        ),
        (
            ([("target", 9, 10, 9, 0)], [("target", 7, 9, 7, 0)], [("update", 0, 7, 0, 0)]),
            "Longest wait: stage 0, 90 % of this time for targets from stage 1 (layers 3-5), "
            "which itself waited for stage 2; that one computed for 70 %.",
        ),
        (
            ([("forward", 0, 10, 0, 0)], [("forward", 6, 10, 6, 0)]),
            "Longest wait: stage 1 (layers 3-5), 60 % of this time for activations from stage 0; "
            "that one computed for 100 %.",
        ),
        (([("forward", 0, 1, 0, 0)],), "No stage waited for another."),
    ],
)  # fmt: skip
def test_the_longest_wait_names_its_stage_and_its_cause(tmp_path, stages, due):
    run = a_run_that_waits(tmp_path, *stages)
    assert longest_wait(run, shares(run)) == due


def test_what_is_measured_between_a_target_and_its_sending_does_not_hide_the_wait(tmp_path):
    """The room for the target was waited for after the alignment, and counted for nothing."""
    actions = [("target", 0, 3, 0, 0), ("alignment", 3, 5, 0, 5)]
    found = shares(a_run_that_waits(tmp_path, [("data", 0, 10, 0, 0)], actions))
    assert found[1] == pytest.approx({"target": 0.3, "alignment": 0.2, "send target": 0.5, IDLE: 0.0})


def test_a_kind_that_is_not_known_is_another_action():
    events = [bar(0, kind, 0, 4, 1, 1) for kind in ("forwards", "wait, I say", "")]
    trace, _ = spans_of({"traceEvents": [*events, {**span(0, "send more", 0, 4), "args": {}}]})
    assert [(each.activity, each.minibatch) for each in trace[0]] == [
        *[(Activity.OTHER, 7)] * 3,
        (Activity.OTHER, -1),
    ]
    assert all(each.activity.computes for each in trace[0])
