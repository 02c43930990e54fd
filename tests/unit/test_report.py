"""The report reads whatever a run left and draws it as one page."""

from __future__ import annotations

import html.parser
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from dtp_dist.errors import ConfigError
from dtp_dist.report import read_run, write_report
from dtp_dist.report.axis import Axis, axis_of, short
from dtp_dist.report.differences import differences
from dtp_dist.report.listing import facts, run_table
from dtp_dist.report.page import labels, page
from dtp_dist.report.read import QUIET_SECONDS, STATES, Run, Span
from dtp_dist.report.stages import IDLE, shares
from dtp_dist.report.svg import POINTS, thin
from run_folders import CONFIG, FINISHED, MEASURED, RESULT, STARTED, TRACE, at, span, write_run


def test_a_whole_run_is_read_as_it_was_written(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    assert (run.state, run.reason, run.problems) == ("done", "", ())
    assert run.series("train_loss") == [(10, 2.0), (20, 1.0), (30, 0.5)]
    assert run.last("test_error") == 5.25
    assert run.place("step") == 30
    assert run.busy() == [0.25, 0.75]
    assert run.setting("optimizer.forward.lr") == 0.001
    assert run.rows == {0: "stage 0 (layer 1)"}
    assert run.trace[0] == Span(0, "forward", 0.0, 2.0, 7, waits=False)
    assert len(run.trace) == 5


@pytest.mark.parametrize(("event", "step"), [("recovered", 10), ("resumed", 10), ("recovered", 0)])
def test_lines_after_a_return_supersede_those_of_the_lost_attempt(tmp_path, event, step):
    again = [at(step, event=event), at(20, train_loss=1.5), at(30, train_loss=0.75)]
    run = read_run(write_run(tmp_path / "run", [STARTED, *MEASURED, *again]))
    first = [(10, 2.0)] if step else []
    assert run.series("train_loss") == [*first, (20, 1.5), (30, 0.75)]
    assert run.series("valid_error") == []


def test_a_value_that_is_not_finite_is_left_out(tmp_path):
    lines = [at(10, train_loss=float("nan")), at(20, train_loss=3.0)]
    assert read_run(write_run(tmp_path / "run", lines)).series("train_loss") == [(20, 3.0)]


def test_an_inverse_pass_is_drawn_at_its_own_minibatches(tmp_path):
    lines = [at(0, phase="inverse", minibatch=count, **{"layer/2/inverse_loss": 1.0}) for count in (10, 20)]
    assert read_run(write_run(tmp_path / "run", lines)).series("layer/2/inverse_loss") == [
        (10, 1.0),
        (20, 1.0),
    ]


HALF = json.dumps(STARTED) + '\n{"step": 3, "ep'


@pytest.mark.parametrize(
    ("files", "lines", "state", "told"),
    [
        ({"metrics": ""}, None, "done", "metrics.jsonl is missing"),
        ({"result": ""}, None, "done", "result.json is missing"),
        ({"result": "{"}, None, "done", "result.json can't be read"),
        ({"result": "[1]"}, None, "done", "result.json is not what a run writes"),
        ({"config": "a: ["}, None, "done", "config.yaml can't be read"),
        ({"config": "- 1"}, None, "done", "config.yaml is no configuration"),
        ({"config": ""}, None, "done", "config.yaml is missing"),
        ({"trace": "{"}, None, "done", "trace.json can't be read"),
        ({"metrics": HALF, "result": ""}, None, "running?", "line 2 not whole"),
        ({"metrics": "[]\n1\n\n", "result": ""}, None, "running?", "3 lines not whole"),
        ({"result": ""}, [STARTED, at(4, event="failed", message="a NaN")], "failed", "a NaN"),
        ({"result": ""}, [STARTED, at(4, event="interrupted", message="")], "interrupted", "at step 4"),
        ({}, [STARTED, FINISHED, at(30, event="resumed"), STARTED], "running?", "no end yet"),
    ],
)  # fmt: skip
def test_what_is_missing_or_damaged_is_told_and_the_rest_is_read(tmp_path, files, lines, state, told):
    run = read_run(write_run(tmp_path / "run", lines, **files))
    assert run.state == state
    assert told in "; ".join((run.reason, *run.problems))
    assert "<h1>dtp_dist: run</h1>" in page([run])


ODD = (None, True, -1, 1e99, float("nan"), 10**400, "x", "", [], [None], {"a": {}}, [1, "a"], "\ud800")


def garbled(value: Any, source: random.Random) -> Any:
    """Return a value with some of what is in it replaced by what has no place there, or left out."""
    if source.random() < 0.12:
        return source.choice(ODD)
    if isinstance(value, dict):
        return {key: garbled(each, source) for key, each in value.items() if source.random() > 0.04}
    if isinstance(value, list):
        return [garbled(each, source) for each in value if source.random() > 0.04]
    return value


@pytest.mark.parametrize("seed", range(60))
def test_whatever_the_files_hold_there_is_a_page(tmp_path, seed):
    source = random.Random(seed)

    def write(value: Any) -> str:
        text = json.dumps(garbled(value, source))
        return text[: source.randrange(len(text) + 1)] if source.random() < 0.2 else text

    end = [at(20, event="recovered"), at(31, event="failed", message="m")] if seed % 2 else [FINISHED]
    lines = "\n".join(write(line) for line in [STARTED, *MEASURED, *end])
    files = {"config": yaml.safe_load(CONFIG), "result": RESULT, "trace": TRACE}
    texts = {name: write(value) for name, value in files.items()}
    run = read_run(write_run(tmp_path / "a", metrics=lines, **texts))
    assert run.state in STATES
    write_report([run, read_run(write_run(tmp_path / "b"))], tmp_path / "report.html")
    json.dumps(facts(run), allow_nan=False)
    assert run_table([facts(run)], tmp_path, 100).row_count == 1


def test_a_run_that_fell_silent_is_cut_off(tmp_path):
    folder = write_run(tmp_path / "run", [STARTED, MEASURED[0]], result="")
    written = os.stat(folder / "metrics.jsonl").st_mtime
    assert read_run(folder, now=written + QUIET_SECONDS - 5).state == "running?"
    assert read_run(folder, now=written + QUIET_SECONDS + 5).state == "cut off"


def test_no_folder_that_holds_a_run_is_one_error(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    runs = [read_run(tmp_path / name) for name in ("empty", "file", "missing")]
    assert {run.state for run in runs} == {"no run"}
    with pytest.raises(
        ConfigError, match=r"empty holds neither .*file is not a folder.*missing does not exist"
    ):
        write_report(runs, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


class Checker(html.parser.HTMLParser):
    """Notes tags that do not close in their order, and everything that would fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.fetched += [
            f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset")
        ]
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)


def test_the_page_is_whole_and_fetches_nothing(tmp_path):
    first = write_run(tmp_path / "first")
    second = write_run(
        tmp_path / "second", config=CONFIG.replace("0.001", "0.003").replace("units: 8", "units: 9")
    )
    write_report([read_run(first), read_run(second), read_run(tmp_path / "none")], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open == checker.fetched == []
    assert "script" not in checker.seen
    for due in (
        "12,345",
        "5.25",
        "optimizer.forward.lr",
        "model.layers.1-2.units",
        "wait for target: 60.0 %",
    ):
        assert due in text
    assert "optimizer.forward.name" not in text
    assert "none: does not exist" in text.replace("</span>", "")


def test_many_runs_are_compared_by_value(tmp_path):
    rates = ["0.001", "0.003"] * 4
    folders = [tmp_path / f"run{index}" for index in range(8)]
    for folder, rate in zip(folders, rates, strict=True):
        write_run(folder, config=CONFIG.replace("0.001", rate))
    text = differences([read_run(folder) for folder in folders], [folder.name for folder in folders])
    assert "<td>0.003</td><td>run1 run3 run5 run7</td>" in text
    assert text.count("<tr>") == 3


def test_text_from_a_run_cannot_become_markup(tmp_path):
    evil = "<script>alert(1)</script>"
    trace = json.dumps({"traceEvents": [span(0, evil, 0, 1)]})
    lines = [
        at(1, train_loss=1.0, **{f"layer/1/{evil}": 2.0}),
        at(3, event="failed", message=evil, detail=evil),
    ]
    config = json.dumps({"name": evil, "parallel": {"runtime": evil}, evil: evil})
    runs = [
        read_run(write_run(tmp_path / "<i>a", lines, trace=trace, config=config, result='{"stages": "<i>"}')),
        read_run(write_run(tmp_path / "b")),
    ]
    text = page(runs)
    assert "<script" not in text
    assert "<i>" not in text


def test_a_virtual_run_is_marked_and_claims_no_weights(tmp_path):
    run = read_run(write_run(tmp_path / "run", result=json.dumps({**RESULT, "virtual": True})))
    assert labels([run]) == ["run (virtual)"]
    assert RESULT["weights_sha256"] not in page([run])
    assert "none: virtual" in page([run])


def test_a_virtual_run_under_way_is_marked_by_its_first_event(tmp_path):
    lines = [{**STARTED, "virtual": True}, at(10, samples_per_second=9.0)]
    assert read_run(write_run(tmp_path / "run", lines, result="")).virtual
    assert not read_run(write_run(tmp_path / "other", [STARTED, *MEASURED], result="")).virtual


def test_labels_are_as_short_as_tells_the_runs_apart():
    paths = [Path("/x/a/run"), Path("/x/b/run"), Path("/x/b/run")]
    assert labels([Run(path, "done") for path in paths]) == ["a/run", "b/run", "b/run"]


def test_shares_are_of_the_common_time_and_sum_to_one(tmp_path):
    found = shares(read_run(write_run(tmp_path / "run")))
    assert found[0] == pytest.approx({"forward": 0.2, "wait for target": 0.6, "target": 0.2, IDLE: 0.0})
    assert found[1] == pytest.approx({"wait for activation": 0.3, "update": 0.6, IDLE: 0.1})


def test_without_recorded_waits_gaps_count_for_what_follows_them(tmp_path):
    bare = {"traceEvents": [each for each in TRACE["traceEvents"] if each.get("cat") != "wait"]}
    found = shares(read_run(write_run(tmp_path / "run", trace=json.dumps(bare))))
    assert found[0] == pytest.approx({"forward": 0.2, "target": 0.2, "wait for target": 0.6, IDLE: 0.0})


def test_a_long_series_keeps_its_peaks():
    points = [(float(step), float(step == 70_001)) for step in range(100_000)]
    kept = thin(points)
    assert len(kept) <= POINTS
    assert (70_001.0, 1.0) in kept
    assert kept == sorted(kept)


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


@pytest.mark.parametrize(
    ("value", "due"),
    [
        (0.0, "0"),
        (12000.0, "12,000"),
        (0.05, "0.05"),
        (3e-6, "3e-6"),
        (1e6, "1e6"),
        (2.5e8, "2.5e8"),
        (-4.0, "-4"),
    ],
)
def test_numbers_are_short(value, due):
    assert short(value) == due
