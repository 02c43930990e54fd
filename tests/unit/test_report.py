"""The report reads whatever a run left and draws it as one page."""

from __future__ import annotations

import html
import html.parser
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from dtp_dist.report import read_run
from dtp_dist.report.groups import labels
from dtp_dist.report.listing import facts, run_table
from dtp_dist.report.page import page
from dtp_dist.report.read import QUIET_SECONDS, Run
from dtp_dist.report.write import write_report
from dtp_dist.schedule import Activity, Span
from run_folders import CONFIG, FINISHED, MEASURED, RESULT, STARTED, TRACE, at, span, write_run


def test_a_whole_run_is_read_as_it_was_written(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    assert (run.state, run.reason, run.problems) == ("done", "", ())
    assert run.series("train_loss") == [(10, 2.0), (20, 1.0)]
    assert run.series("train_loss_of_epoch") == [(30, 0.5)]
    assert run.last("test_error") == 5.25
    assert run.place("step") == 30
    assert run.busy() == [0.25, 0.75]
    assert run.setting("optimizer.forward.lr") == 0.001
    assert run.rows == {0: "stage 0 (layer 1)"}
    assert run.trace[0][0] == Span(Activity.FORWARD, 7, 0.0, 0.002)
    assert {stage: len(spans) for stage, spans in run.trace.items()} == {0: 3, 1: 2}


@pytest.mark.parametrize(("event", "step"), [("recovered", 10), ("resumed", 10), ("recovered", 0)])
def test_lines_after_a_return_supersede_those_of_the_lost_attempt(tmp_path, event, step):
    again = [at(step, event=event), at(20, train_loss=1.5), at(30, train_loss=0.75)]
    run = read_run(write_run(tmp_path / "run", [STARTED, *MEASURED, *again]))
    first = [(10, 2.0)] if step else []
    assert run.series("train_loss") == [*first, (20, 1.5), (30, 0.75)]
    assert run.series("valid_error") == []


def test_an_epochs_mean_is_told_from_the_last_minibatches_in_old_files_too(tmp_path):
    """Both had one name: each curve jumped where an epoch ended."""
    inside = [
        at(step, train_loss=loss, samples_per_second=1.0, **{"stage/0/busy": 0.5})
        for step, loss in ((10, 2.0), (30, 1.0))
    ]
    end = at(30, train_loss=1.5, train_error=9.0, samples_per_second=3.0, valid_error=4.0)
    new = at(60, train_loss_of_epoch=0.75, samples_per_second_so_far=4.0)
    run = read_run(write_run(tmp_path / "run", [STARTED, *inside, end, new], result=""))
    assert run.series("train_loss") == [(10, 2.0), (30, 1.0)]
    assert run.series("train_loss_of_epoch") == [(30, 1.5), (60, 0.75)]
    assert run.series("train_error_of_epoch") == [(30, 9.0)]
    assert run.series("samples_per_second_so_far") == [(30, 3.0), (60, 4.0)]
    assert (run.last("train_loss"), run.last("samples_per_second")) == (0.75, 4.0)


def test_a_resumed_runs_seconds_go_on_where_the_first_process_ended(tmp_path):
    """Each process counts from its own start; a recovery is in one process, whose clock goes on."""

    def line(step: int, seconds: float, **values: Any) -> dict[str, Any]:
        return {**at(step, **values), "time": seconds}

    lines = [
        line(10, 5.0, test_error=9.0),
        line(20, 8.0, test_error=8.0),
        line(10, 9.0, event="recovered"),
        line(20, 11.0, test_error=7.0),
        line(20, 12.0, event="resumed"),
        line(30, 13.0, test_error=6.0),
    ]
    run = read_run(write_run(tmp_path / "run", lines))
    assert run.over_time("test_error") == [(5.0, 9.0), (11.0, 7.0), (24.0, 6.0)]


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
    assert run.state in ("done", "running?", "failed", "interrupted", "cut off", "unreadable", "no run")
    write_report([run, read_run(write_run(tmp_path / "b"))], tmp_path / "report.html")
    json.dumps(facts(run), allow_nan=False)
    assert run_table([facts(run)], tmp_path, 100).row_count == 1


def test_a_run_that_fell_silent_is_cut_off(tmp_path):
    folder = write_run(tmp_path / "run", [STARTED, MEASURED[0]], result="")
    written = os.stat(folder / "metrics.jsonl").st_mtime
    assert read_run(folder, now=written + QUIET_SECONDS - 5).state == "running?"
    assert read_run(folder, now=written + QUIET_SECONDS + 5).state == "cut off"


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
        "test error against seconds",
    ):
        assert due in text
    assert "optimizer.forward.name" not in text
    assert "none: does not exist" in text.replace("</span>", "")


def test_text_from_a_run_cannot_become_markup(tmp_path):
    evil = "<script>alert(1)</script>"
    row = {"ph": "M", "tid": 0, "name": "thread_name", "args": {"name": evil}}
    trace = json.dumps({"traceEvents": [row, span(0, evil, 0, 1)]})
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
    assert "other action, minibatch 7: 1 ms" in text, "what the trace calls it is nowhere"
    assert html.escape(evil) in text


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
