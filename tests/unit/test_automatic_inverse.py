"""``inverse: auto``: a small inverse of the right shape for any module that brings none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dtp_dist import load_config, resume, train
from dtp_dist.algorithm.layers import InverseOptions
from dtp_dist.algorithm.layers.user.automatic import automatic_inverse
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.options import RangeError
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.config import Config
from dtp_dist.errors import ConfigError
from runs import small

LAST = {"kind": "dense", "units": 10, "activation": "linear"}
AUTO = InverseOptions(activation="elu", activation_of="input", auto=True)
CALL = Call(Randomness(0, 2, 0, "both")).inverse()
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "vectors": ((20,), (64,), 20 * 64),
    "images": ((6, 8, 8), (3, 8, 8), 6 * 3 * 9),
    "a stride": ((6, 4, 5), (3, 8, 9), 6 * 3 * 9),
    "no padding": ((6, 28, 28), (1, 32, 32), 6 * 9),
    "larger images": ((2, 16, 16), (3, 8, 8), 2 * 3 * 9),
    "an image to a vector": ((10,), (2, 3, 4), 10 * 24),
    "a vector to an image": ((2, 3, 4), (10,), 10 * 24),
    "vectors in a row": ((7, 5), (7, 3), 5 * 3),
    "signals": ((4, 10), (2, 21), 4 * 2 * 3),
    "volumes": ((2, 3, 3, 3), (1, 6, 5, 4), 2 * 27),
    "another number of dimensions": ((2, 6), (2, 3, 4), 12 * 24),
}
EVERY_SHAPE = pytest.mark.parametrize("name", SHAPES)


@EVERY_SHAPE
@pytest.mark.parametrize("place", ["input", "output"])
def test_it_leads_back_and_pulls_autograds_gradients(name, place):
    shape, back, weights = SHAPES[name]
    options = InverseOptions(activation="tanh", activation_of=place, auto=True)
    inverse = automatic_inverse(options, shape, back, seed=3)
    inverse.module.double()
    y = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = inverse(y, CALL)
    assert found.shape == (3, *back)
    assert inverse.parameters()[0].numel() == weights
    assert place == "input" or found.abs().max() < 1
    numeric = directional(lambda at: inverse(at, CALL), y)
    pulled = inverse.linearize(y, CALL).input(torch.ones_like(found))
    assert (pulled * direction(y)).sum().item() == pytest.approx(numeric, rel=1e-6)


def direction(y: Tensor) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)


def directional(function: Any, y: Tensor) -> float:
    """Return the derivative of the sum of a function's output along ``direction``."""
    step = 1e-6 * direction(y)
    ahead, behind = function(y + step), function(y - step)
    return float((ahead - behind).sum() / 2e-6)


@EVERY_SHAPE
def test_initial_weights_are_the_seeds_and_the_options(name):
    shape, back, _ = SHAPES[name]

    def weights(seed: int = 3, **more: Any) -> list[Tensor]:
        made = automatic_inverse(InverseOptions(auto=True, **more), shape, back, seed)
        return [each.detach() for each in made.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(weights(), weights(), strict=True))
    assert not torch.equal(weights()[0], weights(4)[0])
    assert 0 < weights(init="uniform", scale=0.01)[0].abs().max() <= 0.01
    assert len(weights()) == 2
    assert len(weights(bias=False)) == 1
    lengths = torch.linalg.svdvals(weights(init="orthogonal")[0].flatten(1))
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-4)


def test_a_number_without_a_dimension_has_none():
    with pytest.raises(RangeError, match=r"let it give \[1\]"):
        automatic_inverse(AUTO, (), (4,), 0)


def module(kind: str = "torch.nn:LazyLinear", inverse: Any = "auto", **args: Any) -> dict[str, Any]:
    return {"kind": kind, "args": args or {"out_features": 20}, "inverse": inverse}


def config_of(run_dir: Any, layers: list[dict[str, Any]], *overrides: str, rule: str = "ldrl") -> Config:
    raw = small(
        model={"input": [64], "layers": [*layers, LAST]}, rule={"name": rule}, monitor={"tensorboard": False}
    )
    return load_config(raw, [f"run_dir={run_dir}", "train.max_steps=6", *overrides])


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["dtp", "ldrl", "fw_dtp", "tp", "autoencoder"])
def test_it_trains_with_every_rule_on_any_partition(tmp_path, rule):
    learning = {"auto": True, "iterations": 2, "sigma": 0.1, "activation": "tanh"}
    layers = [module(), module("torch.nn:Tanh", a=1), module("user_layers:normalized", learning, units=16)]
    layers[1]["args"] = {}
    one = train(config_of(tmp_path / "1", layers, rule=rule)).result
    four = train(config_of(tmp_path / "4", layers, "parallel.stages=4", rule=rule)).result
    assert four["weights_sha256"] == one["weights_sha256"]
    train(config_of(tmp_path / "cut", layers, "train.max_steps=3", rule=rule))
    resumed = resume(tmp_path / "cut", ["train.max_steps=6"], allow_code=True).result
    assert resumed["weights_sha256"] == one["weights_sha256"]


def test_instances_may_have_one_too(tmp_path):
    torch.manual_seed(0)
    layers = [{"kind": "dense", "units": 20}, {"kind": "instance", "inverse": "auto"}]
    pair = (nn.Sequential(nn.Linear(20, 30), nn.Tanh()), None)
    assert train(config_of(tmp_path / "run", layers), modules={2: pair}).result["steps"] == 6


def test_a_module_that_brings_an_inverse_keeps_it(tmp_path):
    def run(name: str, **more: Any) -> str:
        layer = {"kind": "user_layers:tied", **more}
        return str(train(config_of(tmp_path / name, [layer, layer])).result["weights_sha256"])

    assert run("given") == run("auto", inverse="auto")


@pytest.mark.parametrize("where", ["layer", "defaults", "override"])
def test_without_it_the_error_says_how(tmp_path, where):
    layers = [module(inverse={}), module(inverse={})]
    with pytest.raises(
        ConfigError, match=r"^model.layers.2.kind: .* or write inverse: auto for a small one$"
    ):
        config_of(tmp_path, layers)
    if where == "layer":
        layers[1]["inverse"] = "auto"
        config_of(tmp_path, layers)
    elif where == "override":
        config = config_of(tmp_path, layers, "model.layers.2.inverse=auto")
        assert config.model.layers[1].inverse == InverseOptions(auto=True)
    else:
        config_of(tmp_path, layers, "model.defaults.inverse=auto")


def test_a_wrong_word_or_activation_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^model.layers.1.inverse: 'automatic' is not allowed"):
        config_of(tmp_path, [module(inverse="automatic")])
    with pytest.raises(ConfigError, match=r"^model.layers.1.inverse.activation: 'softmax' is not allowed"):
        config_of(tmp_path, [module(inverse={"auto": True, "activation": "softmax"})])
    with pytest.raises(ConfigError, match=r"^model.layers.1.inverse.norm: .* write none, or"):
        config_of(tmp_path, [module(inverse={"auto": True, "norm": "minibatch"})])
