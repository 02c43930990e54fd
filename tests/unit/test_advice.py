"""Every message that gives advice, and that advice taken: it must work.

Ends of runs and what ``resume`` says are in ``test_resume.py``, files that are fetched in ``test_data.py``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from dtp_dist import load_config, train
from dtp_dist.cli.commands import app
from dtp_dist.config import Config
from dtp_dist.config.batches import check_data
from dtp_dist.data import Examples, Held
from dtp_dist.errors import ConfigError, DataError, DtpDistError, StorageError
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.stage.faults import VARIABLE, faults_from_environment
from dtp_dist.storage.files import unwritable, write_file
from dtp_dist.storage.lock import locked
from dtp_dist.tune.plan import open_search, plan_trials
from dtp_dist.tune.space import read_space
from runs import EVERY_KIND, small, small_config, write_config

Raw = dict[str, Any]


def checked(raw: Raw, *overrides: str) -> Config:
    """Check a configuration as ``config`` and ``train`` do."""
    config = load_config(raw, overrides)
    check_data(config)
    return resolve(config)


def images(**layer: Any) -> Raw:
    """A network of images, whose first layer is changed."""
    raw = small(model={**EVERY_KIND, "layers": [dict(each) for each in EVERY_KIND["layers"]]})
    raw["model"]["layers"][0] |= layer
    return raw


def dense(*layers: Raw) -> Raw:
    return small(model={"input": [64], "layers": [*layers, {"kind": "dense", "units": 10}]})


LAYER = {"kind": "dense", "units": 8}
NORMED = dense({**LAYER, "norm": "batch"}, LAYER)
POOLED, BAD_SPLIT = "model.layers.1={pool: max, pool_kernel: 30}", "data={drop_last: true, batch_size: 5000}"
SHAPED, IN_DOTS = "data={name: synthetic, options: {shape: [1, 8]}}", "write names with dots between them"
CONFIGURATIONS: list[tuple[str, Raw, str, str]] = [
    ("train.epoch=3", small(), "did you mean epochs?", "train.epochs=3"),
    ("rule.name=dpt", small(), "did you mean dtp?", "rule.name=dtp"),
    ("data.name=digit", small(), "one of digits, mnist", "data.name=digits"),
    ("train.epochs=0", small(), "it must be at least 1", "train.epochs=1"),
    ("model.input=[1,8,8]", small(), "write model.input: [64]", "model.input=[64]"),
    ("model.input=[63]", small(), "write [64] or [1, 8, 8]", "model.input=[64]"),
    ("model.input=[1,8,9]", images(), "write [64] or [1, 8, 8]", "model.input=[1,8,8]"),
    ("model.input=[64]", images(), "write model.input as [C, H, W]", "model.input=[1,8,8]"),
    ("model.layers.5.units=12", small(), "write 10", "model.layers.5.units=10"),
    ("model.layers=[{kind: dense, units: 10}]", small(), "write at least two",
     "model.layers=[{kind: dense, units: 9}, {kind: dense, units: 10}]"),
    ("model.layers.1.kernel=20", images(), "write a smaller kernel or", "model.layers.1.kernel=3"),
    ("model.layers.1.kernel=20", images(), "more padding", "+model.layers.1.padding=10"),
    (POOLED, images(), "write a smaller one", "+model.layers.1.pool_kernel=2"),
    (POOLED, images(), "or pool: none", "+model.layers.1.pool=none"),
    ("data.batch_size=1", NORMED, "write at least 2", "data.batch_size=2"),
    ("data.batch_size=109", NORMED, "write data.drop_last=true", "+data.drop_last=true"),
    (BAD_SPLIT, small(), "make it smaller", "+data.batch_size=50"),
    (BAD_SPLIT, small(), "set data.drop_last=false", "+data.drop_last=false"),
    ("rule={anchor: stale, jacobian: stored}", small(), "write current", "+rule.jacobian=current"),
    ("model.layers.1.inverse.scale=0.1", small(), "write inverse.init: uniform",
     "+model.layers.1.inverse.init=uniform"),
    ("parallel.stages=6", small(), "at most 5", "parallel.stages=5"),
    ("parallel={stages: 2, virtual_costs: [1]}", small(), "one entry for each stage",
     "+parallel.virtual_costs=[1,2]"),
    ("parallel.virtual_costs={x: 1}", small(), "known here: F, I, T, U", "parallel.virtual_costs={F: 1}"),
    ("train.epochs.x=1", small(), "write train.epochs=VALUE to replace it", "train.epochs=2"),
    ("train..epochs=1", small(), f"{IN_DOTS}, e.g. train.epochs or", "train.epochs=2"),
    ("model.layers[0=1", small(), "or model.layers.1.units", "model.layers.1.units=2"),
    ("model.layers.0.units=8", small(), "layers are counted from 1 to 5", "model.layers.1.units=8"),
    ("parallel.balance=work", small(), "write flops instead", "parallel.balance=flops"),
    ("rule.alternate=epoch", small(), "write rule.update_order instead", "rule.update_order=epoch"),
    ("seed=", small(), "write seed=VALUE", "seed=1"),
    ("run_dir=", small(), "null where it may have none", "run_dir=null"),
    ("name=[a", small(), "close every bracket and quote in it", "name=a"),
    ("name=[a", small(), "or put all of it in quotes", "name='[a'"),
    ("seed=${sed}", small(), "no key sed to take its value from; write one that there is",
     "seed=${data.batch_size}"),
    ("seed=${data.batch_size:1}", small(), "write the name of a key", "seed=${data.batch_size}"),
    ("data.root=~nobody-of-this-name/x", small(), "write ./~nobody", "data.root=./~nobody-of-this-name/x"),
    ("data.options={classes: 3}", small(), "has none; leave it out", "data.options={}"),
    (SHAPED, small(), "three positive numbers, [C, H, W]", "+data.options.shape=[1,8,8]"),
]  # fmt: skip
"""What is wrong, of what, the words of advice, and that advice taken: instead, or (+) besides."""


@pytest.mark.parametrize(
    ("wrong", "raw", "words", "taken"), CONFIGURATIONS, ids=[f"{row[0]} {row[2]}" for row in CONFIGURATIONS]
)
def test_what_a_message_about_a_configuration_advises_works(wrong, raw, words, taken):
    with pytest.raises(DtpDistError) as caught:
        checked(raw, wrong)
    assert words in str(caught.value)
    checked(raw, *([wrong] if taken.startswith("+") else []), taken.removeprefix("+"))


def test_advice_for_a_device_that_is_not_there_works(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="cuda is not available here; write auto or cpu"):
        checked(small(), "parallel.device=cuda")
    assert [checked(small(), f"parallel.device={name}").parallel.stages for name in ("auto", "cpu")] == [1, 1]


def test_advice_for_layers_of_code_works(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    pair = "return nn.Linear(64, 9), nn.Linear(9, 64)"
    text = f"from torch import nn\ndef one():\n    return nn.Linear(64, 9)\ndef both():\n    {pair}\n"
    (tmp_path / "advice_layers.py").write_text(text)
    with pytest.raises(ConfigError, match=r"return \(forward, inverse\) from its function"):
        checked(dense({**LAYER, "units": 64}, {"kind": "advice_layers:one"}))
    with pytest.raises(ConfigError, match="name an import path for other runtimes"):
        checked(dense({"kind": "instance"}), "parallel.runtime=local")
    with pytest.raises(ConfigError, match=r"measured would train the module instance .* write flops"):
        checked(dense({"kind": "instance"}), "parallel.balance=measured")
    layers = [{**LAYER, "units": 64}, {"kind": "advice_layers:both"}]
    checked(dense(*layers), "parallel.runtime=local", "parallel.balance=flops")


def test_advice_for_a_constant_channel_works():
    constant = Examples(Held(torch.zeros(4, 1, 2, 2)), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(DataError, match=r"use data.normalize=none"):
        constant.statistics()
    checked(small(), "data.normalize=none")


def test_advice_for_data_that_can_not_be_fetched_works(tmp_path, monkeypatch):
    raw = small(data={"name": "mnist", "root": str(tmp_path / "none" / "x")})
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(DataError, match=r"or use data\.name=digits"):
            checked(raw, "model.input=[784]")
        checked(raw, "data.name=digits")


def test_advice_for_a_fault_that_is_not_understood_works(monkeypatch):
    monkeypatch.setenv(VARIABLE, "nonsense")
    with pytest.raises(ConfigError, match=r"write stage=S minibatch=K action=F\|I\|T\|U do=kill"):
        faults_from_environment()
    monkeypatch.setenv(VARIABLE, "stage=0 minibatch=1 action=F do=raise")
    assert faults_from_environment() is not None


SPACES = [
    ("- 1", "write keys with distributions, e.g. ", "optimizer.forward.lr: {log_uniform: [1.0e-4, 1.0e-1]}"),
    ("seed: 3", "write one of uniform, log_uniform, int_uniform, choice: [...]", "seed: {choice: [3]}"),
    ("seed: {chioce: [3]}", "did you mean choice?", "seed: {choice: [3]}"),
    ("seed: {choice: 3}", "it must be a list", "seed: {choice: [3]}"),
    ("name: {choice: [a]}", "leave it out of the space", "seed: {choice: [3]}"),
    ("a: {uniform: [1e-4, 1.0]}", "YAML needs a point in 1.0e-4", "a: {uniform: [1.0e-4, 1.0]}"),
    ("a: {log_uniform: [0, 1]}", "it must be [low, high] with 0 < low < high", "a: {log_uniform: [0.1, 1]}"),
    ("a: {int_uniform: [0, 1.5]}", "two whole numbers, [low, high]", "a: {int_uniform: [0, 2]}"),
]


@pytest.mark.parametrize(("wrong", "words", "taken"), SPACES)
def test_what_a_message_about_a_space_advises_works(tmp_path, wrong, words, taken):
    path = tmp_path / "space.yaml"
    path.write_text(wrong)
    with pytest.raises(ConfigError) as caught:
        read_space(path)
    assert words in str(caught.value)
    path.write_text(taken)
    assert read_space(path).settings


SEARCHES = [
    ("parallel.runtime=ray", "write local or inprocess", "parallel.runtime=local"),
    ("data.valid_examples=0", "write at least 1", "data.valid_examples=1"),
    ("parallel.virtual_costs=1", "write null", "parallel.virtual_costs=null"),
]


@pytest.mark.parametrize(("wrong", "words", "taken"), SEARCHES)
def test_what_a_message_about_a_search_advises_works(tmp_path, wrong, words, taken):
    config, path = write_config(tmp_path), tmp_path / "space.yaml"
    path.write_text("seed: {choice: [3]}")
    with pytest.raises(ConfigError, match=words):
        plan_trials(config, [wrong], read_space(path), 1, 0, tmp_path / "out")
    assert plan_trials(config, [wrong, taken], read_space(path), 1, 0, tmp_path / "out")


def test_advice_for_a_searchs_folder_works(tmp_path):
    config, path = write_config(tmp_path), tmp_path / "space.yaml"
    path.write_text("seed: {choice: [3]}")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    open_search(tmp_path / "mine", config, [], path, 0)
    for folder, seed in (("full", 0), ("mine", 1), ("full/file", 0)):
        with pytest.raises(ConfigError, match="name another folder"):
            open_search(tmp_path / folder, config, [], path, seed)
    open_search(tmp_path / "another", config, [], path, 1)


def typed(*words: str | Path, code: int) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], standalone_mode=False)
    assert (0 if done.exception is None else getattr(done.exception, "exit_code", 1)) == code, done.exception
    return done.output + str(done.exception or "")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("advice") / "run"
    train(small_config(f"run_dir={folder}", "train.max_steps=2", "monitor.tensorboard=false"))
    return folder


@contextmanager
def full_disk(patch: pytest.MonkeyPatch, number: int = errno.ENOSPC):
    """Let no file be synced, as where there is no space left."""

    def refuse(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with patch.context() as inner:
        inner.setattr(os, "fsync", refuse)
        yield


def test_advice_after_a_full_disk_works_for_an_export(run, tmp_path, monkeypatch):
    """It said "make room and resume" of an export."""
    target = tmp_path / "out.safetensors"
    with full_disk(monkeypatch):
        said = typed("export", run, target, code=1)
    assert "No space left on device); make room, then type the same command again" in said
    typed("export", run, target, code=0)
    said = typed("export", run, target, code=2)
    assert "name another file or remove it" in said
    typed("export", run, tmp_path / "another.safetensors", code=0)
    target.unlink()
    typed("export", run, target, code=0)


def test_advice_after_a_full_disk_works_for_a_run(tmp_path, monkeypatch):
    raw, quick = write_config(tmp_path), ("train.max_steps=4", "monitor.tensorboard=false")
    folder = tmp_path / "run"
    with full_disk(monkeypatch, errno.EDQUOT):
        said = typed("train", raw, f"run_dir={folder}", *quick, code=1)
    assert "make room, then type the same command again, or for a run dtp-dist resume" in said
    typed("train", raw, f"run_dir={folder}", *quick, code=0)


def test_a_file_that_is_not_allowed_needs_another_remedy(tmp_path):
    denied = PermissionError(errno.EACCES, "Permission denied")
    assert "see to it that it can be, then type" in str(unwritable(tmp_path / "a", denied))
    with pytest.raises(StorageError, match="see to it that it can be"):
        write_file(tmp_path / "none" / "a", b"")
    (tmp_path / "none").mkdir()
    write_file(tmp_path / "none" / "a", b"")


def test_advice_for_a_folder_that_is_held_works(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with locked(tmp_path / "a"):
        with (
            pytest.raises(StorageError, match="wait until that has ended, or name another folder"),
            locked(tmp_path / "a"),
        ):
            pass
        with locked(tmp_path / "b"):
            pass
    with locked(tmp_path / "a"):
        pass


Words = Callable[[Path, Path], list[Any]]
COMMANDS_AND_ADVICE: list[tuple[Words, str, Words]] = [
    (lambda run, folder: ["eval", folder], "name the folder of a run", lambda run, folder: ["eval", run]),
    (lambda run, folder: ["eval", run, "--split", "x"], "must be one of test, train, valid",
     lambda run, folder: ["eval", run, "--split", "valid"]),
    (lambda run, folder: ["config"], "or write --explain", lambda run, folder: ["config", "--explain"]),
    (lambda run, folder: ["config", folder / "none.yaml"], "name a configuration file",
     lambda run, folder: ["config", run / "config.yaml"]),
    (lambda run, folder: ["plan", run / "config.yaml", "--quick", "--stages", "two"], "write e.g. 1,2,4",
     lambda run, folder: ["plan", run / "config.yaml", "--quick", "--stages", "1,2,4"]),
    (lambda run, folder: ["runs", folder / "none"], "name one that holds runs",
     lambda run, folder: ["runs", run.parent]),
    (lambda run, folder: ["report", folder, "--out", folder / "a.html"], "name folders of runs",
     lambda run, folder: ["report", run, "--out", folder / "a.html"]),
    (lambda run, folder: ["report", run, "--out", folder / "none" / "a.html"], "name another with --out",
     lambda run, folder: ["report", run, "--out", folder / "b.html"]),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("row", COMMANDS_AND_ADVICE, ids=[row[1] for row in COMMANDS_AND_ADVICE])
def test_what_a_command_advises_works(run, tmp_path, row):
    wrong, words, taken = row
    done = CliRunner().invoke(app, [str(word) for word in wrong(run, tmp_path)], standalone_mode=False)
    assert isinstance(done.exception, DtpDistError)
    assert words in str(done.exception)
    typed(*taken(run, tmp_path), code=0)
