"""A real run that was resumed, read with TensorBoard's own reader and shown by its own server."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from dtp_dist import load_config, resume, train
from dtp_dist.algorithm.losses.metrics import ClassMetrics
from dtp_dist.monitor.tensorboard.hparams import figures
from dtp_dist.monitor.tensorboard.tags import charts
from runs import EVERY_KIND, LOCAL, PATIENCE, read_metrics, read_result, small, small_config, wait_until

pytestmark = pytest.mark.slow

SETTINGS = ("monitor.alignment_every=10", "monitor.pictures_every=1", "monitor.histograms_every=1")
LAYERS = range(1, 6)
FIGURES = set(figures(small_config(), ClassMetrics(10)).values())


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """Train an epoch on two stages in this process, then resume it on two local ones for another."""
    found: Path = tmp_path_factory.mktemp("board") / "run"
    train(small_config(f"run_dir={found}", "parallel.stages=2", *SETTINGS))
    resume(found, ["train.epochs=2", *LOCAL])
    return found


@pytest.fixture(scope="module")
def board(run_dir) -> EventAccumulator:
    found = EventAccumulator(
        str(run_dir), size_guidance={"scalars": 0, "tensors": 0, "histograms": 0, "images": 0}
    )
    found.Reload()
    return found


def test_curves_go_on_where_the_run_was_resumed(board):
    for tag in board.Tags()["scalars"]:
        steps = [event.step for event in board.Scalars(tag)]
        assert steps == sorted(set(steps)), tag
    assert [event.step for event in board.Scalars("per_layer/inverse_loss/layer 2")] == list(
        range(10, 61, 10)
    )
    assert [event.step for event in board.Scalars("learning/test_error")] == [30, 60]


def test_every_group_has_its_scalars(board):
    due = {f"learning/{split}_{what}" for split in ("valid", "test") for what in ("error", "loss")}
    due |= {"learning/train_loss", "learning/train_error", "pipeline/samples_per_second", "pipeline/idle"}
    due |= {f"pipeline/{what}/stage {stage}" for what in ("busy", "waiting", "sent_mb") for stage in (0, 1)}
    due |= {f"system/memory_mb/{who}" for who in ("driver", "stage 0", "stage 1")}
    due |= {f"per_layer/{what}/layer {n}" for what in ("forward_loss", "update_angle") for n in LAYERS}
    assert due <= set(board.Tags()["scalars"])
    for tag in board.Tags()["scalars"]:
        for event in board.Scalars(tag):
            assert abs(event.value) < 1e9, tag
    assert all(10 < event.value < 1e5 for event in board.Scalars("system/memory_mb/stage 1"))


def test_no_chart_is_empty(board, run_dir):
    tags = board.Tags()["scalars"]
    for title, wanted in [
        item
        for category in charts(load_config(run_dir / "config.yaml"), ClassMetrics(10)).values()
        for item in category.items()
    ]:
        for each in wanted:
            assert any(re.match(each, tag) for tag in tags), f"{title}: {each}"


def test_histograms_count_every_weight(board):
    for layer in LAYERS:
        for what in ("forward_weights", "activations", "displacements"):
            found = board.Histograms(f"tensors/{what}/layer {layer}")
            assert [event.step for event in found] == [30, 60]
            assert all(sum(event.histogram_value.bucket) == event.histogram_value.num for event in found)
    (first, last) = board.Histograms("tensors/forward_weights/layer 1")
    assert first.histogram_value.num == 64 * 32 + 32
    assert first.histogram_value.sum != last.histogram_value.sum, "it learned in between"
    assert {f"tensors/inverse_weights/layer {n}" for n in (2, 3, 4)} <= set(board.Tags()["histograms"])


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("pipeline/timeline", "where the pipeline drains"),
        ("learning/reconstruction", "from h1 to the input it is a ridge regression"),
        ("per_layer/alignment", "200 examples"),
        ("per_layer/inverse_loss/all layers", "whose curve stays up"),
        ("per_layer/update_angle/all layers", "near 0 by construction"),
    ],
)
def test_pictures_are_whole_and_say_what_they_show(board, tag, words):
    found = board.Tensors(tag)
    assert [event.step for event in found] == [30, 60]
    for event in found:
        width, height, data = event.tensor_proto.string_val
        image = Image.open(io.BytesIO(data))
        image.load()
        assert image.size == (int(width), int(height))
        assert 100 < image.width <= 1280
        assert len(image.getcolors(1 << 24)) > 5, "it is not blank"
    assert words in board.SummaryMetadata(tag).summary_description


def test_texts_tell_the_configuration_and_what_happened(board, run_dir):
    configs = [event.tensor_proto.string_val[0].decode() for event in board.Tensors("run/resolved_config")]
    assert (run_dir / "config.yaml").read_text() in configs[-1]
    assert len(configs) == len(set(configs)) == 2, "each once"
    events = sorted(tag for tag in board.Tags()["tensors"] if tag.startswith("run/event "))
    assert sorted(tag.split()[3] for tag in events) == [
        "finished",
        "finished",
        "resumed",
        "started",
        "started",
        "warning",
    ]
    assert all(len(board.Tensors(tag)) == 1 for tag in events)


def test_the_weights_are_the_same_without_all_this(tmp_path, run_dir):
    off = ("monitor.tensorboard=false", "monitor.trace_minibatches=0", "monitor.every=1000000")
    plain, _ = train(small_config(f"run_dir={tmp_path / 'off'}", "train.epochs=2", *off))
    assert plain["weights_sha256"] == read_result(run_dir)["weights_sha256"]
    assert not list((tmp_path / "off").glob("events.*"))


def test_every_layer_kind_and_rule_has_pictures_without_a_complaint(tmp_path):
    """An event "no picture" would say what went wrong."""
    for name, raw in {
        "kinds": small(model=EVERY_KIND),
        "alone": small(rule={"name": "autoencoder"}),
        "none": small(rule={"name": "backprop"}),
        "order": small(rule={"name": "dtp", "update_order": "epoch"}),
        "signals": small(rule={"name": "ccl"}),
    }.items():
        folder = tmp_path / name
        train(load_config(raw, [f"run_dir={folder}", "train.max_steps=4", *SETTINGS[1:]]))
        assert "no picture" not in [line.get("event") for line in read_metrics(folder)]
        found = EventAccumulator(str(folder))
        found.Reload()
        assert ("learning/reconstruction" in found.Tags()["tensors"]) == (name not in ("none", "signals"))
        sent = "signals" if name == "signals" else "displacements"
        assert f"tensors/{sent}/layer 2" in found.Tags()["histograms"]


class Server:
    """The real TensorBoard, bound to localhost, on a port of its own choice."""

    def __init__(self, logdir: Path, log: Path) -> None:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", "0"]
        with log.open("w") as said:
            self.process = subprocess.Popen(
                [*command, "--host", "127.0.0.1"], stdout=said, stderr=said, start_new_session=True
            )
        place = re.compile(r"http://127\.0\.0\.1:\d+")
        try:
            wait_until(lambda: bool(place.search(log.read_text())), PATIENCE, log.read_text)
        except BaseException:
            self.close()
            raise
        self.address = place.findall(log.read_text())[0]

    def get(self, route: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.address}/data/{route}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read())

    def until(self, route: str, true: Any, body: dict[str, Any] | None = None) -> Any:
        """Ask until the answer is what it must be: the server loads the files while it answers."""
        start = time.monotonic()
        while not true(found := self.get(route, body)):
            assert time.monotonic() - start < PATIENCE, f"{route}: {found}"
            time.sleep(0.2)
        return found

    def close(self) -> None:
        """End it and the process that loads its data."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=PATIENCE)


