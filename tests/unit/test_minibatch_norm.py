"""Normalisation over the minibatch by its own statistics: values, pullbacks, evaluation, what is refused."""

import json

import numpy as np
import pytest
import torch
from closeness import assert_near, tolerance
from torch import Tensor

from dtp_dist import load_config, predict, train
from dtp_dist.algorithm.layers import ConvOptions, DenseOptions, InverseOptions, LocalOptions, ResidualOptions
from dtp_dist.algorithm.maps.base import Call, Mode
from dtp_dist.algorithm.maps.norms.minibatch_norm import MinibatchNorm
from dtp_dist.algorithm.options import RangeError
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.config.batches import load_batches
from dtp_dist.errors import ConfigError, DataError
from dtp_dist.phase import Phase
from networks import DTYPES, SEED
from runs import error_of, run_cli, small, the_line

SHAPES = pytest.mark.parametrize("shape", [(9, 4), (5, 3, 4, 2)], ids=["flat", "images"])
DIGITS = 397
"""Examples of the test split."""


def call(mode: Mode = Mode.LOCAL) -> Call:
    return Call(Randomness(SEED, 2, 0, Phase.BOTH), mode)


def normalized(x: Tensor) -> Tensor:
    over = [0, *range(2, x.dim())]
    return (x - x.mean(over, keepdim=True)) / (x.std(over, keepdim=True) + 1e-12)


@SHAPES
@pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
def test_value_and_pullback(shape, dtype):
    generator = torch.Generator().manual_seed(5)
    x, cotangent = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    leaf = (3 * x + 1).requires_grad_()
    expected = normalized(leaf)
    norm = MinibatchNorm()
    found = norm.linearize(leaf.detach())
    assert_near(found.output, expected.detach())
    for mode in Mode:
        assert torch.equal(norm(leaf.detach(), mode), found.output)
    assert torch.equal(norm.module(leaf.detach()), found.output)
    below, own = found.pull(cotangent, True)
    assert_near(below, torch.autograd.grad((expected * cotangent).sum(), leaf)[0])
    assert own == []


