"""What TensorBoard is given, read back with its own reader."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import tolerance
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from dtp_dist.algorithm.losses.metrics import ClassMetrics
from dtp_dist.monitor.base import Line
from dtp_dist.monitor.tensorboard.history import KEPT, History
from dtp_dist.monitor.tensorboard.hparams import settings
from dtp_dist.monitor.tensorboard.tags import tag_of, tags_of
from dtp_dist.monitor.tensorboard.writer import TensorBoardLog
from dtp_dist.training.totals import Totals
from runs import small_config


def read(folder: Path) -> EventAccumulator:
    board = EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "tensors": 0, "histograms": 0, "images": 0}
    )
    board.Reload()
    return board


def texts(board: Any, tag: str) -> list[str]:
    return [event.tensor_proto.string_val[0].decode() for event in board.Tensors(tag)]


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("train_loss", "learning/train_loss"),
        ("layer/12/inverse_loss", "per_layer/inverse_loss/layer 12"),
        ("stage/0/busy", "pipeline/busy/stage 0"),
        ("stage/0/memory_mb", "system/memory_mb/stage 0"),
        ("stage/1/gpu_memory_mb", "system/gpu_memory_mb/stage 1"),
        ("driver/memory_mb", "system/memory_mb/driver"),
        ("train_loss_of_epoch", "learning/train_loss_of_epoch"),
        ("samples_per_second", "pipeline/samples_per_second"),
        ("samples_per_second_of_epoch", "pipeline/samples_per_second_of_epoch"),
        ("samples_per_second_so_far", "pipeline/samples_per_second_so_far"),
        ("idle", "pipeline/idle"),
    ],
)
def test_every_value_is_in_the_group_that_it_is_about(name, tag):
    assert tag_of(name) == tag


def test_the_groups_are_shown_in_the_order_in_which_they_are_read():
    groups = [
        tag_of(name).split("/")[0] for name in ("train_loss", "layer/1/x", "stage/0/busy", "driver/memory_mb")
    ]
    assert groups == sorted(groups)


def test_means_of_an_epoch_and_of_the_last_minibatches_are_two_curves():
    totals = Totals(examples=90, seconds=10.0, epoch_examples=30, epoch_seconds=2.0)
    totals.this_epoch.add_all({"loss": 0.5, "error": 20.0}, 90)
    of_epoch = tags_of(totals.epoch_values())
    assert of_epoch == {
        "learning/train_loss_of_epoch": 0.5,
        "learning/train_error_of_epoch": 20.0,
        "pipeline/samples_per_second_of_epoch": 15.0,
        "pipeline/samples_per_second_so_far": 9.0,
    }
    assert not of_epoch.keys() & tags_of({"train_loss": 0.5, "train_error": 1.0, "samples_per_second": 9.0})


def test_a_pass_of_inverse_updates_does_not_overwrite_the_speed_of_the_forward_ones():
    values = {"stage/0/busy": 0.5, "layer/2/inverse_loss": 1.0}
    assert set(tags_of(values, inverse_pass=True)) == {
        "pipeline/inverse_pass_busy/stage 0",
        "per_layer/inverse_loss/layer 2",
    }


def test_values_are_scalars_and_checkpoints_texts(tmp_path):
    log = TensorBoardLog(tmp_path)
    log.write(Line(10, 1, 0.0, {"train_loss": 0.5, "layer/2/inverse_loss": 3.0}))
    log.write(Line(30, 2, 0.0, {"layer/2/inverse_loss": 2.0}, None, {"minibatch": 40, "phase": "inverse"}))
    log.write(Line(30, 2, 0.0, {}, "checkpoint", {"path": "x"}))
    board = read(tmp_path)
    assert set(board.Tags()["scalars"]) == {"learning/train_loss", "per_layer/inverse_loss/layer 2"}
    found = [(each.step, each.value) for each in board.Scalars("per_layer/inverse_loss/layer 2")]
    assert found == [(10, 3.0), (40, 2.0)]
    assert texts(board, "run/written_checkpoints") == ["path: x"]
    log.close()
    log.close()


def test_a_recovered_run_goes_on_with_its_curves(tmp_path):
    """Steps 40 to 60 were done twice; what the lost stages had told of them was shown beside the new."""
    log = TensorBoardLog(tmp_path)
    for step in (10, 20, 30, 40, 50, 60):
        log.write(Line(step, 1, 0.0, {"test_loss": 1.0}))
        log.histogram(step, "weights", torch.ones(3))
    log.write(Line(30, 1, 0.0, {}, "checkpoint", {"path": "x"}))
    log.write(Line(60, 1, 5.0, {}, "stage lost", {"message": "stage 1: died\nbadly", "restarts": 1}))
    log.write(Line(30, 1, 6.0, {}, "recovered", {"restarts": 1}))
    log.write(Line(40, 1, 7.0, {"test_loss": 2.0}))
    log.close()
    board = read(tmp_path)
    found = [(each.step, each.value) for each in board.Scalars("learning/test_loss")]
    assert found == [(10, 1.0), (20, 1.0), (30, 1.0), (40, 2.0)]
    assert [each.step for each in board.Histograms("weights")] == [10, 20, 30]
    served = plugin_event_accumulator.EventAccumulator(str(tmp_path))  # the server's: it drops texts too
    served.Reload()
    tags = [tag for tag in served.Tags()["tensors"] if "run/event" in tag]
    events = {tag.split(maxsplit=3)[3]: texts(served, tag) for tag in tags}
    assert events == {
        "stage lost": ["5 s, step 60: message: stage 1: died badly, restarts: 1"],
        "recovered": ["6 s, step 30: restarts: 1"],
    }


def test_each_event_is_told_once_however_many_there_are(tmp_path):
    """All of them were told anew with each one, and TensorBoard keeps ten texts of a name."""
    log = TensorBoardLog(tmp_path)
    for number in range(25):
        log.write(Line(number % 3, 1, float(number), {}, "no picture", {"message": f"m{number}"}))
    log.close()
    board = EventAccumulator(str(tmp_path), size_guidance={"tensors": 10})
    board.Reload()
    found = [texts(board, tag) for tag in board.Tags()["tensors"]]
    assert sorted(found, key=lambda each: int(each[0].split()[0])) == [
        [f"{number} s, step {number % 3}: message: m{number}"] for number in range(25)
    ]


def test_a_configuration_that_was_told_is_not_told_again(tmp_path):
    for written in ("seed: 0", ""):
        log = TensorBoardLog(tmp_path)
        log.introduce(small_config(), written, 0, ClassMetrics(10))
        log.close()
    assert texts(read(tmp_path), "run/resolved_config") == ["```yaml\nseed: 0\n```"]


def test_curves_of_layers_go_on_where_a_run_does(tmp_path):
    """Those of an earlier process are in metrics.jsonl; what comes after the step to go back to is gone."""

    def line(step: int, value: float) -> dict[str, object]:
        return {"step": step, "epoch": 1, "time": 1.0, "layer/2/inverse_loss": value}

    lines = [line(10, 5.0), line(20, 4.0), line(30, float("nan")), line(40, 3.0)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    log = TensorBoardLog(tmp_path)
    log.introduce(small_config(), "", 30, ClassMetrics(10))
    log.write(Line(40, 1, 0.0, {"layer/2/inverse_loss": 2.0, "layer/1/forward_loss": 1.0}))
    log.write(Line(50, 1, 0.0, {"layer/2/inverse_loss": 1.0}))
    log.write(Line(40, 1, 0.0, {}, "recovered", {"restarts": 1}))
    log.close()
    assert log.history.curves("inverse_loss") == {2: [(10, 5.0), (20, 4.0), (40, 2.0)]}
    assert log.history.curves("displacement") == {}


def test_curves_of_a_long_run_stay_short_and_keep_their_peaks():
    history = History()
    for step in range(10_000):
        history.take(step, {"layer/1/forward_loss": float(step == 4321)})
    (points,) = history.curves("forward_loss").values()
    assert len(points) < 2 * KEPT
    assert (4321, 1.0) in points
    assert points[-1][0] == 9999


def test_a_resumed_run_writes_a_file_of_its_own_that_is_read_after_the_first(tmp_path):
    """Two files of one second and one process had one name: the second overwrote the first."""
    for first in (1, 3):
        log = TensorBoardLog(tmp_path)
        if first > 1:
            log.write(Line(first - 1, 1, 0.0, {}, "resumed", {"checkpoint": "step-2"}))
        for step in range(first, first + 4):
            log.write(Line(step, 1, 0.0, {"test_loss": float(first)}))
        log.close()
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
    found = [(each.step, each.value) for each in read(tmp_path).Scalars("learning/test_loss")]
    assert found == [(1, 1.0), (2, 1.0), (3, 3.0), (4, 3.0), (5, 3.0), (6, 3.0)]


@pytest.mark.parametrize(("event", "status"), [("finished", "SUCCESS"), ("failed", "FAILURE")])
def test_the_table_of_runs_has_settings_figures_and_how_it_ended(tmp_path, event, status):
    config = small_config()
    log = TensorBoardLog(tmp_path)
    log.introduce(config, "seed: 0", 0, ClassMetrics(10))
    log.write(Line(60, 2, 0.0, {}, event, {}))
    log.close()
    board = read(tmp_path)
    content = [HParamsPluginData.FromString(data) for data in board.PluginTagToContent("hparams").values()]
    (start,) = [each.session_start_info for each in content if each.HasField("session_start_info")]
    assert start.hparams["rule"].string_value == "dtp"
    assert start.hparams["seed"].string_value == "0", "the page shows every number with five digits"
    said = start.hparams["settings"].string_value
    assert {
        "1 epoch",
        "1 stage",
        "5 layers",
        "sigma 0.36",
        f"{64 * 32 + 3 * 32 * 32 + 32 * 10} parameters",
    } <= set(said.split(", "))
    (end,) = [each.session_end_info for each in content if each.HasField("session_end_info")]
    assert Status.Name(end.status) == f"STATUS_{status}"
    (experiment,) = [each.experiment for each in content if each.HasField("experiment")]
    assert {each.name for each in experiment.hparam_infos} == set(settings(config))
    assert len(experiment.hparam_infos) < 5, "the fifth would push the errors off a page of 1280 pixels"
    assert [each.display_name for each in experiment.metric_infos][:2] == ["test error", "valid error"]
    assert texts(board, "run/resolved_config") == ["```yaml\nseed: 0\n```"]


@pytest.mark.parametrize(
    "values", [torch.randn(1000), torch.zeros(5, 5), torch.tensor([3.0]), torch.tensor([1e-9, 1.0, 1.0])]
)
def test_a_histogram_counts_every_value(tmp_path, values):
    log = TensorBoardLog(tmp_path)
    log.histogram(7, "weights", values)
    log.close()
    (found,) = read(tmp_path).Histograms("weights")
    histogram = found.histogram_value
    assert found.step == 7
    assert sum(histogram.bucket) == histogram.num == values.numel()
    assert len(histogram.bucket) == len(histogram.bucket_limit)
    assert all(left < right for left, right in pairwise(histogram.bucket_limit))
    assert histogram.min <= values.min().item()
    assert values.max().item() <= histogram.max
    largest = values.abs().sum().item()
    assert histogram.sum == pytest.approx(values.sum().item(), abs=tolerance() * largest)


def test_a_picture_keeps_its_size_and_what_is_said_of_it(tmp_path):
    log = TensorBoardLog(tmp_path)
    log.picture(3, "pipeline/timeline", Image.new("RGB", (40, 30), "#4477aa"), "what it *is*")
    log.close()
    board = read(tmp_path)
    (found,) = board.Tensors("pipeline/timeline")
    width, height, data = found.tensor_proto.string_val
    image = Image.open(io.BytesIO(data))
    assert (image.width, image.height) == (int(width), int(height)) == (40, 30)
    assert image.getpixel((5, 5)) == (0x44, 0x77, 0xAA)
    metadata = board.SummaryMetadata("pipeline/timeline")
    assert metadata.plugin_data.plugin_name == "images"
    assert metadata.summary_description == "what it *is*"
