"""The trace: bars for actions, gaps for waits, arrows for messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dtp_dist.errors import StorageError
from dtp_dist.monitor import write_trace
from dtp_dist.monitor.trace import on_one_clock
from dtp_dist.profiling.resolve import resolve
from dtp_dist.report.spans import spans_of
from dtp_dist.runtime.layout import Layout
from dtp_dist.runtime.registry import start_runtime
from dtp_dist.runtime.segment import Segment
from dtp_dist.schedule import Activity, Phase, Span
from runs import small_config

LAYOUT = Layout((2, 1), 1)
BELOW = [
    Span(Activity.DATA, 3, 10.0, 10.1),
    Span(Activity.FORWARD, 3, 10.1, 10.5),
    Span(Activity.SEND_ACTIVATION, 3, 10.5, 10.6),
    Span(Activity.INVERSE, 3, 10.6, 10.7),
    Span(Activity.WAIT_TARGET, 3, 10.7, 11.5),
    Span(Activity.TARGET, 3, 11.5, 11.75),
    Span(Activity.UPDATE, 3, 11.75, 12.0),
]
ABOVE = [
    Span(Activity.WAIT_ACTIVATION, 3, 10.0, 10.6),
    Span(Activity.FORWARD, 3, 10.625, 11.0),
    Span(Activity.INVERSE, 3, 11.0, 11.1),
    Span(Activity.TARGET, 3, 11.125, 11.25),
    Span(Activity.SEND_TARGET, 3, 11.25, 11.5),
    Span(Activity.UPDATE, 3, 11.5, 11.6),
]
ACTIONS = ["forward", "inverse", "target", "update"]


def written(path: Path, stages: Sequence[Sequence[Span]], layout: Layout = LAYOUT, **options: Any) -> Any:
    write_trace(path / "trace.json", stages, layout, **options)
    return json.loads((path / "trace.json").read_text())


def of(trace: Any, phase: str) -> list[Any]:
    return [event for event in trace["traceEvents"] if event["ph"] == phase]


def of_3(kind: str, layers: str) -> dict[str, Any]:
    """Return what every bar of minibatch 3 says."""
    return {"kind": kind, "minibatch": 3, "layers": layers}


def bar_at(trace: Any, end: Any) -> Any:
    """Return the one bar that an arrow's end lies in."""
    [bar] = [
        bar
        for bar in of(trace, "X")
        if bar["tid"] == end["tid"] and bar["ts"] <= end["ts"] < bar["ts"] + bar["dur"]
    ]
    return bar


def test_a_row_a_stage_named_and_in_order(tmp_path):
    about = of(written(tmp_path, [BELOW, ABOVE]), "M")
    names = {event["tid"]: event["args"]["name"] for event in about if event["name"] == "thread_name"}
    assert names == {0: "stage 0 (layers 1-2)", 1: "stage 1 (layer 3)"}
    places = {event["tid"]: event["args"] for event in about if event["name"] == "thread_sort_index"}
    assert places == {0: {"sort_index": 0}, 1: {"sort_index": 1}}


def test_an_action_is_a_bar_and_a_wait_is_a_gap(tmp_path):
    trace = written(tmp_path, [BELOW, ABOVE])
    below, above = ([bar for bar in of(trace, "X") if bar["tid"] == stage] for stage in (0, 1))
    assert [bar["name"] for bar in below] == ["data", *ACTIONS]
    assert [bar["name"] for bar in above] == ACTIONS
    assert len({bar["cname"] for bar in below}) == len(below)
    assert [bar["cname"] for bar in below[1:]] == [bar["cname"] for bar in above], "a colour a kind"
    assert (above[0]["ts"], above[0]["dur"]) == (625000.0, 375000.0), "microseconds from the first action"
    assert above[0]["args"] == {**of_3("forward", "3-3"), "waited_ms": pytest.approx(600.0)}
    assert below[1]["args"] == {**of_3("forward", "1-2"), "send_ms": pytest.approx(100.0)}
    assert below[3]["args"]["waited_ms"] == pytest.approx(800.0)
    assert above[2]["args"]["send_ms"] == pytest.approx(250.0)
    assert below[4]["args"] == of_3("update", "1-2")


def test_an_arrow_goes_from_the_action_that_sends_to_the_one_that_needs_it(tmp_path):
    trace = written(tmp_path, [BELOW, ABOVE])
    starts = {event["id"]: event for event in of(trace, "s")}
    ends = {event["id"]: event for event in of(trace, "f")}
    assert starts.keys() == ends.keys()
    found = {}
    for number, start in starts.items():
        end = ends[number]
        assert end["bp"] == "e"
        assert (start["cat"], start["name"]) == (end["cat"], end["name"])
        assert start["ts"] <= end["ts"]
        found[start["name"]] = (
            start["tid"],
            bar_at(trace, start)["name"],
            end["tid"],
            bar_at(trace, end)["name"],
        )
    assert found == {"activation": (0, "forward", 1, "forward"), "target": (1, "target", 0, "target")}


def test_minibatches_of_two_phases_are_not_mixed_up(tmp_path):
    """With rule.update_order=epoch a minibatch's number comes in the inverse phase and in the forward one."""
    below = [
        Span(Activity.FORWARD, 3, 1.0, 2.0),
        Span(Activity.FORWARD, 4, 2.0, 3.0),
        Span(Activity.FORWARD, 3, 8.0, 9.0),
    ]
    above = [Span(Activity.FORWARD, 4, 3.5, 4.0), Span(Activity.FORWARD, 3, 9.5, 10.0)]
    trace = written(tmp_path, [below, above])
    spans = [(start["ts"], end["ts"]) for start, end in zip(of(trace, "s"), of(trace, "f"), strict=True)]
    assert sorted(end - start for start, end in spans) == [pytest.approx(0.5e6)] * 2


