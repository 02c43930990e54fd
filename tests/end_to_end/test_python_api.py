"""The package from Python: ``load_config`` and ``train``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import dtp_dist
from dtp_dist import load_config, resume, train
from dtp_dist.algorithm.state import weights_sha256
from dtp_dist.errors import ConfigError, StorageError
from dtp_dist.monitor.base import Line, Monitor
from dtp_dist.storage.checkpoint import LayerFile, complete_checkpoint, read_layers, write_layer
from dtp_dist.storage.export import state_dict_of
from dtp_dist.training.evaluate import evaluate
from runs import PATIENCE, error_of, newest, read_metrics, read_result, small, small_config, write_config


def test_what_the_package_offers():
    functions = {"evaluate", "export", "load_config", "predict", "resume", "train"}
    errors = {"ConfigError", "DataError", "DtpDistError"}
    listening = {"Epoch", "Line", "Monitor", "Start"}
    assert set(dtp_dist.__all__) == functions | errors | listening | {"Config", "Prediction", "Trained"}
    assert all(hasattr(dtp_dist, name) for name in dtp_dist.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = dtp_dist.nonsense


@pytest.mark.slow
def test_train_returns_the_result_and_the_network(tmp_path):
    config = small_config(f"run_dir={tmp_path / 'run'}", "train.epochs=3", "optimizer.forward.lr=0.003")
    result, network = train(config)
    assert result == read_result(tmp_path / "run")
    assert list(network.state_dict()) == [
        f"{2 * index}.{name}" for index in range(5) for name in ("weight", "bias")
    ]
    assert isinstance(network, nn.Sequential)
    assert not network.training
    error = error_of(network, config)
    assert error == pytest.approx(result["test_error"], abs=1e-4)
    assert error < 60, "it does not learn"


def test_the_hash_is_of_the_checkpoint_and_the_network_is_its_forward_half(tmp_path, monkeypatch):
    read, real = [], LayerFile.__getitem__
    monkeypatch.setattr(LayerFile, "__getitem__", lambda file, name: read.append(name) or real(file, name))
    result, network = train(small_config(f"run_dir={tmp_path / 'run'}", "train.max_steps=4"))
    assert {name.split(".")[1] for name in read} == {"weight", "bias"}, "no optimizer's state is read again"
    folder, manifest = newest(tmp_path / "run")
    states = list(read_layers(folder, 5))
    assert weights_sha256(states) == result["weights_sha256"]
    assert (manifest.step, manifest.epoch, manifest.seed) == (4, 0, 0)
    weights = state_dict_of(network)
    for index, state in enumerate(states):
        assert torch.equal(weights[f"{2 * index}.weight"], state["forward.weight"])
        assert ("inverse.weight" in state) == (index in (1, 2, 3))


class Listener(Monitor):
    def __init__(self, steps: int, epochs: int) -> None:
        self.due, self.lines, self.closed = (steps, epochs), list[Line](), 0

    def write(self, line: Line) -> None:
        self.lines.append(line)

    def close(self) -> None:
        self.closed += 1


def test_a_monitor_of_ones_own_hears_every_line(tmp_path):
    made: list[Listener] = []

    def make(steps: int, epochs: int) -> Listener:
        made.append(Listener(steps, epochs))
        return made[-1]

    train(small_config(f"run_dir={tmp_path / 'run'}", "train.epochs=2"), watch=[make])
    [listener] = made
    assert listener.due == (60, 2)
    assert listener.closed == 1
    written = read_metrics(tmp_path / "run")
    assert [(line.step, line.event) for line in listener.lines] == [
        (line["step"], line.get("event")) for line in written
    ]


INSTANCES = {
    "input": [64],
    "layers": [
        {"kind": "instance"},
        {"kind": "instance"},
        {"kind": "dense", "units": 10, "activation": "linear"},
    ],
}


def pairs() -> dict[int, tuple[nn.Module, nn.Module | None]]:
    torch.manual_seed(0)
    return {
        1: (nn.Sequential(nn.Linear(64, 24), nn.Tanh()), None),
        2: (nn.Sequential(nn.Linear(24, 16), nn.Tanh()), nn.Linear(16, 24)),
    }


@pytest.mark.slow
def test_modules_of_ones_own_are_trained_in_process(tmp_path):
    raw = small(model=INSTANCES)
    hashes = set()
    for stages in (1, 3):
        given = pairs()
        before = given[1][0][0].weight.detach().clone()
        config = load_config(raw, [f"run_dir={tmp_path / str(stages)}", f"parallel.stages={stages}"])
        result, network = train(config, modules=given)
        hashes.add(result["weights_sha256"])
        assert not torch.equal(before, given[1][0][0].weight)
        assert network[0](torch.ones(2, 64)).shape[0] == 2
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ({}, r"model.layers.1.kind: an instance needs train\(config, modules="),
        ({1: pairs()[1]}, "model.layers.2.kind: an instance needs"),
        ({**pairs(), 3: (nn.Linear(16, 10), None)}, "modules: layer 3 is not of kind instance"),
        ({**pairs(), 2: (nn.Linear(24, 16), None)}, "model.layers.2.kind: .* needs an inverse of layer 2"),
        ({**pairs(), 2: (nn.Linear(23, 16), nn.Linear(16, 23))}, r"model.layers.2.kind: the forward module"),
        ({**pairs(), 2: (nn.Linear(24, 16), nn.Linear(16, 25))}, r"model.layers.2.kind: the inverse gives"),
    ],
)
def test_modules_that_do_not_fit_are_refused_before_anything_starts(tmp_path, modules, words):
    config = load_config(small(model=INSTANCES), [f"run_dir={tmp_path / 'run'}"])
    with pytest.raises(ConfigError, match=words):
        train(config, modules=modules)
    assert not (tmp_path / "run").exists()


def test_instances_run_in_process_only():
    with pytest.raises(ConfigError, match=r"model.layers.1.kind: .* parallel.runtime=inprocess"):
        load_config(small(model=INSTANCES), ["parallel.runtime=local"])


SCRIPT = """
from dtp_dist import load_config, resume, train

