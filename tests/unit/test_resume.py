"""Runs that end early: what they say, and how they go on, also from before their first checkpoint."""

from __future__ import annotations

import shlex
import shutil
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from dtp_dist import load_config, resume, train
from dtp_dist.cli.commands import app
from dtp_dist.config import Config
from dtp_dist.errors import ConfigError, NonFiniteError, StorageError
from dtp_dist.monitor.base import Line, Monitor
from dtp_dist.monitor.console import ConsoleMonitor
from dtp_dist.storage.run_dir import resume_command
from dtp_dist.training.evaluate import evaluate
from runs import newest, read_metrics, read_result, small, small_config


class Ending(Monitor):
    """Ends a run at a minibatch, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self._step = step

    def write(self, line: Line) -> None:
        if line.event is None and line.step >= self._step:
            raise KeyboardInterrupt

    def close(self) -> None:
        pass


class Paper(Console):
    """A console that is read afterwards."""

    def __init__(self) -> None:
        super().__init__(record=True, width=300, file=StringIO())


def train_until(config: Config, step: int, paper: Console | None = None, **options) -> str:
    """Train until a minibatch is reported, and return what the terminal showed."""
    paper = paper or Paper()
    watch = [lambda steps, epochs: ConsoleMonitor(paper, steps, epochs), lambda *_: Ending(step)]
    with pytest.raises(KeyboardInterrupt):
        train(config, watch=watch, **options)
    return paper.export_text()


def typed(command: str, code: int = 0) -> str:
    """Type a command of ours, as it was printed, and return what it prints."""
    words = shlex.split(command)
    assert words[0] == "dtp-dist"
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def advised(text: str) -> str:
    """Return the command at the end of a message."""
    assert "dtp-dist " in text, text
    return "dtp-dist " + text.splitlines()[-1].split("dtp-dist ")[-1].partition("; or")[0]


def config_for(run_dir: Path, *overrides: str) -> Config:
    return small_config(f"run_dir={run_dir}", "monitor.tensorboard=false", *overrides)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    """The hash of a run that nothing ended early."""
    return train(config_for(tmp_path_factory.mktemp("whole") / "run")).result["weights_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "left", ["as it was", "config alone", "unfinished checkpoints", "half a config's twin"]
)
def test_a_run_that_ended_before_its_first_checkpoint_starts_anew_with_resume(tmp_path, whole, left):
    """It could be neither resumed nor trained again."""
    run_dir = tmp_path / "run"
    train_until(config_for(run_dir), 10)
    if left == "config alone":
        for path in run_dir.iterdir():
            if path.name != "config.yaml":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    if left == "unfinished checkpoints":
        for step in (10, 20):
            folder = run_dir / "checkpoints" / f"step-{step:09d}"
            folder.mkdir(parents=True)
            (folder / "layer-001.safetensors").write_bytes(b"half a file")
    if left == "half a config's twin":
        (run_dir / "config.yaml.partial").write_text("model: {inp")
    assert resume(str(run_dir)).result["weights_sha256"] == whole
    assert newest(run_dir)[1].step == 30
    if left == "as it was":
        (event,) = [line for line in read_metrics(run_dir) if line.get("event") == "resumed"]
        assert (event["step"], event["checkpoint"]) == (0, None)


def test_a_folder_in_which_a_run_was_just_being_made_takes_a_new_one(tmp_path, whole):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml.partial").write_text("model: {inp")
    assert train(config_for(tmp_path / "run")).result["weights_sha256"] == whole


def test_train_into_a_run_that_can_go_on_advises_resume_and_that_works(tmp_path, whole):
    run_dir = tmp_path / "a run's folder"
    train_until(config_for(run_dir), 10)
    with pytest.raises(
        ConfigError, match="holds a run, and a run is never overwritten; resume it:"
    ) as caught:
        train(config_for(run_dir))
    typed(advised(str(caught.value)))
    assert read_result(run_dir)["weights_sha256"] == whole


def test_an_end_says_what_is_lost_and_what_to_type_and_that_works(tmp_path, whole):
    run_dir = tmp_path / "it's"
    said = train_until(config_for(run_dir, "train.checkpoint_every=10", "monitor.every=5"), 15)
    last = said.splitlines()[-1]
    assert f"newest checkpoint: {run_dir}/checkpoints/step-000000010; about 5 minibatches and " in last
    assert last.endswith(f" s since then are lost; resume it: {resume_command(run_dir)}")
    typed(advised(said))
    assert read_result(run_dir)["weights_sha256"] == whole
    (event,) = [line for line in read_metrics(run_dir) if line.get("event") == "interrupted"]
    assert event["lost_minibatches"] == 5
    assert 0 <= event["lost_seconds"] < 600


def test_an_end_before_the_first_checkpoint_counts_from_the_start(tmp_path):
    said = train_until(config_for(tmp_path / "run"), 20).splitlines()[-1]
    assert "newest checkpoint: none yet; about 20 minibatches and " in said
    assert "since the start are lost; resume it: " in said
    assert "dtp-dist resume" in said


def test_a_run_with_code_is_advised_to_allow_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = "from torch import nn\ndef f(input_shape):\n    return nn.Linear(64, 9), nn.Linear(9, 64)\n"
    (tmp_path / "advised_layer.py").write_text(text)
    layers = [{"kind": "advised_layer:f"}, {"kind": "dense", "units": 10, "activation": "linear"}]
    raw = small(model={"input": [64], "layers": layers}, run_dir=tmp_path / "run")
    said = train_until(load_config(raw, ["monitor.tensorboard=false"]), 10)
    with pytest.raises(ConfigError) as caught:
        train(load_config(raw))
    assert advised(str(caught.value)) == advised(said)
    typed(advised(said))


@pytest.mark.slow
def test_a_run_of_module_instances_goes_on_in_python(tmp_path):
    def modules():
        torch.manual_seed(0)
        return {1: (nn.Linear(64, 9), nn.Linear(9, 64))}

    layers = [{"kind": "instance"}, {"kind": "dense", "units": 10, "activation": "linear"}]
    raw = small(model={"input": [64], "layers": layers}, monitor={"every": 10, "tensorboard": False})
    once = train(load_config({**raw, "run_dir": tmp_path / "once"}), modules=modules()).result
    said = train_until(load_config({**raw, "run_dir": tmp_path / "twice"}), 10, modules=modules())
    assert f"resume it: dtp_dist.resume('{tmp_path / 'twice'}', modules=...)" in said
    again = resume(tmp_path / "twice", modules=modules()).result
    assert again["weights_sha256"] == once["weights_sha256"]


def test_a_divergence_advises_other_settings_in_a_run_of_its_own_and_that_works(tmp_path):
    """It said "resume with other settings", which resume refuses."""
    paper = Paper()
    watch = [lambda steps, epochs: ConsoleMonitor(paper, steps, epochs)]
    config = config_for(tmp_path / "run", "optimizer.forward={name: sgd, lr: 1e30}", "rule.target_step=1e30")
    with pytest.raises(NonFiniteError, match="lower the learning rate or the step, and train"):
        train(config, watch=watch)
    command = advised(paper.export_text())
    assert command == (
        f"dtp-dist train {tmp_path}/run/config.yaml run_dir={tmp_path}/run-2 optimizer.forward.lr=1e+29"
    )
    typed(f"{command} optimizer.forward.lr=1e-3 rule.target_step=0.1")


@pytest.mark.slow
@pytest.mark.parametrize("limits", [(), ("train.max_steps=7",), ("train.max_steps=30",)])
def test_a_run_that_is_trained_to_its_end_says_how_to_go_on_and_that_works(tmp_path, limits):
    train(config_for(tmp_path / "run", *limits))
    before = read_result(tmp_path / "run")["steps"]
    with pytest.raises(ConfigError, match="is trained to its end") as caught:
        resume(tmp_path / "run")
    typed(advised(str(caught.value)))
    assert read_result(tmp_path / "run")["steps"] > before


@pytest.mark.slow
def test_a_finished_run_without_checkpoints_is_not_trained_over(tmp_path, whole):
    train(config_for(tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = (tmp_path / "run" / "result.json").read_bytes()
    with pytest.raises(StorageError, match="no whole checkpoint") as caught:
        resume(tmp_path / "run")
    assert (tmp_path / "run" / "result.json").read_bytes() == before
    typed(advised(str(caught.value)))
    assert read_result(tmp_path / "run-2")["weights_sha256"] == whole


def test_weights_that_are_not_there_yet_come_with_resume(tmp_path):
    train_until(config_for(tmp_path / "run"), 10)
    with pytest.raises(StorageError, match="it has not written one yet; dtp-dist resume starts it again"):
        evaluate(tmp_path / "run", "test")
    resume(tmp_path / "run")
    assert evaluate(tmp_path / "run", "test")[1] == 30


@pytest.mark.slow
def test_another_experiment_and_a_virtual_run_are_trained_in_runs_of_their_own(tmp_path):
    train_until(config_for(tmp_path / "run"), 10)
    with pytest.raises(ConfigError, match="another experiment; train it in a run of its own"):
        resume(tmp_path / "run", ["data.batch_size=50"])
    typed(f"dtp-dist train {tmp_path}/run/config.yaml run_dir={tmp_path}/own data.batch_size=50")
    train(config_for(tmp_path / "sleeper", "parallel.virtual_costs=0", "train.max_steps=2"))
    with pytest.raises(ConfigError, match="a virtual run has no weights to resume from") as caught:
        resume(tmp_path / "sleeper")
    typed(advised(str(caught.value)))
    with pytest.raises(ConfigError, match="name another folder or remove it"):
        train(config_for(tmp_path / "sleeper"))


def test_relative_folders_of_a_stored_run_mean_the_same_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    train_until(small_config("run_dir=~/my run", "data.root=sets", "monitor.tensorboard=false"), 10)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    stored = load_config(tmp_path / "home" / "my run" / "config.yaml")
    assert (stored.data.root, stored.run_dir) == (str(tmp_path / "sets"), str(tmp_path / "home" / "my run"))
    resume(tmp_path / "home" / "my run", ["train.max_steps=2", "data.root=~/sets"])
    stored = load_config(tmp_path / "home" / "my run" / "config.yaml")
    assert stored.data.root == str(tmp_path / "home" / "sets")
    assert not list(tmp_path.glob("**/~*"))


@pytest.mark.parametrize("key", ["run_dir", "data.root"])
def test_a_home_that_is_nobodys_is_named_and_the_advice_works(tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"{key}: ~nobody-of-that-name/x: .* write \./~nobody") as caught:
        train(small_config(f"{key}=~nobody-of-that-name/x"))
    path = str(caught.value).partition("write ")[2].partition(",")[0]
    train(small_config(f"{key}={path}", "train.max_steps=2", "monitor.tensorboard=false"))
