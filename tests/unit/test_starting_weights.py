"""Runs that start from given weights: which files fit, what is refused, and no resume needs them again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dtp_dist import load_config, resume, train
from dtp_dist.algorithm.state import weights_sha256
from dtp_dist.config import Config
from dtp_dist.errors import ConfigError, StageError, StorageError
from dtp_dist.storage.export_file import export
from dtp_dist.storage.manifest import layer_file
from dtp_dist.storage.starting_weights import check_weights, starting_states
from dtp_dist.training.evaluate import evaluate
from runs import EVERY_KIND, newest, small

QUIET = ("monitor.tensorboard=false", "train.evaluate_every=0")
SHORT = (*QUIET, "train.max_steps=4", "train.checkpoint_every=2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with two trained runs, their newest checkpoints as ``NAME``, and their exported networks.

    ``small`` is dense with dtp, ``kinds`` has every kind of layer.
    """
    folder = tmp_path_factory.mktemp("given")
    for name, raw in {"small": small(), "kinds": small(model=EVERY_KIND, rule={"name": "ldrl"})}.items():
        train(load_config(raw, [*SHORT, f"run_dir={folder / 'run' / name}"]))
        (folder / name).symlink_to(newest(folder / "run" / name)[0])
        export(folder / "run" / name, folder / f"{name}.safetensors")
    return folder


def config(*overrides: str, **sections: Any) -> Config:
    return load_config(small(**sections), ["seed=5", *overrides])


def states(of: Config) -> list[dict[str, Tensor]]:
    return [state for _, state in starting_states(of)]


def kept(folder: Path, index: int) -> dict[str, Tensor]:
    """Return the weights and buffers in a layer's file of a checkpoint."""
    found = load_file(folder / layer_file(index))
    return {name: value for name, value in found.items() if ".optimizer." not in name}


def same(left: dict[str, Tensor], right: dict[str, Tensor], side: str = "") -> bool:
    mine, theirs = (
        {name: each for name, each in one.items() if name.startswith(side)} for one in (left, right)
    )
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


# What is taken


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "kinds"])
def test_an_exported_network_gives_every_forward_map_its_weights_and_buffers(runs, name):
    """Inverses, of which such a file has none, are fresh."""
    model = {} if name == "small" else {"model": EVERY_KIND, "rule": {"name": "ldrl"}}
    given = states(config(f"model.weights={runs / name}.safetensors", **model))
    fresh = states(config(**model))
    for index, (state, unlike) in enumerate(zip(given, fresh, strict=True), 1):
        assert same(state, kept(runs / name, index), "forward."), index
        assert same(state, unlike, "inverse."), index
        assert list(state) == list(unlike), "the order of a checkpoint, which the hash is over"
    assert any(not same(a, b) for a, b in zip(given, fresh, strict=True))


@pytest.mark.parametrize("name", ["small", "kinds"])
def test_a_checkpoint_gives_inverses_too_where_both_networks_have_them(runs, name):
    model = {} if name == "small" else {"model": EVERY_KIND, "rule": {"name": "ldrl"}}
    for index, state in enumerate(states(config(f"model.weights={runs / name}", **model)), 1):
        assert same(state, kept(runs / name, index)), index
        assert not any(".optimizer." in each for each in state)
    plain = states(config(f"model.weights={runs / name}", **{**model, "rule": {"name": "backprop"}}))
    for index, state in enumerate(plain, 1):
        assert same(state, {n: v for n, v in kept(runs / name, index).items() if n.startswith("forward.")})


def test_some_layers_take_theirs_and_the_others_are_fresh(runs):
    """A new output layer on old features; names of other layers in the file do not matter."""
    raw = small()
    raw["model"]["layers"][-1]["bias"] = False
    raw["model"]["weights"] = {"file": str(runs / "small.safetensors"), "layers": [1, 3]}
    given, fresh = states(load_config(raw)), states(config("seed=0"))
    for index in (1, 2, 3, 4):
        expected = kept(runs / "small", index) if index in (1, 3) else fresh[index - 1]
        assert same(given[index - 1], expected, "forward."), index


