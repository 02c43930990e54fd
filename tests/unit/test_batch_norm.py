"""Batch normalisation after the activation, without learned scale: values, pullbacks, running statistics."""

import pytest
import torch
from closeness import assert_near, tolerance
from torch import Tensor, nn

from dtp_dist import load_config, train
from dtp_dist.algorithm.layers import DenseOptions
from dtp_dist.algorithm.maps.base import Call, Mode
from dtp_dist.algorithm.maps.dense import DenseMap
from dtp_dist.algorithm.maps.norms.normalized import BatchNorm, NormalizedMap
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.algorithm.state import layer_state, load_layer_state, weights_sha256
from dtp_dist.config.batches import load_batches
from dtp_dist.errors import ConfigError
from dtp_dist.phase import Phase
from networks import BATCH, DTYPES, SEED, build, exact_step, minibatch, rule, same_bits, stages
from runs import error_of, small

BOTH_TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
EPS, MOMENTUM = 1e-5, 0.1
ROUNDED = 4  # roundings to bfloat16 in a row


def call(mode: Mode = Mode.LOCAL) -> Call:
    return Call(Randomness(SEED, 2, 0, Phase.BOTH), mode)


def normalized(y: Tensor) -> Tensor:
    centred = y - y.mean(0)
    return centred / (centred.square().mean(0) + EPS).sqrt()


def made(activation: str = "tanh", dtype: torch.dtype = torch.float64) -> NormalizedMap:
    torch.manual_seed(3)
    return NormalizedMap(DenseMap(nn.Linear(5, 4, dtype=dtype), activation), BatchNorm(4))


def network(name: str = "fw_dtp", dtype: torch.dtype = torch.float32, seed: int = SEED):
    options = [
        DenseOptions(units=units, activation=activation, norm="batch", bias=False)
        for units, activation in ((5, "tanh"), (4, "tanh"), (3, "linear"))
    ]
    return build(options, rule(name), dtype=dtype, seed=seed)


def buffers(layers) -> list[Tensor]:
    return [buffer.clone() for layer in layers for buffer in layer.f.module.buffers()]


@BOTH_TYPES
@pytest.mark.parametrize("activation", ["tanh", "linear"])
def test_value_and_pullbacks(activation, dtype):
    map_ = made(activation, dtype)
    map_.norm.to(dtype)
    x, cotangent = torch.randn(BATCH, 5, dtype=dtype), torch.randn(BATCH, 4, dtype=dtype)
    leaf = x.clone().requires_grad_()
    weight, bias = map_.parameters()
    z = leaf @ weight.T + bias
    y = normalized(torch.tanh(z) if activation == "tanh" else z)
    expected = torch.autograd.grad((y * cotangent).sum(), [weight, leaf])

    pullback = map_.linearize(x, call(), torch.zeros(BATCH, 4, dtype=dtype))
    assert_near(pullback.output, y.detach())
    assert torch.equal(pullback.output, map_(x, call()))
    assert torch.equal(pullback.output, map_(x, call(Mode.FORWARD)))
    assert_near(pullback.parameters(cotangent)[0], expected[0])
    assert_near(pullback.input(cotangent), expected[1])
    assert_near(pullback.input(cotangent.t().contiguous().t()), expected[1])


def test_running_statistics_are_torchs_own_and_move_in_f_of_training_alone():
    map_, x = made(), torch.randn(BATCH, 5, dtype=torch.float64)
    map_.norm.double()
    y = torch.tanh(x @ map_.parameters()[0].T + map_.parameters()[1]).detach()
    before = [buffer.clone() for buffer in map_.norm.buffers()]
    evaluated = map_(x, call(Mode.EVALUATE))
    assert_near(evaluated, y / (1 + EPS) ** 0.5)
    map_(x, call())
    map_.linearize(x, call()).parameters(y)
    assert same_bits(before, list(map_.norm.buffers()))
    map_(x, call(Mode.FORWARD))
    mean, variance = map_.norm.running_mean, map_.norm.running_var
    assert_near(mean, MOMENTUM * y.mean(0))
    assert_near(variance, 1 - MOMENTUM + MOMENTUM * y.var(0))
    assert map_.norm.num_batches_tracked == 1
    assert_near(map_(x, call(Mode.EVALUATE)), (y - mean) / (variance + EPS).sqrt())


