"""``dtp-dist plan``, as a user types it."""

from __future__ import annotations

import json
import re

import pytest

from dtp_dist.cli.planning import counts_of, usual_counts
from dtp_dist.errors import ConfigError
from runs import run_cli, small_config, the_line, write_config


@pytest.mark.slow
def test_a_plan_is_measured_shown_and_kept(tmp_path):
    write_config(tmp_path)
    asked = ("--stages", "1,2", "--out", "plan.html", "--trace", "trace.json")
    done = run_cli("plan", "small.yaml", "parallel.in_flight=2", *asked, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = re.search(r"^parallel.stages=(\d) 'parallel.partition=\[([\d,]+)\]'$", done.stdout, re.MULTILINE)
    assert found
    stages = int(found[1])
    assert sum(map(int, found[2].split(","))) == 5
    assert len(found[2].split(",")) == stages
    assert f"{stages} is the fastest of 1, 2 stages" in done.stdout
    assert ("stage 1 | .  F0 I0 T0 U0 F1" in done.stdout) == (stages == 2)
    assert "samples/s" in done.stdout
    assert "<svg" in (tmp_path / "plan.html").read_text()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    actions = [event for event in events if event["ph"] == "X" and event["name"] == "update"]
    assert {event["tid"] for event in actions} == set(range(stages))
    assert len(actions) == stages * 50, "monitor.trace_minibatches of each stage"


@pytest.mark.slow
def test_a_quick_plan_is_one_json_object(tmp_path):
    write_config(tmp_path)
    done = run_cli("plan", "small.yaml", "parallel.stages=2", "--quick", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["source"] == "shapes"
    assert sum(found["partition"]) == 5
    rows = found["predictions"]
    assert {1, 2} <= {row["stages"] for row in rows}, "with no --stages several are looked at"
    assert found["stages"] == min(rows, key=lambda row: (row["period"], row["stages"]))["stages"]


@pytest.mark.parametrize(
    ("cores", "overrides", "counts"),
    [
        (1, (), [1]),
        (2, (), [1, 2]),
        (2, ("parallel.stages=3",), [1, 2, 3]),
        (3, (), [1, 2, 3]),
        (4, ("parallel.threads=2",), [1, 2]),
        (64, (), [1, 2, 4, 5]),
        (2, ("parallel.runtime=ray",), [1, 2, 4, 5]),
        (2, ("parallel.virtual_costs=5",), [1, 2, 4, 5]),
    ],
)
def test_with_nothing_asked_all_that_fits_layers_and_machine_is_looked_at(
    monkeypatch, cores, overrides, counts
):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert usual_counts(small_config("parallel.device=cpu", *overrides)) == counts


def test_a_number_of_stages_that_does_not_fit_is_refused(tmp_path):
    write_config(tmp_path)
    done = run_cli("plan", "small.yaml", "--stages", "1,6", cwd=tmp_path)
    assert done.returncode == 2
    assert the_line(done) == "error: --stages: 6 is not allowed; it must be from 1 to 5, the number of layers"


def test_what_is_no_list_of_numbers_is_refused():
    with pytest.raises(ConfigError, match=r"--stages: .1;2. is not a list of numbers; write e\.g\. 1,2,4"):
        counts_of("1;2", layers=5)


@pytest.mark.slow
def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    write_config(tmp_path)
    done = run_cli("plan", "small.yaml", "--quick", "--out", "nowhere/plan.html", cwd=tmp_path)
    assert done.returncode == 1
    assert the_line(done) == "error: nowhere/plan.html: No such file or directory"
