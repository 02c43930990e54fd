"""What a comparison leaves: tables with means, deviations and each seed, data of curves, figures."""

from __future__ import annotations

import csv

import pytest
from test_compare import QUICK, SLOWER, plan

from dtp_dist import load_config, train
from dtp_dist.compare.figures import figures, write_curves
from dtp_dist.compare.result import Comparison
from dtp_dist.compare.table import as_csv, as_markdown, by_rule, by_seed, on_screen
from dtp_dist.report.files import drawing
from dtp_dist.trials.trial import Trial, outcome_of, record
from dtp_dist.trials.worker import job_of, run_trial
from runs import read_result, small


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    """Two rules, two seeds; the last run has failed."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trials = plan(folder, compare=SLOWER)
        (folder / "both").mkdir()
        for trial in trials[:3]:
            run_trial(job_of(trial), lambda values: None)
        record(trials[3].record, "failed", "its process was killed", final=False)
    return trials


def test_a_run_of_a_comparison_has_the_bits_of_one_that_is_trained_alone(trained, tmp_path):
    due = train(load_config(small(), [*QUICK, "seed=1", f"run_dir={tmp_path / 'run'}"])).result
    assert read_result(trained[2].folder)["weights_sha256"] == due["weights_sha256"]


def test_tables_have_means_deviations_and_each_seed(trained):
    found = Comparison([outcome_of(trial) for trial in trained])
    errors = [read_result(trial.folder)["test_error"] for trial in trained[:3]]
    rules = by_rule(found)
    assert rules[0] == [
        "rule",
        "learning rate",
        "runs",
        "valid error, %",
        "test error, %",
        "train loss",
        "seconds",
    ]
    own, twin, difference = rules[1:]
    mean, deviation = (errors[0] + errors[2]) / 2, abs(errors[0] - errors[2]) / 2**0.5
    assert own[:3] == ["dtp", "0.001", "2 of 2"]
    head, _, tail = own[4].partition(" ± ")
    assert (float(head), float(tail)) == (pytest.approx(mean, abs=0.006), pytest.approx(deviation, rel=0.1))
    assert twin[:5] == ["backprop", "0.0003", "1 of 2", twin[3], f"{errors[1]:.2f}"]
    assert difference[:3] == ["dtp minus backprop", "", "1 pair"]
    assert float(difference[4]) == pytest.approx(errors[0] - errors[1], abs=0.006)
    seeds = by_seed(found)
    assert [row[0] for row in seeds] == ["seed", "0", "1"]
    assert seeds[1][2::2] == [f"{errors[0]:.2f}", f"{errors[1]:.2f}"]
    assert seeds[2][3:] == ["failed", "failed"]
    assert on_screen(seeds, 80).row_count == 2
    heads = [[str(each.header) for each in on_screen(rules, width).columns] for width in (200, 80)]
    assert [each.replace("\n", " ") for each in heads[0]] == rules[0]
    assert len(heads[1]) < len(heads[0])
    assert "test error, %" in heads[1]
    assert [str(each.header) for each in on_screen(seeds, 40).columns] == [
        *("seed", "dtp:\ntest error, %", "backprop:\ntest error, %"),
    ]
    page = as_markdown(found, "small")
    assert f"| 0 | {seeds[1][1]} | {errors[0]:.2f} |" in page
    assert "- backprop-seed1: its process was killed" in page
    rows = list(csv.DictReader(as_csv(found).decode().splitlines()))
    assert [(row["rule"], row["seed"], row["state"]) for row in rows] == [
        *(("dtp", "0", "done"), ("dtp", "1", "done"), ("dtp", "mean", ""), ("dtp", "deviation", "")),
        *(("backprop", "0", "done"), ("backprop", "1", "failed")),
        *(("backprop", "mean", ""), ("backprop", "deviation", "")),
    ]
    assert float(rows[2]["test_error"]) == pytest.approx(mean)
    assert float(rows[3]["test_error"]) == pytest.approx(deviation)
    assert (rows[7]["test_error"], rows[5]["message"]) == ("", "its process was killed")


@pytest.mark.slow
def test_figures_are_png_and_pdf_of_error_and_loss_over_epochs(trained, tmp_path):
    groups = Comparison([outcome_of(trial) for trial in trained]).begun()
    drawn = figures(groups)
    assert list(drawn) == ["error", "loss"]
    for chart in drawn["error"]:
        assert [curve.name for curve in chart.curves] == ["dtp", "backprop"]
        assert [x for x, _ in chart.curves[0].points] == [1]
        assert list(chart.curves[0].band) == [1]
        assert not chart.curves[1].band
    written = write_curves(tmp_path, groups, drawing("figures"))
    names = ["curves.csv", "error.png", "error.pdf", "loss.png", "loss.pdf"]
    assert [path.name for path in written] == names
    assert [path.read_bytes()[:4] for path in written[1:]] == [b"\x89PNG", b"%PDF", b"\x89PNG", b"%PDF"]
    rows = list(csv.DictReader(written[0].read_text().splitlines()))
    (error,) = (row for row in rows if (row["curve"], row["quantity"]) == ("dtp", "test_error"))
    assert (error["minibatch"], error["epoch"], error["runs"]) == ("6", "1", "2")


def test_without_matplotlib_the_figures_are_left_out(trained, tmp_path):
    groups = Comparison([outcome_of(trial) for trial in trained]).begun()
    assert [path.name for path in write_curves(tmp_path, groups, None)] == ["curves.csv"]