def moved(spans: Sequence[Span], seconds: float) -> list[Span]:
    return [span.moved(seconds) for span in spans]


@pytest.mark.parametrize("offset", [-5000.0, 0.0, 0.02, 77.0])
def test_clocks_of_several_hosts_are_brought_together(tmp_path, offset):
    """The third stage's clock is another host's; on one clock nothing may move."""
    middle = [*ABOVE[:1], ABOVE[1], Span(Activity.WAIT_TARGET, 3, 11.0, 11.1), *ABOVE[2:]]
    stages = [
        BELOW,
        middle,
        moved([Span(Activity.FORWARD, 3, 11.02, 11.06), Span(Activity.TARGET, 3, 11.06, 11.1)], offset),
    ]
    aligned = on_one_clock(stages)
    assert aligned[:2] == stages[:2]
    if not offset:
        assert aligned == stages
    forward, target = aligned[2]
    assert forward.start >= 11.0, "after stage 1 has sent it"
    assert target.end <= 11.125 + 1e-9, "before stage 1 begins with it"
    trace = written(tmp_path, stages, Layout((1, 1, 1), 1))
    ends = {event["id"]: event["ts"] for event in of(trace, "f")}
    assert len(ends) == 4
    assert all(start["ts"] <= ends[start["id"]] for start in of(trace, "s"))


def test_only_the_last_minibatches_are_written(tmp_path):
    stages = [
        [Span(Activity.FORWARD, k, k, k + 0.5) for k in range(10)],
        [Span(Activity.FORWARD, 9, 9.75, 10.0)],
    ]
    assert [bar["args"]["minibatch"] for bar in of(written(tmp_path, stages, minibatches=2), "X")] == [
        8,
        9,
        9,
    ]
    assert of(written(tmp_path, stages, minibatches=0), "X") == []


def test_a_virtual_run_says_so(tmp_path):
    for virtual in (False, True):
        trace = written(tmp_path, [BELOW, ABOVE], virtual=virtual)
        assert trace["otherData"] == {"virtual": virtual, "in_flight": 1, "partition": [2, 1]}
        [process] = [event for event in of(trace, "M") if event["name"] == "process_name"]
        assert ("virtual" in process["args"]["name"]) == virtual


def test_the_report_reads_what_a_run_writes(tmp_path):
    """Every activity of a timeline comes back from its trace, with what it waited for."""
    above = [*ABOVE[:4], Span(Activity.ALIGNMENT, 3, 11.25, 11.26), *moved(ABOVE[4:], 0.01)]
    assert {span.activity for span in (*BELOW, *above)} == set(Activity) - {Activity.OTHER, Activity.IDLE}
    trace, rows = spans_of(written(tmp_path, [BELOW, above]))
    assert rows == {0: "stage 0 (layers 1-2)", 1: "stage 1 (layer 3)"}
    for due, found in ((BELOW, trace[0]), (above, trace[1])):
        assert [span[:2] for span in found] == [span[:2] for span in due]
        assert [span.seconds for span in found] == pytest.approx([span.seconds for span in due], abs=1e-6)


def test_a_trace_of_nothing_is_valid(tmp_path):
    assert {event["ph"] for event in written(tmp_path, [[], []])["traceEvents"]} == {"M"}


def test_a_trace_that_can_not_be_written_is_one_line(tmp_path):
    with pytest.raises(StorageError, match=r"trace.json: can't be written"):
        write_trace(tmp_path / "missing" / "trace.json", [[]], Layout((2,), 1))


@pytest.mark.parametrize("phases", [(Phase.BOTH,), (Phase.INVERSE, Phase.FORWARD)])
def test_a_real_run_has_an_arrow_for_every_message(tmp_path, phases):
    config = resolve(small_config("parallel.stages=3", "parallel.in_flight=3"))
    with start_runtime(config, lambda report: None) as runtime:
        for phase in phases:
            runtime.run(Segment(phase, "train", 0, 0, 6, 0))
        stages = runtime.spans()
        trace = written(tmp_path, stages, runtime.layout)
    assert on_one_clock(stages) == stages
    ends = {event["id"]: event for event in of(trace, "f")}
    found = []
    for start in of(trace, "s"):
        end = ends.pop(start["id"])
        source, target = bar_at(trace, start), bar_at(trace, end)
        assert start["ts"] <= end["ts"]
        assert source["name"] == target["name"] == {"activation": "forward"}.get(start["name"], "target")
        assert source["args"]["minibatch"] == target["args"]["minibatch"] == start["args"]["minibatch"]
        found.append((start["name"], start["tid"], end["tid"], start["args"]["minibatch"]))
    assert not ends
    up = [("activation", stage, stage + 1, k) for stage in (0, 1) for k in range(6)]
    down = [("target", stage + 1, stage, k) for stage in (0, 1) for k in range(6)]
    assert sorted(found) == sorted(up * len(phases) + down)
    for stage in range(3):
        bars = [bar for bar in of(trace, "X") if bar["tid"] == stage]
        assert all(first["ts"] + first["dur"] <= second["ts"] + 0.002 for first, second in pairwise(bars))