@pytest.fixture(scope="module")
def server(run_dir, tmp_path_factory) -> Iterator[Server]:
    found = Server(run_dir.parent, tmp_path_factory.mktemp("server") / "log")
    try:
        yield found
    finally:
        found.close()


def test_the_server_shows_every_page(server):
    plugins = server.get("plugins_listing")
    pages = ("timeseries", "scalars", "custom_scalars", "images", "histograms", "distributions", "text")
    for page in (*pages, "hparams"):
        server.until("plugins_listing", lambda found, page=page: found[page]["enabled"])
    assert set(pages) <= set(plugins)


def test_the_server_has_the_scalars_of_both_halves(server):
    tags = server.until("plugin/scalars/tags", lambda found: "learning/test_error" in found.get("run", {}))
    assert "pipeline/idle" in tags["run"]
    route = "plugin/scalars/scalars?run=run&tag=learning/test_error"
    values = server.until(route, lambda found: len(found) == 2)
    assert [step for _, step, _ in values] == [30, 60]


def test_the_server_has_the_charts(server):
    layout = server.until("plugin/custom_scalars/layout", lambda found: found.get("category"))
    assert [each["title"] for each in layout["category"]] == ["learning", "layers", "pipeline and system"]
    route = "plugin/custom_scalars/scalars?run=run&tag=per_layer/inverse_loss/.*"
    found = server.get(route)
    assert set(found["tag_to_events"]) == {f"per_layer/inverse_loss/layer {n}" for n in (2, 3, 4)}


