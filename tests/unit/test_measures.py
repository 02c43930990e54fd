"""What is measured of outputs has one name everywhere, and its words."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from test_monitor import Listener

from dtp_dist.algorithm.losses import LOSSES
from dtp_dist.algorithm.losses.metrics import ClassMetrics
from dtp_dist.monitor import Collector, Monitors
from dtp_dist.monitor.base import Line
from dtp_dist.monitor.console import in_words as console_words
from dtp_dist.monitor.live import View
from dtp_dist.monitor.tensorboard.descriptions import Descriptions
from dtp_dist.monitor.tensorboard.hparams import figures
from dtp_dist.monitor.tensorboard.tags import learning_charts, tag_of
from dtp_dist.report.listing import facts, run_table
from dtp_dist.report.page import page
from dtp_dist.report.read import read_run
from dtp_dist.runtime.segment import Report, Segment
from dtp_dist.schedule import Phase
from dtp_dist.text.measures import MEASURES, chief_metric, in_words, measured_in
from run_folders import FINISHED, MEASURED, STARTED, at, write_run
from runs import small_config

KINDS = {"classes": ClassMetrics(10), **{name: loss().of_numbers for name, loss in LOSSES.items()}}
NUMBERS, LABELS = KINDS["mse"], KINDS["binary_cross_entropy"]


def test_what_is_measured_is_what_has_words():
    measured = {name for kind in KINDS.values() if kind for name in (*kind.names, *kind.of_split)}
    assert measured == set(MEASURES)
    assert [name for name, each in MEASURES.items() if each.chief] == [
        kind.names[0] for kind in KINDS.values() if kind
    ]


def test_metrics_are_told_by_split_with_their_unit():
    values = {"test_error": 9.0, "valid_error": 8.0, "test_top_5_error": 1.0, "train_loss": 2.0}
    assert list(in_words(values)) == ["valid error 8.00 %", "test error 9.00 %"]
    assert list(in_words(values, "test", brief=False)) == ["test error 9.00 %", "test top-5 error 1.00 %"]
    numbers = {"valid_mean_absolute_error": 0.25, "valid_r2_score": -0.5, "valid_error": None}
    assert list(in_words(numbers)) == ["valid mean absolute error 0.25", "valid R2 -0.5"]


@pytest.mark.parametrize(
    ("known", "name"),
    [
        ({"layer/1/reconstruction_error": 0.0}, "error"),
        ({"layer/1/reconstruction_error": 0.0, "test_mean_absolute_error": 0.0}, "mean_absolute_error"),
        ({"train_mean_absolute_error_of_epoch": 0.0}, "mean_absolute_error"),
        ({"test_exact_match": 1.0, "test_hamming_distance": 0.0}, "hamming_distance"),
    ],
)
def test_one_metric_stands_for_all(known, name):
    assert chief_metric(known) == name


def test_a_table_has_columns_for_what_was_measured_and_for_errors_if_nothing_was():
    assert measured_in([]) == [("valid", "error"), ("test", "error")]
    assert measured_in([{"test_r2_score"}, {"test_error", "test_top_5_error"}]) == [
        (split, name) for name in ("error", "r2_score") for split in ("valid", "test")
    ]


EPOCH = {
    "train_loss_of_epoch": 0.5,
    "train_mean_absolute_error_of_epoch": 0.4,
    "test_mean_absolute_error": 0.3,
    "test_r2_score": 0.75,
    "samples_per_second_so_far": 1000.0,
}


def test_terminals_show_numbers_as_they_show_errors():
    line = Line(30, 1, 2.0, EPOCH)
    assert console_words(line) == [
        "train loss 0.5",
        "train mean absolute error 0.4",
        "test mean absolute error 0.3",
        "test R2 0.75",
        "samples/s 1,000",
    ]
    view, file = View(60, 2), io.StringIO()
    for each in (Line(0, 1, 0.0, {}, "started", {"partition": [1, 1]}), line):
        view.take(each)
    Console(file=file, width=100).print(view)
    said = "train loss 0.5, mean absolute error train 0.4 test 0.3, 1,000 samples/s"
    assert file.getvalue().splitlines()[-1].strip() == said


@pytest.mark.parametrize(
    ("metrics", "first", "charts"),
    [
        (ClassMetrics(10), ["test error", "valid error"], ["error, percent", "top-5 error, percent", "loss"]),
        (
            NUMBERS,
            ["test mean absolute error", "valid mean absolute error"],
            ["mean absolute error", "R2", "loss"],
        ),
        (
            LABELS,
            ["test Hamming distance", "valid Hamming distance"],
            ["Hamming distance", "exact match", "loss"],
        ),
    ],
)
def test_tensorboard_compares_runs_by_their_own_metrics(metrics, first, charts):
    config = small_config()
    assert list(figures(config, metrics))[:2] == first
    found = learning_charts(config, metrics)
    assert list(found) == charts
    for title, names in found.items():
        split = [name.partition("_")[0] for name in names]
        assert split == (["valid", "test"] if title == "R2" else ["train", "valid", "test"])


def test_tensorboard_says_what_each_value_is():
    said = Descriptions(small_config("model.loss=mse"))
    for name in ("train_loss", "test_loss", *(f"test_{each}" for each in MEASURES)):
        assert said.of(tag_of(name))
    assert said.of(tag_of("test_loss")) == "mean squared error, summed over the outputs, of the test split"
    assert said.of(tag_of("valid_top_5_error")) == "top-5 error on the validation split, percent"


def test_reports_and_tables_of_runs_of_both_kinds_show_both(tmp_path):
    numbers = [at(10, train_mean_absolute_error=1.0), at(20, train_mean_absolute_error=0.5), at(30, **EPOCH)]
    write_run(tmp_path / "numbers", [STARTED, *numbers, FINISHED], result='{"test_r2_score": 0.75}')
    write_run(tmp_path / "classes", [STARTED, *MEASURED, FINISHED])
    found = [read_run(tmp_path / name) for name in ("numbers", "classes")]
    html = page(found)
    for text in (
        "test error, %",
        "test mean absolute error",
        "test R2",
        "training mean absolute error since",
    ):
        assert text in html
    assert "Hamming" not in html
    assert facts(found[0])["test_r2_score"] == 0.75
    shown = [column.header for column in run_table([facts(run) for run in found], tmp_path, 300).columns]
    assert {"valid %", "test %", "test MAE", "test R2"} < set(shown)
    alone = [column.header for column in run_table([facts(found[0])], tmp_path, 300).columns]
    assert "test R2" in alone
    assert "test %" not in alone


def test_a_loss_in_the_labels_own_units_diverges_from_where_it_began():
    for losses, count in (((1e9, 2e9, 1e14), 0), ((1e9, 1e15, 1e16), 1)):
        listener = Listener()
        collector = Collector(Monitors([listener]), 1, 40, any_units=True)
        for k, loss in enumerate(losses):
            collector.report(Report(0, Segment(Phase.BOTH, "train", 0, 0, 30, 0), k, {"loss": loss}))
        assert len([line for line in listener.lines if line.event == "warning"]) == count