print("script")
config = load_config("small.yaml", ["run_dir=run", "parallel.runtime=local", "parallel.stages=2"])
result, network = train(config)
print(result["runtime"], type(network).__name__)
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_trains_in_processes(tmp_path: Path):
    write_config(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["script", "local Sequential", ""]


def test_a_run_that_was_killed_before_its_result_was_written_gives_it_when_it_is_resumed(tmp_path):
    """All was trained, evaluated and saved; result.json alone was missing."""
    run_dir = tmp_path / "run"
    result, _ = train(small_config(f"run_dir={run_dir}"))
    (run_dir / "result.json").unlink()
    again, _ = resume(run_dir)
    kept = ("steps", "train_loss", "test_error", "weights_sha256", "samples_per_second", "messages_bytes")
    assert {name: again[name] for name in kept} == {name: result[name] for name in kept}
    with pytest.raises(ConfigError, match="is trained to its end"):
        resume(run_dir)


@pytest.mark.slow
def test_a_run_goes_on_from_the_newest_checkpoint_that_is_its_own(tmp_path):
    """Weights of another seed and a step that was changed are passed over; the bits stay the same."""
    every = ("train.checkpoint_every=4", "train.keep_checkpoints=9", "monitor.tensorboard=false")
    whole, _ = train(small_config(f"run_dir={tmp_path / 'whole'}", "train.max_steps=16", *every))
    train(small_config(f"run_dir={tmp_path / 'run'}", "train.max_steps=8", *every))
    train(small_config(f"run_dir={tmp_path / 'other'}", "train.max_steps=12", "seed=5", *every))
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copytree(tmp_path / "other" / "checkpoints" / "step-000000012", checkpoints / "step-000000012")
    shutil.copytree(checkpoints / "step-000000004", checkpoints / "step-000000016")
    result, _ = resume(tmp_path / "run", ["train.max_steps=16", "train.keep_checkpoints=1"])
    assert result["weights_sha256"] == whole["weights_sha256"]
    [told] = [line for line in read_metrics(tmp_path / "run") if line.get("event") == "resumed"]
    assert (told["step"], told["checkpoint"]) == (8, "step-000000008")
    assert [note.rpartition("/manifest.json: ")[2].split(";")[0] for note in told["notes"]] == [
        "is of step 4, which its folder's name does not say",
        "is of another experiment than the run's configuration (seed 5 differs)",
    ]
    assert newest(tmp_path / "run")[1].step == 16


def test_a_checkpoint_with_weights_of_another_shape_is_one_line(tmp_path):
    """Its manifest was written anew by somebody who could, so it is a checkpoint; its weights do not fit."""
    train(small_config(f"run_dir={tmp_path / 'run'}", "train.max_steps=2", "monitor.tensorboard=false"))
    folder, manifest = newest(tmp_path / "run")
    states = [dict(state) for state in read_layers(folder, 5)]
    states[1]["forward.bias"] = states[1]["forward.bias"][:1].clone()  # would be spread over all units
    files = tuple(write_layer(folder, index, state) for index, state in enumerate(states, 1))
    complete_checkpoint(folder, replace(manifest, files=files), 2)
    with pytest.raises(StorageError, match=r"forward.bias of layer 2 has the shape \[1\]; .* \[32\]"):
        evaluate(tmp_path / "run", "test")
