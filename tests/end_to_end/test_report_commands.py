"""``report`` and ``runs`` on runs that were really trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runs import LOCAL, read_result, run_cli, the_line, write_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done, and one that failed, below ``runs``."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(folder)
    good = ("run_dir=runs/good", "train.epochs=2", "parallel.in_flight=2", "monitor.alignment_every=10")
    assert run_cli("train", config, *good, *LOCAL, cwd=folder).returncode == 0
    diverging = ("run_dir=runs/bad", "optimizer.forward.name=sgd", "optimizer.forward.lr=1e38")
    assert run_cli("train", config, *diverging, cwd=folder).returncode == 1
    return folder


def test_a_report_shows_every_part_of_a_run(folder):
    done = run_cli("report", "runs/good", "runs/bad", "runs/none", "--out", "report.html", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "report.html: runs/good done, runs/bad failed, runs/none no run\n"
    text = (folder / "report.html").read_text()
    result = read_result(folder / "runs" / "good")
    assert result["weights_sha256"] in text
    assert f"{result['test_error']:.2f}" in text
    charts = (
        "training loss",
        "validation error",
        "test error against seconds",
        "samples per second",
        "forward loss",
        "inverse loss",
    )
    stages = ("Busy share", "Longest wait: stage", "Timeline", "update, minibatch")
    for due in (*charts, "displacement", "angle between", *stages):
        assert due in text
    assert "optimizer.forward.lr" in text, "what differs"
    assert "lower the learning rate" in text, "why it failed"
    assert "Nothing was recorded" not in text


def test_a_report_of_a_folder_is_about_its_runs_and_overwrites_nothing(folder):
    place = folder / "reports"
    place.mkdir()
    for name in ("report.html", "report-2.html"):
        done = run_cli("report", "../runs", cwd=place)
        assert done.stdout == f"{name}: ../runs/good done, ../runs/bad failed\n"
    refused = run_cli("report", "../runs", "--out", "report.html", cwd=place)
    assert refused.returncode == 2
    assert "report.html: exists; name another with --out, or add --force to replace it" in the_line(refused)
    replaced = run_cli("report", "../runs/good", "--out", "report.html", "--force", cwd=place)
    assert replaced.returncode == 0
    assert "dtp_dist: good" in (place / "report.html").read_text()


def test_a_report_of_nothing_is_one_line(folder):
    done = run_cli("report", "none", cwd=folder)
    assert done.returncode == 2
    assert "no folder holds a run: none does not exist" in the_line(done)
    done = run_cli("report", "runs/good", "--out", "no/where.html", cwd=folder)
    assert done.returncode == 1
    assert "no/where.html: can't be written" in the_line(done)


def test_runs_are_listed(folder):
    done = run_cli("runs", cwd=folder)
    assert done.returncode == 0
    rows = [line.split()[:2] for line in done.stdout.splitlines()[1:]]
    assert rows == [["small", "done"], ["small", "failed"]]
    found = json.loads(run_cli("runs", "--json", cwd=folder).stdout)
    assert [run["state"] for run in found] == ["done", "failed"]
    assert found[0]["test_error"] == read_result(folder / "runs" / "good")["test_error"]
    assert (
        run_cli("runs", "runs/good/checkpoints", cwd=folder).stdout == "no run below runs/good/checkpoints\n"
    )
    assert "elsewhere: is no folder" in the_line(run_cli("runs", "elsewhere", cwd=folder))
