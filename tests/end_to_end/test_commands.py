"""The commands as a user types them, from a configuration to an exported network."""

from __future__ import annotations

import json
import math
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from dtp_dist import load_config
from dtp_dist.config import parse_config, to_dict
from dtp_dist.config.batches import load_batches
from dtp_dist.monitor.tensorboard.tags import tags_of
from runs import LOCAL, read_metrics, read_result, run_cli, small, the_line, write_config

pytestmark = pytest.mark.slow

SIX_DIGITS = 1e-5
"""Relative error of what metrics.jsonl keeps of a number, and TensorBoard as float32."""

USER_LAYER = """
from torch import nn

def layer(input_shape, units):
    return nn.Linear(input_shape[0], units), nn.Linear(units, input_shape[0])
"""


class Finished(NamedTuple):
    """A run of the command line that has ended well."""

    run_dir: Path
    printed: str
    result: dict[str, Any]
    metrics: list[dict[str, Any]]

    def values(self) -> list[dict[str, Any]]:
        return [line for line in self.metrics if "event" not in line]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.metrics if line.get("event") == name]


def train(config: Path, run_dir: Path, *overrides: str) -> Finished:
    done = run_cli("train", config, f"run_dir={run_dir}", *overrides, cwd=config.parent, cold=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return Finished(run_dir, done.stdout, read_result(run_dir), read_metrics(run_dir))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, mnist_root: Path | None) -> Finished:
    """Two epochs of a pipeline of two stages, on MNIST where it is there."""
    folder = tmp_path_factory.mktemp("finished")
    overrides = ["train.epochs=2", "parallel.in_flight=2", *LOCAL]
    if mnist_root is not None:
        overrides += ["data.name=mnist", f"data.root={mnist_root}", "model.input=[784]"]
        overrides += ["data.train_examples=1200", "data.test_examples=1000", "data.valid_examples=500"]
    return train(write_config(folder), folder / "run", *overrides)


def test_a_run_directory_holds_what_is_promised(finished):
    names = {re.sub(r"tfevents\..*", "tfevents.*", path.name) for path in finished.run_dir.iterdir()}
    promised = {".lock", "config.yaml", "data.json", "metrics.jsonl", "checkpoints", "trace.json"}
    promised |= {"result.json"}
    assert names == promised | {"events.out.tfevents.*"}
    steps = sorted(path.name for path in (finished.run_dir / "checkpoints").iterdir())
    assert steps == ["step-000000030", "step-000000060"]
    files = {path.name for path in (finished.run_dir / "checkpoints" / steps[0]).iterdir()}
    assert files == {"manifest.json", *(f"layer-00{index}.safetensors" for index in range(1, 6))}


def test_the_written_config_is_the_resolved_one_and_reads_back(finished):
    written = yaml.safe_load((finished.run_dir / "config.yaml").read_text())
    config = load_config(finished.run_dir / "config.yaml")
    assert to_dict(config) == written
    assert parse_config(written) == config
    assert len(written["model"]["layers"]) == 5
    assert written["parallel"]["stages"] == 2
    assert sum(written["parallel"]["partition"]) == 5
    assert written["name"] == "small"


def test_result_has_every_promised_key_with_its_type(finished):
    result = finished.result
    percent = (result["test_error"], result["valid_error"], result["train_error"])
    assert all(isinstance(value, float) and 0 <= value <= 100 for value in percent)
    positive = ("train_loss", "seconds", "samples_per_second")
    assert all(isinstance(result[name], float) and result[name] > 0 for name in positive)
    assert (result["steps"], result["stages"], result["in_flight"], result["seed"]) == (60, 2, 2, 0)
    assert result["runtime"] == "local"
    assert len(result["stage_busy"]) == 2
    assert all(0 < busy <= 1 for busy in result["stage_busy"])
    assert isinstance(result["messages_bytes"], int)
    assert re.fullmatch("[0-9a-f]{64}", result["weights_sha256"])
    assert result["weights_sha256"] in finished.printed


def test_messages_are_counted_by_their_contents(finished):
    """Two epochs of training send h and labels up and delta down; evaluations send h and labels."""
    batches = load_batches(load_config(finished.run_dir / "config.yaml"))
    examples = 2 * sum(len(batches[split].examples) for split in ("train", "valid", "test"))
    downwards = 2 * len(batches["train"].examples)
    payload = examples * (32 * 4 + 8) + downwards * 32 * 4
    assert payload < finished.result["messages_bytes"] < payload + 60 * 3 * 200


def test_a_line_of_metrics_has_step_epoch_time_and_values_or_an_event(finished):
    assert [line["event"] for line in finished.metrics if "event" in line] == [
        "started",
        "checkpoint",
        "checkpoint",
        "finished",
    ]
    for line in finished.metrics:
        assert type(line["step"]) is int
        assert type(line["epoch"]) is int
        assert line["time"] >= 0
        measured = {name: line[name] for name in line if name not in ("step", "epoch", "time")}
        assert measured
        if "event" not in line:
            assert all(math.isfinite(value) for value in measured.values())
    times = [line["time"] for line in finished.metrics]
    assert times == sorted(times)
    assert finished.events("checkpoint")[0]["path"] == "checkpoints/step-000000030"
    assert finished.events("finished")[0]["weights_sha256"] == finished.result["weights_sha256"]


