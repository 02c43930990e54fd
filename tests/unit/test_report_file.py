"""Which runs a report is about, and the file that it becomes."""

from __future__ import annotations

import os

import pytest

from dtp_dist.errors import ConfigError
from dtp_dist.report import read_run
from dtp_dist.report.write import free_name, runs_of, write_report
from run_folders import write_run


def test_a_report_never_overwrites(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    path = tmp_path / "report.html"
    path.write_text("precious")
    with pytest.raises(ConfigError, match=r"report.html: exists; name another with --out, or add --force"):
        write_report([run], path)
    assert path.read_text() == "precious"
    assert free_name(path) == tmp_path / "report-2.html"
    write_report([run], free_name(path))
    assert free_name(path) == tmp_path / "report-3.html"
    write_report([run], path, replace=True)
    assert "<h1>dtp_dist: run</h1>" in path.read_text()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["report-2.html", "report.html", "run"]


def test_a_report_replaces_nothing_but_files(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("run", "fifo", "link"):
        with pytest.raises(ConfigError, match=f"{name}: is no file that a report can replace"):
            write_report([run], tmp_path / name, replace=True)


def test_a_report_is_about_the_runs_below_a_folder(tmp_path):
    (tmp_path / "runs" / "deep").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    first = write_run(tmp_path / "runs" / "first")
    write_run(tmp_path / "runs" / "deep" / "second")
    found = runs_of([tmp_path / "runs", first, tmp_path / "empty"])
    assert sorted(run.path.name for run in found) == ["empty", "first", "second"]
    assert {run.path.name: run.state for run in found}["empty"] == "no run"
    assert all(run.trace for run in found if run.state == "done"), "timelines are drawn"


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