def test_a_layer_has_a_file_of_its_own(runs, tmp_path):
    """One of a checkpoint, the exported network, or its module's state dict; above the model's file."""
    linear = nn.Linear(32, 32)
    save_file(linear.state_dict(), tmp_path / "mine.safetensors")
    files = {
        1: runs / "small.safetensors",
        2: runs / "small" / layer_file(3),
        3: tmp_path / "mine.safetensors",
        4: runs / "small",
    }
    given = states(config(*(f"model.layers.{index}.weights={file}" for index, file in files.items())))
    assert same(given[0], kept(runs / "small", 1), "forward.")
    assert same(given[1], kept(runs / "small", 3))
    assert torch.equal(given[2]["forward.weight"], linear.weight.detach())
    assert same(given[3], kept(runs / "small", 4))
    assert same(given[4], states(config())[4])
    above = [f"model.weights={runs / 'small'}", f"model.layers.2.weights={runs / 'small' / layer_file(3)}"]
    assert same(states(config(*above))[1], kept(runs / "small", 3))


def test_defaults_may_name_a_file_that_a_layer_does_without(runs):
    raw = small()
    raw["model"]["defaults"]["weights"] = str(runs / "small.safetensors")
    raw["model"]["layers"][-1]["weights"] = None
    given = states(load_config(raw))
    assert same(given[3], kept(runs / "small", 4), "forward.")
    assert same(given[4], states(config("seed=0"))[4])


def test_numbers_of_another_width_become_the_runs(runs, tmp_path):
    halved = {name: value.bfloat16() for name, value in load_file(runs / "small.safetensors").items()}
    save_file(halved, tmp_path / "half.safetensors")
    given = states(config(f"model.weights={tmp_path / 'half.safetensors'}"))
    assert given[0]["forward.weight"].dtype is torch.float32
    assert torch.equal(given[0]["forward.weight"], halved["0.weight"].float())


def test_a_network_that_standardizes_its_pixels_is_one_module_longer(tmp_path):
    once = [*SHORT, "data.normalize=standardize", f"run_dir={tmp_path / 'run'}"]
    train(load_config(small(), once))
    export(tmp_path / "run", tmp_path / "out.safetensors")
    file = f"model.weights={tmp_path / 'out.safetensors'}"
    given = states(config(file, "data.normalize=standardize"))
    checkpoint = newest(tmp_path / "run")[0]
    assert all(same(state, kept(checkpoint, index), "forward.") for index, state in enumerate(given, 1))
    words = r"model\.weights: .*out\.safetensors: is of .* write data\.normalize: standardize$"
    with pytest.raises(ConfigError, match=words):
        check_weights(config(file))


# Runs


def still(*overrides: str) -> Config:
    """A run that learns nothing, so that it ends with what it started from."""
    frozen = {"name": "sgd", "lr": 0.0}
    return config(*QUIET, *overrides, optimizer={"forward": frozen, "inverse": frozen})


def test_a_run_starts_from_what_it_was_given(runs, tmp_path):
    found = train(still("train.max_steps=1", f"model.weights={runs / 'small'}", f"run_dir={tmp_path / 'a'}"))
    due = weights_sha256([_ordered(kept(runs / "small", index)) for index in range(1, 6)])
    assert found.result["weights_sha256"] == due
    network = load_file(runs / "small.safetensors")
    assert all(torch.equal(value, network[name]) for name, value in found.network.state_dict().items())


def _ordered(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{side}.{name}": state[f"{side}.{name}"] for side in ("forward", "inverse")
            for name in ("weight", "bias") if f"{side}.{name}" in state}  # fmt: skip


def copied(runs: Path, folder: Path) -> Path:
    target = folder / "given.safetensors"
    target.write_bytes((runs / "small.safetensors").read_bytes())
    return target


@pytest.mark.slow
def test_any_partition_and_a_resume_without_the_file_end_with_the_same_bits(runs, tmp_path):
    file = copied(runs, tmp_path)
    given = ("train.checkpoint_every=2", f"model.weights={file}")
    whole = train(config(*QUIET, *given, "train.max_steps=6", f"run_dir={tmp_path / 'whole'}")).result
    cut = tmp_path / "cut"
    train(config(*QUIET, *given, "train.max_steps=2", "parallel.stages=3", f"run_dir={cut}"))
    file.unlink()
    found = resume(cut, ["train.max_steps=6", "parallel.stages=2"]).result
    assert found["weights_sha256"] == whole["weights_sha256"]
    fresh = train(config(*QUIET, "train.max_steps=6", f"run_dir={tmp_path / 'fresh'}")).result
    assert fresh["weights_sha256"] != whole["weights_sha256"]
    assert evaluate(cut, "test")[1] == 6