@pytest.mark.parametrize("name", ["fw_dtp", "dtp", "backprop"])
def test_in_a_stage_they_move_in_f_alone(name):
    layers = network(name)
    (stage,) = stages(layers, rule(name))
    x, labels = minibatch(dtype=torch.float32)
    seen = [buffers(layers)]
    stage.forward(0, x, labels)
    seen.append(buffers(layers))
    stage.inverse(0)
    stage.target(0, None)
    stage.update(0)
    seen.append(buffers(layers))
    stage.begin(Phase.EVALUATE, 0)
    stage.forward(0, x, labels)
    seen.append(buffers(layers))
    assert not any(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert same_bits(seen[1], seen[2])
    assert same_bits(seen[1], seen[3])


def test_backpropagation_through_it_is_torchs():
    layers = network("backprop", torch.float64)
    copy = nn.Sequential(
        *[module for layer in network("backprop", torch.float64) for module in layer.f.torch_modules()]
    )
    x, labels = minibatch()
    nn.functional.cross_entropy(copy(x), labels).backward()
    before = [next(layer.f.module.parameters()).detach().clone() for layer in layers]
    exact_step(stages(layers, rule("backprop")), 0, x, labels)
    for layer, old, theirs in zip(layers, before, copy.parameters(), strict=True):
        assert_near(next(layer.f.module.parameters()).detach() - old, -theirs.grad)
    assert same_bits(buffers(layers), list(copy.buffers()))


def test_they_come_back_from_a_checkpoint_and_are_part_of_the_hash():
    layers, fresh = network(), network(seed=SEED + 1)
    exact_step(stages(layers, rule("fw_dtp")), 0, *minibatch(dtype=torch.float32))
    saved = [layer_state(layer) for layer in layers]
    assert "forward.buffer.2.running_mean" in saved[0]
    assert "forward.buffer.1.running_mean" in saved[2], "a linear layer has no module for its activation"
    for layer, state in zip(fresh, saved, strict=True):
        load_layer_state(layer, state)
    assert same_bits(buffers(layers), buffers(fresh))
    changed = [{**state} for state in saved]
    changed[1]["forward.buffer.2.running_var"] = changed[1]["forward.buffer.2.running_var"] * 2
    assert weights_sha256(changed) != weights_sha256(saved)


def test_bfloat16_activations_with_float32_statistics():
    layers = network()
    exact_step(stages(layers, rule("fw_dtp")), 0, *minibatch(dtype=torch.bfloat16))
    other = network()
    exact_step(stages(other, rule("fw_dtp")), 0, *minibatch(dtype=torch.float32))
    for half, full in zip(buffers(layers), buffers(other), strict=True):
        assert half.dtype == full.dtype
        error = (half.float() - full.float()).abs().max()  # of numbers around 1, some means being 0
        assert error <= tolerance(torch.bfloat16, ROUNDED)


def normalized_run(*overrides: str):
    raw = small(rule={"name": "fw_dtp"}, optimizer={"forward": {"name": "sgd", "lr": 1.0}})
    raw["model"]["defaults"] |= {"norm": "batch", "inverse": {"init": "uniform", "scale": 0.3}}
    return load_config(raw, ["monitor.tensorboard=false", *overrides])


def test_the_exported_network_equals_evaluation(tmp_path):
    config = normalized_run(f"run_dir={tmp_path / 'run'}", "train.epochs=2")
    result, network = train(config)
    error = error_of(network, config)
    assert error == pytest.approx(result["test_error"], rel=tolerance())
    assert error < 60, "it does not learn"


def test_a_minibatch_of_one_example_is_refused_before_anything_starts(tmp_path):
    """1200 examples: minibatches of 109 leave one."""
    one = [f"run_dir={tmp_path / 'run'}", "data.batch_size=109"]
    with pytest.raises(ConfigError, match=r"^data\.batch_size: 109 leaves .* write data\.drop_last=true$"):
        train(normalized_run(*one))
    assert not (tmp_path / "run").exists()
    assert load_batches(normalized_run(*one, "data.drop_last=true"))["train"].count == 11
    with pytest.raises(ConfigError, match=r"^data\.batch_size: 1 .* write at least 2$"):
        load_batches(normalized_run("data.batch_size=1"))
    load_batches(load_config(small(), ["data.batch_size=109"]))
