"""The data of a report's curves as CSV, and the curves as pictures."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import dtp_dist.charts
from dtp_dist.charts.curve import Chart, Curve
from dtp_dist.charts.plots import picture
from dtp_dist.cli.commands import app
from dtp_dist.errors import ConfigError, DtpDistError
from dtp_dist.report import read_run
from dtp_dist.report.files import csv_files, picture_files
from dtp_dist.report.groups import grouped
from run_folders import CONFIG, FINISHED, STARTED, at, write_run
from runs import Absent

CURVES = [
    Curve("a", [(1.0, 4.0), (2.0, 2.0)], "#0072b2", "", {1.0: 1.0, 2.0: 0.5}),
    Curve("b", [(1.0, 5.0)], "#d55e00", "7 3"),
    Curve("without a point", [], "#000000"),
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with two seeds of one configuration and a run of another."""
    folder = tmp_path / "runs"
    folder.mkdir()
    for name, seed, epochs in (("a-0", 0, 1), ("a-1", 1, 1), ("b", 0, 2)):
        inverse = at(20, phase="inverse", minibatch=25, **{"layer/2/inverse_loss": 0.5})
        lines = [STARTED, at(10, train_loss=1.0 + seed), inverse, at(30, test_error=4.0 + 2 * seed), FINISHED]
        config = f"{CONFIG}\nseed: {seed}\ntrain: {{epochs: {epochs}}}"
        write_run(folder / name, lines, config=config)
    return folder


def typed(*words: str | Path) -> tuple[Any, str]:
    done = CliRunner().invoke(app, [str(word) for word in words], standalone_mode=False)
    return done.exception, done.output


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_data_of_curves_are_a_row_a_place_and_those_of_runs_a_row_a_run(runs):
    groups = grouped([read_run(path) for path in sorted(runs.iterdir())])
    files = csv_files(groups, runs.parent / "data")
    assert [path.name for path in files] == ["curves.csv", "runs.csv"]
    curves, of_runs = (list(csv.DictReader(data.decode().splitlines())) for data in files.values())
    (error,) = (row for row in curves if (row["curve"], row["quantity"]) == ("a (2 seeds)", "test_error"))
    assert error == {
        "curve": "a (2 seeds)",
        "quantity": "test_error",
        "minibatch": "30",
        "epoch": "1",
        "seconds": "3.0",
        "runs": "2",
        "mean": "5.0",
        "deviation": str(2**0.5),
    }
    (inverse,) = (row for row in curves if row["curve"] == "b" and row["quantity"] == "layer/2/inverse_loss")
    assert (inverse["minibatch"], inverse["runs"], inverse["deviation"]) == ("25", "1", "")
    assert [(row["curve"], row["seed"]) for row in of_runs] == [
        ("a (2 seeds)", "0"),
        ("a (2 seeds)", "1"),
        ("b", "0"),
    ]
    assert list(csv_files(groups, runs.parent / "one.csv")) == [runs.parent / "one.csv"]


@pytest.mark.slow
def test_the_command_writes_data_and_pictures_next_to_the_page(runs, monkeypatch):
    monkeypatch.chdir(runs.parent)
    assert typed("report", runs, "--csv", "data", "--png", "pictures/all")[0] is None
    assert {path.name for path in Path("data").iterdir()} == {"curves.csv", "runs.csv"}
    pictures = {path.name for path in Path("pictures/all").iterdir()}
    assert pictures == {
        *("train_loss.png", "test_error.png", "test_error_against_seconds.png"),
        *("a-2-seeds-inverse_loss.png", "b-inverse_loss.png"),
    }
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in Path("pictures/all").iterdir())
    assert Path("report.html").is_file()
    error, _ = typed("report", runs, "--csv", "one.csv", "--out", "two.html")
    assert error is None
    assert len(rows_of(Path("one.csv"))) == len(rows_of(Path("data/curves.csv")))


def test_nothing_that_is_there_is_lost_unless_it_is_said(runs, monkeypatch):
    monkeypatch.chdir(runs.parent)
    Path("data").mkdir()
    Path("data/curves.csv").write_text("mine")
    error, _ = typed("report", runs, "--csv", "data")
    assert isinstance(error, ConfigError)
    assert str(error) == "data/curves.csv: exists; name another with --csv, or add --force to replace it"
    assert not Path("report.html").exists()
    assert typed("report", runs, "--csv", "data", "--force")[0] is None
    assert "mine" not in Path("data/curves.csv").read_text()
    error, _ = typed("report", runs, "--csv", "data/curves.csv/below", "--out", "other.html")
    assert isinstance(error, DtpDistError)
    assert "data/curves.csv/below: can't be made" in str(error)
    assert "name another with --csv" in str(error)


def test_names_of_others_are_names_of_files_within_the_folder(tmp_path):
    odd = {"layer/1/..": 1.0, "layer/1/a b": 1.0, "layer/1/a-b": 1.0, "layer/1/\x00~": 1.0}
    run = read_run(write_run(tmp_path / "run", [STARTED, at(10, **odd), FINISHED]))
    files = picture_files(grouped([run]), tmp_path / "pictures", lambda charts, form: b"")
    assert {path.parent for path in files} == {tmp_path / "pictures"}
    assert {path.name for path in files} == {"curves.png", "a-b.png", "a-b 2.png", "curves 2.png"}


@pytest.mark.slow
def test_a_picture_is_the_same_bytes_each_time_and_leaves_out_what_is_empty():
    charts = [Chart("a", "error, %", CURVES, "epochs"), Chart("b", "none", [CURVES[2]], "epochs")]
    for form, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        first = picture(charts, form)
        assert first.startswith(start)
        assert picture(charts[:1], form) == first


@pytest.mark.slow
@pytest.mark.parametrize("log", [True, False, None])
def test_many_curves_over_decades_are_a_picture(log):
    curves = [Curve(f"layer {i}", [(1.0, 10.0**-i), (2.0, 0.0)], "#000000", "", {1.0: 1.0}) for i in range(9)]
    assert picture([Chart("a", "loss", curves, "minibatch", legend=True, log=log)], "png")


@pytest.fixture
def _no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let matplotlib and what imports it be as if they had never been imported, and not be there."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "matplotlib" or name == "dtp_dist.charts.plots":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(dtp_dist.charts, "plots", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent("matplotlib"), *sys.meta_path])


@pytest.mark.usefixtures("_no_matplotlib")
def test_without_matplotlib_pictures_are_refused_in_one_line_and_data_are_not(runs, monkeypatch):
    monkeypatch.chdir(runs.parent)
    error, _ = typed("report", runs, "--png", "pictures")
    assert isinstance(error, ConfigError)
    assert str(error).startswith(
        "--png: needs matplotlib: pip install -e '.[plot]' in the project's folder (No"
    )
    assert not Path("report.html").exists()
    assert not Path("pictures").exists()
    assert typed("report", runs, "--csv", "data")[0] is None
    assert json.dumps(rows_of(Path("data/curves.csv")))