def test_a_run_that_ends_before_its_first_checkpoint_does_not_need_the_file_again(
    runs, tmp_path, monkeypatch
):
    file, run_dir = copied(runs, tmp_path), tmp_path / "run"
    given = ("train.max_steps=4", "train.checkpoint_every=4", f"model.weights={file}")
    whole = train(config(*QUIET, *given, f"run_dir={tmp_path / 'whole'}")).result
    with monkeypatch.context() as patch:
        patch.setenv("DTP_DIST_FAULT", "stage=0 minibatch=2 action=F do=raise")
        with pytest.raises(StageError):
            train(config(*QUIET, *given, f"run_dir={run_dir}"))
    file.unlink()
    assert newest(run_dir)[1].step == 0
    assert resume(run_dir).result["weights_sha256"] == whole["weights_sha256"]


def test_a_run_that_ends_before_it_has_kept_its_start_needs_the_file_and_says_so(runs, tmp_path, monkeypatch):
    file, run_dir = copied(runs, tmp_path), tmp_path / "run"

    def refuse(*_: Any) -> None:
        raise StorageError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("dtp_dist.storage.starting_weights.write_layer", refuse)
        with pytest.raises(StorageError, match="no room"):
            train(config(*SHORT, f"model.weights={file}", f"run_dir={run_dir}"))
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(ConfigError, match=r"given\.safetensors: can't be read"):
        resume(run_dir)
    file.write_bytes(content)
    whole = train(config(*SHORT, f"model.weights={file}", f"run_dir={tmp_path / 'whole'}")).result
    assert resume(run_dir).result["weights_sha256"] == whole["weights_sha256"]


def test_a_relative_name_is_that_of_the_folder_where_training_began(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs)
    train(config(*SHORT, "model.weights=small.safetensors", f"run_dir={tmp_path / 'run'}"))
    assert f"file: {runs / 'small.safetensors'}" in (tmp_path / "run" / "config.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    again = load_config(tmp_path / "run" / "config.yaml", [f"run_dir={tmp_path / 'again'}"])
    assert train(again).result["seed"] == 5


@pytest.mark.slow
def test_stages_in_processes_start_from_them_too(runs, tmp_path):
    given = [*SHORT, f"model.weights={runs / 'small'}", "parallel.stages=2"]
    one = train(config(*given, f"run_dir={tmp_path / 'one'}")).result
    local = train(config(*given, "parallel.runtime=local", f"run_dir={tmp_path / 'local'}")).result
    assert local["weights_sha256"] == one["weights_sha256"]


def test_module_instances_take_theirs(tmp_path):
    save_file(nn.Linear(64, 8).state_dict(), tmp_path / "mine.safetensors")
    layers = [{"kind": "instance", "weights": str(tmp_path / "mine.safetensors")}, LAST]
    raw = small(model={"input": [64], "layers": layers}, rule={"name": "backprop"})
    frozen = {"name": "sgd", "lr": 0.0}
    raw["optimizer"] = {"forward": frozen}
    settings = load_config(raw, [*QUIET, "train.max_steps=1", f"run_dir={tmp_path / 'run'}"])
    _, network = train(settings, modules={1: (nn.Linear(64, 8), None)})
    assert torch.equal(network[0].weight.detach(), load_file(tmp_path / "mine.safetensors")["weight"])


# What is refused


LAST = {"kind": "dense", "units": 10, "activation": "linear"}


def changed(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path, Path], str]:
    """Return what writes the small network with a change and returns the override that names it."""

    def write(runs: Path, folder: Path) -> str:
        tensors = load_file(runs / "small.safetensors")
        change(tensors)
        save_file(tensors, folder / "x.safetensors")
        return f"model.weights={folder / 'x.safetensors'}"

    return write


def written(name: str, data: bytes) -> Callable[[Path, Path], str]:
    def write(runs: Path, folder: Path) -> str:
        del runs
        (folder / name).write_bytes(data)
        return f"model.weights={folder / name}"

    return write


def longer(runs: Path, folder: Path) -> str:
    """Return the override that names a checkpoint of one layer more."""
    for index in range(1, 7):
        save_file(load_file(runs / "small" / layer_file(min(index, 5))), folder / layer_file(index))
    return f"model.weights={folder}"