def test_a_unit_that_is_the_same_in_all_examples():
    x = torch.tensor([[1.0, 2.0], [1.0, 3.0], [1.0, 5.0]], dtype=torch.float64, requires_grad=True)
    cotangent = torch.tensor([[1.0, 2.0], [3.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    found = MinibatchNorm().linearize(x.detach())
    assert (found.output[:, 0] == 0).all()
    expected = torch.autograd.grad((normalized(x) * cotangent).sum(), x)[0]
    for unit in (0, 1):
        assert_near(found.pull(cotangent, False)[0][:, unit], expected[:, unit])


def test_bfloat16_has_float32_statistics():
    x = 100 + torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    half = x.to(torch.bfloat16)
    found = MinibatchNorm().linearize(half)
    assert found.output.dtype == found.pull(half, False)[0].dtype == torch.bfloat16
    assert_near(found.output.float(), normalized(half.float()), 1, dtype=torch.bfloat16)


INVERSE = InverseOptions(norm="minibatch", activation="tanh")
KINDS = [
    (DenseOptions(units=3, norm="minibatch", inverse=INVERSE), (6,)),
    (ConvOptions(channels=3, pool="max", norm="minibatch", inverse=INVERSE), (2, 6, 6)),
    (LocalOptions(channels=3, norm="minibatch", inverse=INVERSE), (2, 4, 4)),
]


@pytest.mark.parametrize(("options", "shape"), KINDS, ids=["dense", "conv", "local"])
def test_every_layer_with_weights_has_it_in_both_maps(options, shape):
    plain = {"norm": "none", "inverse": InverseOptions(activation="tanh")}
    maps = options.maps(shape, torch.Generator().manual_seed(2), inverse=True)
    bare = type(options)(**{**vars(options), **plain})
    others = bare.maps(shape, torch.Generator().manual_seed(2), inverse=True)
    x = torch.randn(7, *shape, generator=torch.Generator().manual_seed(3))
    h, context = others[0].with_context(x, call(Mode.FORWARD))
    found, kept = maps[0].with_context(x, call(Mode.FORWARD))
    assert_near(found, normalized(h))
    below = Call(Randomness(SEED, 2, 0, Phase.BOTH), context=context)
    own = Call(Randomness(SEED, 2, 0, Phase.BOTH), context=kept)
    back = others[1](found, below)
    assert_near(maps[1](found, own), normalized(back))
    pullback = maps[1].linearize(found, own)
    weights = [each.detach() for each in maps[1].parameters()]
    assert [each.shape for each in pullback.parameters(x)] == [each.shape for each in weights]
    assert all(torch.equal(a, b) for a, b in zip(weights, others[1].parameters(), strict=True))


def test_a_learned_inverse_is_pulled_back_through_it():
    maps = KINDS[0][0].maps((6,), torch.Generator().manual_seed(2), inverse=True)
    g = maps[1]
    g.module.double()
    y, cotangent = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 6, dtype=torch.float64)
    weight, bias = g.parameters()
    expected = (normalized(torch.tanh(y @ weight.T + bias)) * cotangent).sum()
    for found, due in zip(
        g.linearize(y, call()).parameters(cotangent),
        torch.autograd.grad(expected, [weight, bias]),
        strict=True,
    ):
        assert_near(found, due, 10 * 1000)


def test_which_layers_need_several_examples_and_which_mix_them():
    dense, conv, _ = (options for options, _ in KINDS)
    inside = ResidualOptions(body=[conv, ConvOptions(channels=2, padding=2)])
    assert [each.mixes_examples for each in (dense, conv, inside)] == [True] * 3
    assert not DenseOptions(units=3, norm="batch", inverse=INVERSE).mixes_examples
    assert dense.needs_several_examples((6,), inverse=False)
    assert not conv.needs_several_examples((2, 6, 6), inverse=True)
    alone = DenseOptions(units=3, inverse=INVERSE)
    assert [alone.needs_several_examples((6,), inverse=each) for each in (True, False)] == [True, False]


def test_it_has_nothing_to_learn():
    with pytest.raises(RangeError, match="write false, or norm: batch") as caught:
        DenseOptions(units=3, norm="minibatch", norm_affine=True).output_shape((4,))
    assert caught.value.key == "norm_affine"


def config_of(*overrides: str, rule: str = "dtp"):
    raw = small(rule={"name": rule})
    raw["model"]["defaults"]["norm"] = "minibatch"
    return load_config(raw, ["monitor.tensorboard=false", "data.eval_batch_size=50", *overrides])


def test_the_inverse_loss_that_joins_minibatches_refuses_it():
    config_of("model.layers.2.inverse.norm=minibatch")
    config_of("model.layers.1.inverse.norm=minibatch", rule="ldrl")  # which has no g_1
    with pytest.raises(ConfigError, match=r"^model\.layers\.2\.inverse\.norm: .* rule\.name=ldrl: .*none$"):
        config_of("model.layers.2.inverse.norm=minibatch", rule="ldrl")


def test_a_lone_example_is_refused_before_anything_starts():
    message = r"^data\.eval_batch_size: 396 leaves .* one example, over which layer 1 .*; write 395$"
    with pytest.raises(ConfigError, match=message):
        load_batches(config_of("data.eval_batch_size=396", "data.valid_examples=0"))
    with pytest.raises(ConfigError, match=r"^data\.eval_batch_size: 1 leaves .*; write 5$"):
        load_batches(config_of("data.eval_batch_size=1"))
    with pytest.raises(ConfigError, match=r"^data\.batch_size: 1 .* write at least 2$"):
        load_batches(config_of("data.batch_size=1"))
    load_batches(
        config_of("data.eval_batch_size=396", *(f"model.layers.{l}.norm=batch" for l in range(1, 6)))
    )


def test_a_run_exported_network_and_predictions_agree(tmp_path):
    """The predictions of a split are those that evaluation counts, and are of the same minibatches."""
    config = config_of(f"run_dir={tmp_path / 'run'}", "train.epochs=3")
    result, network = train(config)
    assert result["test_error"] < 50
    assert error_of(network, config) == pytest.approx(result["test_error"], rel=tolerance())
    examples = load_batches(config)["test"].examples
    x = (examples.rows.all() / examples.unit).float().view(-1, 64)
    assert len(x) == DIGITS
    found = predict(tmp_path / "run", x)
    wrong = sum(each.label != str(label) for each, label in zip(found, examples.labels.tolist(), strict=True))
    assert 100 * wrong / DIGITS == pytest.approx(result["test_error"])
    other = predict(tmp_path / "run", x[:51])
    assert other[0].values != found[0].values, "50 and 1 are taken as 51"
    assert [each.values for each in predict(tmp_path / "run", x[:50])] == [each.values for each in found[:50]]
    with pytest.raises(DataError, match=r"^examples: is one example, but .*; name several$"):
        predict(tmp_path / "run", x[:1])


def test_the_command_line_says_so_too(tmp_path):
    train(config_of(f"run_dir={tmp_path / 'run'}", "train.max_steps=3"))
    np.save(tmp_path / "one.npy", np.zeros((1, 64), dtype=np.float32))
    np.save(tmp_path / "two.npy", np.arange(128, dtype=np.float32).reshape(2, 64))
    refused = run_cli("predict", "run", "one.npy", cwd=tmp_path)
    assert (refused.returncode, the_line(refused)) == (
        1,
        "error: one.npy: is one example, but this network (norm: minibatch) normalizes over those that it "
        "gets at once; name several",
    )
    done = run_cli("predict", "run", "two.npy", "--json", cwd=tmp_path)
    assert len(json.loads(done.stdout)) == 2
    exported = run_cli("export", "run", "network.safetensors", cwd=tmp_path)
    assert exported.returncode == 0
    assert "normalizes over the examples of a call" in exported.stdout
    assert "the run evaluated 50 at a time (data.eval_batch_size)" in exported.stdout
