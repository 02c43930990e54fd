"""Layers that users write: whatever their state is made of, it is trained, saved and exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from dtp_dist import load_config, resume, train
from dtp_dist.config import Config
from dtp_dist.config.batches import load_batches
from dtp_dist.errors import ConfigError, StageError
from dtp_dist.storage.export import state_dict_of
from dtp_dist.storage.export_file import export
from dtp_dist.training.evaluate import evaluate
from runs import error_of, small, small_config

LAYERS = {
    "tied": {},
    "lazy": {"units": 20},
    "mirrored": {"units": 20},
    "counting": {"units": 20},
}
LAST = {"kind": "dense", "units": 10, "activation": "linear"}


def config_of(run_dir: Path, layers: list[dict], *overrides: str, shape=(64,), rule: str = "dtp") -> Config:
    raw = small(
        model={"input": list(shape), "layers": [*layers, LAST]},
        rule={"name": rule},
        monitor={"tensorboard": False},
    )
    return load_config(raw, [f"run_dir={run_dir}", *overrides])


def of_kind(kind: str, run_dir: Path, *overrides: str) -> Config:
    """Return a config whose layers 1 and 3 are the user's; layer 3 has an inverse that learns."""
    mine = {"kind": f"user_layers:{kind}", "args": LAYERS[kind]}
    return config_of(run_dir, [mine, {"kind": "dense", "units": 64}, mine], *overrides)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAYERS)
def test_it_trains_goes_on_from_a_checkpoint_evaluates_and_is_exported(tmp_path, kind):
    whole, network = train(of_kind(kind, tmp_path / "whole", "train.max_steps=12"))
    train(of_kind(kind, tmp_path / "halved", "train.max_steps=6"))
    halved, _ = resume(tmp_path / "halved", ["train.max_steps=12", "parallel.stages=3"], allow_code=True)
    assert halved["weights_sha256"] == whole["weights_sha256"]

    means, step = evaluate(tmp_path / "whole", "test", allow_code=True)
    assert (means["error"], step) == (whole["test_error"], 12)
    assert error_of(network, of_kind(kind, tmp_path / "new")) == pytest.approx(means["error"], abs=1e-4)
    export(tmp_path / "whole", tmp_path / "out.safetensors", allow_code=True)
    written = load((tmp_path / "out.safetensors").read_bytes())
    assert written.keys() == network.state_dict().keys()


@pytest.mark.slow
def test_every_part_of_it_learns_or_stays(tmp_path):
    untrained = train(of_kind("counting", tmp_path / "0", "train.max_steps=1")).network
    trained = train(of_kind("counting", tmp_path / "1", "train.max_steps=12")).network
    before, after = untrained.state_dict(), trained.state_dict()
    moved = {name for name in before if name.startswith("3.") and not torch.equal(before[name], after[name])}
    assert moved == {"3.linear.weight", "3.linear.bias", "3.scale", "3.calls"}
    assert trained[3].mask.sum() == 13


def test_a_tied_weight_is_one_parameter_and_under_both_names_in_an_exported_file(tmp_path):
    _, network = train(of_kind("tied", tmp_path / "run", "train.max_steps=3"))
    assert network[0].first.weight is network[0].second.weight
    state = load(save(dict(state_dict_of(network))))
    assert torch.equal(state["0.first.weight"], state["0.second.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("stages", [1, 2])
def test_instances_may_be_lazy_and_tied(tmp_path, stages):
    def run(name: str) -> str:
        torch.manual_seed(0)
        lazy = (nn.Sequential(nn.LazyLinear(20), nn.Tanh()), None)
        linear = nn.Linear(20, 20)
        tied = (nn.Sequential(linear, nn.Tanh(), linear), nn.Sequential(linear, nn.Tanh()))
        instances = [{"kind": "instance"}, {"kind": "instance"}]
        config = config_of(tmp_path / name, instances, "train.max_steps=6", f"parallel.stages={stages}")
        result, network = train(config, modules={1: lazy, 2: tied})
        assert error_of(network, small_config()) == pytest.approx(result["test_error"], abs=1e-4)
        return str(result["weights_sha256"])

    assert run("a") == run("b")


def test_two_layers_may_not_share_a_parameter(tmp_path):
    linear = nn.Linear(64, 64)
    config = config_of(tmp_path / "run", [{"kind": "instance"}, {"kind": "instance"}])
    with pytest.raises(ConfigError, match=r"^modules: layers 1 and 2 share a parameter; give each"):
        train(config, modules={1: (linear, None), 2: (nn.Sequential(linear), nn.Linear(64, 64))})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("remembering", r"model.layers.1.kind: '_extra_state' in a module's state is no tensor, .* buffer$"),
        ("called", r"model.layers.1.kind: a part of a module may not be called 'buffer'; give it another"),
    ],
)
def test_state_that_a_checkpoint_can_not_hold_is_refused_at_once(tmp_path, kind, words):
    with pytest.raises(ConfigError, match=words):
        config_of(tmp_path / "run", [{"kind": f"user_layers:{kind}"}], rule="fw_dtp")