WRONG: dict[str, tuple[Callable[[Path, Path], str], str]] = {
    "missing file": (lambda runs, folder: f"model.weights={folder / 'none'}", "No such file .* name a file"),
    "no right": (lambda runs, folder: "model.weights=/dev/null", "it is no regular file|Invalid argument"),
    "pickle": (
        written("x.pt", b"\x80\x04abcdefghijk"),
        "is no safetensors file .*; write one with .*save_file",
    ),
    "truncated": (written("x.safetensors", b"\x40\0\0\0\0\0\0\0{"), "is no safetensors file"),
    "empty": (written("x.safetensors", b""), "is no safetensors file"),
    "missing name": (changed(lambda all_: all_.pop("4.bias")), "has no '4.bias', which layer 3 .* '0.bias'"),
    "extra name": (
        changed(lambda all_: all_.update(other=torch.ones(1))),
        "holds 'other', which the network",
    ),
    "extra in a layer": (
        changed(lambda all_: all_.update({"2.scale": torch.ones(1)})),
        "holds '2.scale', which the network .* model.weights.layers",
    ),
    "shape": (
        changed(lambda all_: all_.update({"2.weight": torch.ones(3, 32)})),
        r"'2.weight' has the shape \[3, 32\], but layer 2 needs \[32, 32\]",
    ),
    "integers": (
        changed(lambda all_: all_.update({"2.bias": torch.ones(32, dtype=torch.int64)})),
        "'2.bias' has numbers of type torch.int64, but layer 2 needs torch.float32",
    ),
    "NaN": (
        changed(lambda all_: all_["6.bias"].fill_(float("nan"))),
        "'6.bias' holds numbers that are not finite",
    ),
    "another folder": (lambda runs, folder: f"model.weights={folder}", "so not a checkpoint; name a checkp"),
    "a run": (
        lambda runs, folder: f"model.weights={runs / 'run' / 'small'}",
        "is a run; write one of its checkpoints: .*step-000000004$",
    ),
    "one layer's file": (
        lambda runs, folder: f"model.weights={runs / 'small' / layer_file(1)}",
        "is one layer's file of a checkpoint; write its folder",
    ),
    "another network": (
        lambda runs, folder: f"model.weights={runs / 'kinds'}",
        r"'forward.weight' has the shape|has no 'forward.weight'",
    ),
    "a longer network": (longer, "holds 6 layers and the network has 5; name those to take with model.w"),
    "no layer": (
        lambda runs, folder: f"model.weights={{file: {runs / 'small'}, layers: [6]}}",
        "model.weights.layers: 6 is no layer; they are counted from 1 to 5",
    ),
    "layers of nothing": (lambda runs, folder: "model.weights={layers: [1]}", "write model.weights.file as"),
    "a number": (lambda runs, folder: "model.weights=7", r"model.weights.file: 7 is not allowed"),
    "unknown key": (lambda runs, folder: "model.weights={path: x}", "model.weights.path: .* file, layers"),
    "nobody's home": (lambda runs, folder: "model.weights=~nobody-of-this-name/x", "is nobody's home here"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_one_line_before_anything_starts(runs, tmp_path, name):
    override, words = WRONG[name][0](runs, tmp_path), WRONG[name][1]
    with pytest.raises(ConfigError) as caught:
        train(config(*SHORT, override, f"run_dir={tmp_path / 'run'}"))
    said = str(caught.value)
    assert re.search(words, said), said
    assert said.startswith("model.weights")
    assert "\n" not in said
    assert not (tmp_path / "run").exists()


def test_an_inverse_that_does_not_fit_is_refused_too(runs, tmp_path):
    tensors = kept(runs / "small", 2)
    tensors["inverse.weight"] = torch.ones(2, 2)
    save_file(tensors, tmp_path / "x.safetensors")
    key = f"model.layers.2.weights={tmp_path / 'x.safetensors'}"
    with pytest.raises(ConfigError, match=r"^model\.layers\.2\.weights: .*'inverse.weight' has the shape"):
        check_weights(config(key))
    check_weights(config(key, rule={"name": "backprop"}))
    del tensors["inverse.weight"]
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match=r"has no 'inverse.weight', which the layer"):
        check_weights(config(key))
    del tensors["inverse.bias"]
    save_file(tensors, tmp_path / "x.safetensors")
    check_weights(config(key))


def test_what_these_messages_advise_works(runs):
    check_weights(config(f"model.weights={runs / 'run' / 'small' / 'checkpoints' / 'step-000000004'}"))
    check_weights(config(f"model.weights={{file: {runs / 'small'}, layers: [5]}}"))
    check_weights(config(f"model.layers.1.weights={runs / 'small' / layer_file(1)}"))