def test_metrics_are_measured_every_so_many_minibatches_in_every_stage_and_layer(finished):
    inside = [line for line in finished.values() if "test_error" not in line]
    assert [(line["step"], line["epoch"]) for line in inside] == [
        *((10, 1), (20, 1), (30, 1)),
        *((40, 2), (50, 2), (60, 2)),
    ]
    due = {"train_loss", "train_error", "samples_per_second"}
    states = ("busy", "waiting", "sent_mb", "memory_mb")
    due |= {f"stage/{stage}/{state}" for stage in (0, 1) for state in states}
    due |= {"idle", "driver/memory_mb"}
    due |= {f"layer/{index}/{name}" for index in range(1, 6) for name in ("forward_loss", "displacement")}
    due |= {f"layer/{index}/inverse_loss" for index in (2, 3, 4)}
    for line in inside:
        assert due <= set(line)
    last = [line for line in finished.values() if "test_error" in line]
    assert [line["epoch"] for line in last] == [1, 2]
    for name in ("test_error", "valid_error"):
        assert last[-1][name] == pytest.approx(finished.result[name], rel=SIX_DIGITS)
    assert last[-1]["train_loss_of_epoch"] == pytest.approx(finished.result["train_loss"], rel=SIX_DIGITS)


def test_a_name_in_metrics_has_one_meaning(finished):
    """An epoch's mean had the name of the last minibatches' mean: each curve jumped where an epoch ended."""
    ends, inside = (
        {name for line in finished.values() if ("test_error" in line) is ends for name in line}
        for ends in (True, False)
    )
    assert {"train_loss_of_epoch", "train_error_of_epoch", "samples_per_second_so_far"} <= ends
    assert ends & inside == {"step", "epoch", "time"}


def test_tensorboard_reads_back_what_metrics_hold(finished):
    board = EventAccumulator(str(finished.run_dir), size_guidance={"scalars": 0, "tensors": 0})
    board.Reload()
    told: dict[str, list[tuple[int, float]]] = {}
    for line in finished.values():
        values = {name: value for name, value in line.items() if name not in ("step", "epoch", "time")}
        for tag, value in tags_of(values).items():
            told.setdefault(tag, []).append((line["step"], value))
    assert set(board.Tags()["scalars"]) == set(told)
    for tag, values in told.items():
        found = [(event.step, event.value) for event in board.Scalars(tag)]
        assert [step for step, _ in found] == [step for step, _ in values]
        assert [value for _, value in found] == pytest.approx([value for _, value in values], rel=SIX_DIGITS)
    events = sorted(tag for tag in board.Tags()["tensors"] if tag.startswith("run/event "))
    assert [tag.split()[3] for tag in events] == ["started", "finished"]
    assert [event.step for event in board.Tensors("run/written_checkpoints")] == [30, 60]


def test_the_trace_has_a_row_a_stage_and_no_two_actions_at_once(finished):
    trace = json.loads((finished.run_dir / "trace.json").read_text())
    events = trace["traceEvents"]
    names = {each["tid"]: each["args"]["name"] for each in events if each["name"] == "thread_name"}
    assert [names[row].split(" (")[0] for row in sorted(names)] == ["stage 0", "stage 1"]
    spans = [event for event in events if event["ph"] == "X"]
    assert {event["tid"] for event in spans} == {0, 1}
    assert {"forward", "inverse", "target", "update"} <= {event["name"] for event in spans}
    for row in (0, 1):
        mine = sorted((event for event in spans if event["tid"] == row), key=lambda event: event["ts"])
        assert mine[-1]["name"] == "update"
        for earlier, later in pairwise(mine):
            assert earlier["ts"] + earlier["dur"] <= later["ts"] + 0.2, "microseconds, rounded to a tenth"
        assert all(event["dur"] >= 0 and event["pid"] == 0 for event in mine)
        assert max(event["args"]["minibatch"] for event in mine) == 59


@pytest.mark.parametrize("split", ["test", "valid"])
def test_eval_gives_the_error_of_the_result(finished, split):
    done = run_cli("eval", finished.run_dir, "--split", split, cwd=finished.run_dir)
    assert done.returncode == 0, done.stderr
    due = rf"{split} error ([\d.]+) %, {split} top-5 error [\d.]+ %, loss [\d.]+, step 60\n"
    shown = re.fullmatch(due, done.stdout)
    assert shown, done.stdout
    assert float(shown[1]) == pytest.approx(finished.result[f"{split}_error"], abs=0.006)