ONE_LEFT = "data.batch_size=109"
"""1,200 examples make 11 minibatches of 109, and one of 1."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "shape", "rule", "refused"),
    [
        ([{"kind": "user_layers:normalized", "args": {"units": 16}}], (64,), "backprop", 1),
        ([{"kind": "user_layers:lazy", "args": {"units": 16}}], (64,), "dtp", 1),
        ([{"kind": "dense", "units": 64}, {"kind": "networks:normalized_pair"}], (64,), "dtp", 2),
        ([{"kind": "user_layers:images", "args": {"channels": 2}}, {"kind": "flatten"}], (1, 8, 8), "dtp", 0),
        ([{"kind": "user_layers:tied"}], (64,), "dtp", 0),
    ],
    ids=["batch norm", "lazy", "second layer", "images have many pixels", "none"],
)
def test_batch_normalisation_of_one_example_is_refused_before_anything_starts(
    tmp_path, layers, shape, rule, refused
):
    config = config_of(tmp_path / "run", layers, ONE_LEFT, shape=shape, rule=rule)
    if not refused:
        assert load_batches(config)["train"].count == 12
        return
    words = rf"^data\.batch_size: 109 leaves .* layer {refused} can't .*; write data.drop_last=true$"
    with pytest.raises(ConfigError, match=words):
        train(config)
    assert not (tmp_path / "run").exists()
    dropped = config_of(tmp_path / "run", layers, ONE_LEFT, "data.drop_last=true", shape=shape, rule=rule)
    assert train(dropped).result["steps"] == 11


def test_a_module_that_refuses_one_example_in_training_alone_says_what_to_write(tmp_path):
    """No look at it beforehand can tell."""
    layers = [{"kind": "user_layers:refusing"}]
    short = ("data.train_examples=41", "data.batch_size=40", "data.shuffle=false")
    with pytest.raises(StageError, match=r"layer 1.*minibatch 1.*ValueError.*write data.drop_last=true"):
        train(config_of(tmp_path / "run", layers, *short, rule="backprop"))
    with pytest.raises(StageError, match=r"ValueError.*write another data.eval_batch_size"):
        train(config_of(tmp_path / "other", layers, "data.eval_batch_size=396", rule="backprop"))


class Unused(nn.Linear):
    """A lazy part that no pass reaches."""

    def __init__(self) -> None:
        super().__init__(64, 20)
        self.other = nn.LazyLinear(3)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ((Unused(), None), "the forward module has a lazy part that a pass leaves without a size"),
        ((nn.Linear(64, 20), nn.LazyConv2d(3, 3)), r"the inverse module does not take an input of .*\[20\]"),
    ],
    ids=["unused", "of another shape"],
)
def test_a_lazy_module_that_finds_no_size_is_refused(tmp_path, pair, words):
    config = config_of(tmp_path / "run", [{"kind": "instance"}], rule="backprop")
    with pytest.raises(ConfigError, match=rf"^model.layers.1.kind: {words}"):
        train(config, modules={1: pair})