def test_the_server_compares_runs_in_its_table(server):
    body: dict[str, Any] = {"experimentName": ""}
    found = server.until("plugin/hparams/experiment", lambda each: each.get("hparamInfos"), body)
    assert [each["name"] for each in found["hparamInfos"]] == ["forward.lr", "rule", "seed", "settings"]
    assert [each["displayName"] for each in found["metricInfos"]][:2] == ["test error", "valid error"]
    body = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"],
        "colParams": [],
        "startIndex": 0,
        "sliceSize": 10,
    }
    groups = server.until("plugin/hparams/session_groups", lambda each: each.get("sessionGroups"), body)
    (row,) = groups["sessionGroups"]
    assert row["hparams"]["rule"] == "dtp"
    assert row["hparams"]["seed"] == "0", "and not 0.0000"
    assert row["sessions"][0]["status"] == "STATUS_SUCCESS"
    assert {each["name"]["tag"] for each in row["metricValues"]} == FIGURES


def test_the_server_has_pictures_histograms_and_texts(server):
    due = {"pipeline/timeline", "learning/reconstruction", "per_layer/alignment"}
    curves = ("inverse_loss", "forward_loss", "displacement", "update_angle", "target_angle")
    due |= {f"per_layer/{name}/all layers" for name in curves}
    server.until("plugin/images/tags", lambda found: set(found.get("run", {})) == due)
    histograms = server.get("plugin/histograms/tags")
    assert "tensors/activations/layer 1" in histograms["run"]
    texts = server.get("plugin/text/tags")
    assert {"run/resolved_config", "run/written_checkpoints"} <= set(texts["run"])
    assert len([tag for tag in texts["run"] if tag.startswith("run/event ")]) == 6


def test_the_server_says_of_a_scalar_what_it_is(server):
    """TensorBoard's fast loader and its slow one both have to take what is said."""
    said = server.get("plugin/scalars/tags")["run"]
    assert "percent" in said["learning/test_error"]["description"]
    top, low = (said[f"per_layer/update_angle/layer {n}"]["description"] for n in (5, 2))
    assert "by construction" in top
    assert "by construction" not in low


def test_what_the_table_shows_is_in_the_files(board):
    content = [HParamsPluginData.FromString(each) for each in board.PluginTagToContent("hparams").values()]
    (start,) = [each.session_start_info for each in content if each.HasField("session_start_info")]
    assert "2 stages" in start.hparams["settings"].string_value
    assert any(each.HasField("session_end_info") for each in content)
    assert set(board.Tags()["scalars"]) >= FIGURES