def test_export_loads_into_three_lines_of_torch_and_predicts_the_same(finished, tmp_path):
    target = tmp_path / "network.safetensors"
    done = run_cli("export", finished.run_dir, target, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    batches = load_batches(load_config(finished.run_dir / "config.yaml"))["test"]
    widths = [batches.input_shape[0], 32, 32, 32, 32]

    hidden = [each for below, above in pairwise(widths) for each in (nn.Linear(below, above), nn.Tanh())]
    network = nn.Sequential(*hidden, nn.Linear(32, 10))
    network.load_state_dict(load_file(target))

    wrong = 0
    with torch.no_grad():
        for index in range(batches.count):
            x, labels = batches.minibatch(0, index)
            wrong += int((network(x).argmax(dim=1) != labels).sum())
    assert 100 * wrong / len(batches.examples) == pytest.approx(finished.result["test_error"], rel=SIX_DIGITS)
    made: dict[str, Any] = {}
    exec(done.stdout, made)
    assert not made["network"].training
    assert [str(each) for each in made["network"]] == [str(each) for each in network]

    again = run_cli("export", finished.run_dir, target, cwd=tmp_path)
    assert again.returncode == 2
    assert "exists" in the_line(again)


def test_a_foreign_run_that_imports_code_is_refused_unless_allowed(tmp_path):
    (tmp_path / "user_layer.py").write_text(USER_LAYER)
    layers = [
        {"kind": "user_layer:layer", "args": {"units": 32}},
        {"kind": "dense", "units": 32},
        {"kind": "dense", "units": 10, "activation": "linear"},
    ]
    config = write_config(tmp_path, small(model={"input": [64], "layers": layers}))
    run = train(config, tmp_path / "run", "train.max_steps=3")
    for command in (["eval", run.run_dir], ["export", run.run_dir, tmp_path / "out.safetensors"]):
        refused = run_cli(*command, cwd=tmp_path)
        assert refused.returncode == 2
        assert "--allow-code" in the_line(refused)
        assert "user_layer:layer" in the_line(refused)
    allowed = run_cli("eval", run.run_dir, "--allow-code", cwd=tmp_path)
    assert allowed.returncode == 0, allowed.stderr


def test_a_run_without_a_folder_gets_a_stamped_one_and_in_process_has_no_processes(tmp_path):
    config = write_config(tmp_path)
    done = run_cli("train", config, "train.max_steps=2", "data.valid_examples=0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [run_dir] = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"small-\d{8}-\d{6}", run_dir.name)
    result = read_result(run_dir)
    assert (result["runtime"], result["stages"], result["messages_bytes"]) == ("inprocess", 1, 0)
    assert result["valid_error"] is None
    assert read_metrics(run_dir)[0]["processes"] == []
    no_split = run_cli("eval", run_dir, "--split", "valid", cwd=tmp_path)
    assert no_split.returncode == 2
    assert "--split" in the_line(no_split)


def test_eval_of_a_folder_without_a_run_or_a_checkpoint(finished, tmp_path):
    empty = run_cli("eval", tmp_path, cwd=tmp_path)
    assert empty.returncode == 2
    assert "config.yaml" in the_line(empty)
    shutil.copy(finished.run_dir / "config.yaml", tmp_path)
    without = run_cli("eval", tmp_path, cwd=tmp_path)
    assert without.returncode == 1
    assert "no whole checkpoint" in the_line(without)


def test_config_prints_what_a_run_would_write(tmp_path):
    config = write_config(tmp_path)
    done = run_cli("config", config, "train.epochs=7", "parallel.stages=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = yaml.safe_load(done.stdout)
    assert printed["train"]["epochs"] == 7
    assert printed["parallel"]["stages"] == 2
    assert sum(printed["parallel"]["partition"]) == 5
    assert to_dict(parse_config(printed)) == printed
    assert not (tmp_path / "runs").exists()


def test_config_explain_lists_every_key(tmp_path):
    done = run_cli("config", "--explain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for key in (
        "parallel.in_flight",
        "train.checkpoint_every",
        "model.input",
        "rule[dtp].target_step",
        "seed",
    ):
        assert key in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, ""),
        (("--help",), 0, ""),
        (("nonsense",), 2, "nonsense"),
        (("train", "missing.yaml"), 2, "missing.yaml"),
        (("train", "small.yaml", "--nonsense"), 2, "--nonsense"),
        (("config",), 2, "CONFIG: is missing"),
    ],
)
def test_exit_codes_of_calls(tmp_path, arguments, code, words):
    write_config(tmp_path)
    done = run_cli(*arguments, cwd=tmp_path)
    assert done.returncode == code
    if words:
        assert words in the_line(done)
    elif not arguments or "--help" in arguments:
        assert "Usage" in done.stdout + done.stderr


def test_debug_shows_the_traceback(tmp_path):
    done = run_cli("train", write_config(tmp_path), "parallel.stages=9", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "parallel.stages: 9 is not allowed" in done.stderr.splitlines()[-1]
