"""Maps: values and pullbacks of dense maps and of any module, and what a call may change."""

import pytest
import torch
from closeness import assert_near
from torch import nn
from torch.nn.functional import batch_norm

from dtp_dist.algorithm.layers.initial import INITS, initial_weight
from dtp_dist.algorithm.maps.activations import ACTIVATIONS as KNOWN
from dtp_dist.algorithm.maps.base import Call, Mode, ModuleMap
from dtp_dist.algorithm.maps.dense import DenseMap
from dtp_dist.algorithm.randomness import Randomness, derive_seed
from dtp_dist.phase import Phase
from networks import (
    ACTIVATIONS,
    BATCH,
    DTYPES,
    SEED,
    dropout_pair,
    inplace_pair,
    normalized_pair,
    values_of,
)

ROUNDED = 4  # roundings to bfloat16 in a row
BOTH_TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
EVERY_ACTIVATION = pytest.mark.parametrize("activation", ACTIVATIONS)
WITH_AND_WITHOUT_BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])


def call(mode: Mode = Mode.LOCAL, *, k: int = 0, purpose: str = "forward", iteration: int = 0) -> Call:
    return Call(Randomness(SEED, 2, k, Phase.BOTH), mode, purpose, iteration)


def linear(bias: bool = True, dtype: torch.dtype = torch.float64) -> nn.Linear:
    return nn.Linear(5, 4, bias=bias, dtype=dtype)


def modules_of(module: nn.Linear, activation: str) -> nn.Sequential:
    return nn.Sequential(*DenseMap(module, activation).torch_modules())


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


# Dense maps


def test_every_activation_is_tested():
    assert set(KNOWN) == set(ACTIVATIONS)


@BOTH_TYPES
@EVERY_ACTIVATION
@WITH_AND_WITHOUT_BIAS
def test_dense_map_and_its_pullbacks(bias, activation, dtype):
    module = linear(bias, dtype)
    x, cotangent = torch.randn(BATCH, 5, dtype=dtype), torch.randn(BATCH, 4, dtype=dtype)
    leaf = x.clone().requires_grad_()
    z = leaf @ module.weight.T
    y = ACTIVATIONS[activation](z + module.bias if bias else z)
    *expected, expected_input = torch.autograd.grad((y * cotangent).sum(), [*module.parameters(), leaf])

    dense = DenseMap(module, activation)
    pullback = dense.linearize(x, call())
    assert_near(dense(x, call()), y.detach())
    assert torch.equal(pullback.output, dense(x, call()))
    assert_near(pullback.input(cotangent), expected_input)
    for found, one in zip(pullback.parameters(cotangent), expected, strict=True):
        assert_near(found, one)


@BOTH_TYPES
@EVERY_ACTIVATION
@WITH_AND_WITHOUT_BIAS
def test_module_map_is_the_dense_map_of_the_same_weights(bias, activation, dtype):
    module = linear(bias, dtype)
    x, cotangent = torch.randn(BATCH, 5, dtype=dtype), torch.randn(BATCH, 4, dtype=dtype)
    dense, general = DenseMap(module, activation), ModuleMap(modules_of(module, activation))
    assert_near(general(x, call()), dense(x, call()))
    one, other = dense.linearize(x, call()), general.linearize(x, call())
    assert_near(other.output, one.output)
    assert_near(other.input(cotangent), one.input(cotangent))
    for left, right in zip(other.parameters(cotangent), one.parameters(cotangent), strict=True):
        assert_near(left, right)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if KNOWN[name].of_output])
def test_stored_output_gives_the_derivative_of_a_dense_map_and_todays_weights_the_product(activation):
    module, x, cotangent = linear(), torch.randn(BATCH, 5).double(), torch.randn(BATCH, 4).double()
    dense = DenseMap(module, activation)
    z = (x @ module.weight.T + module.bias).detach().requires_grad_()
    stored = dense(x, call())
    with torch.no_grad():
        module.weight.mul_(-1.5)
    (inner,) = torch.autograd.grad((ACTIVATIONS[activation](z) * cotangent).sum(), z)
    pullback = dense.linearize(x, call(), stored)
    assert_near(pullback.input(cotangent), inner @ module.weight.detach())
    weight, bias = pullback.parameters(cotangent)
    assert_near(weight, inner.T @ x)
    assert_near(bias, inner.sum(0))


@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_an_activation_that_its_output_does_not_tell_is_computed_again_at_todays_weights(activation):
    assert not KNOWN[activation].of_output
    dense, x, cotangent = DenseMap(linear(), activation), torch.randn(BATCH, 5).double(), torch.ones(BATCH, 4)
    stored, today = dense.linearize(x, call(), torch.zeros(BATCH, 4).double()), dense.linearize(x, call())
    assert torch.equal(stored.output, today.output)
    assert torch.equal(stored.input(cotangent.double()), today.input(cotangent.double()))


@EVERY_ACTIVATION
def test_an_activation_before_the_product_is_pulled_back_too(activation):
    module, x, cotangent = linear(), torch.randn(BATCH, 5).double(), torch.randn(BATCH, 4).double()
    leaf = x.clone().requires_grad_()
    y = ACTIVATIONS[activation](leaf) @ module.weight.T + module.bias
    *expected, expected_input = torch.autograd.grad((y * cotangent).sum(), [*module.parameters(), leaf])
    map_ = DenseMap(module, "linear", activation)
    pullback = map_.linearize(x, call())
    assert_near(pullback.output, y.detach())
    assert_near(nn.Sequential(*map_.torch_modules())(x).detach(), y.detach())
    for found, one in zip(
        [*pullback.parameters(cotangent), pullback.input(cotangent)],
        [*expected, expected_input],
        strict=True,
    ):
        assert_near(found, one)


def test_module_map_computes_its_output_again_whatever_is_stored():
    general, x = ModuleMap(modules_of(linear(), "tanh")), torch.randn(BATCH, 5).double()
    assert torch.equal(general.linearize(x, call(), torch.zeros(BATCH, 4)).output, general(x, call()))


def test_derivatives_at_zero_are_torchs_own():
    for name, activation in KNOWN.items():
        z = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        y = (activation.module or nn.Identity)()(z)
        (expected,) = torch.autograd.grad(y.sum(), z)
        kept = activation.kept(z.detach(), y.detach())
        found = activation.pull(torch.ones(3, dtype=torch.float64), kept)
        assert torch.equal(found, expected), name


def test_outputs_have_no_graph_and_are_contiguous():
    conv = nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2)).to(memory_format=torch.channels_last)
    for map_, x in (
        (DenseMap(linear(), "relu"), torch.randn(5, BATCH).double().t()),
        (ModuleMap(modules_of(linear(), "relu")), torch.randn(5, BATCH).double().t()),
        (ModuleMap(conv), torch.randn(BATCH, 2, 6, 6).to(memory_format=torch.channels_last)),
    ):
        pullback = map_.linearize(x, call())
        for y in (map_(x, call()), map_(x, call(Mode.FORWARD)), pullback.output):
            assert not y.requires_grad
            assert y.is_contiguous()
        assert all(each.grad is None for each in map_.parameters())
        assert not any(each.requires_grad for each in pullback.parameters(torch.randn_like(y)))


def test_pullbacks_of_a_convolution():
    module = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ELU(), nn.MaxPool2d(2)).double()
    x = torch.randn(BATCH, 2, 6, 6, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    y = module(leaf)
    cotangent = torch.randn_like(y)
    expected = torch.autograd.grad((y * cotangent).sum(), [*module.parameters(), leaf])
    pullback = ModuleMap(module).linearize(x, call())
    for found, one in zip(
        [*pullback.parameters(cotangent), pullback.input(cotangent)], expected, strict=True
    ):
        assert_near(found, one)


def test_a_parameter_that_takes_no_part_has_a_zero_gradient():
    module = linear()
    module.register_parameter("idle", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    x = torch.randn(BATCH, 5).double()
    gradients = ModuleMap(module).linearize(x, call()).parameters(torch.ones(BATCH, 4).double())
    names = [name for name, _ in module.named_parameters()]
    assert torch.equal(gradients[names.index("idle")], torch.zeros(2, dtype=torch.float64))


def test_a_module_without_parameters():
    pullback = ModuleMap(nn.Flatten()).linearize(torch.randn(BATCH, 2, 3), call())
    assert pullback.parameters(torch.ones(BATCH, 6)) == []
    assert torch.equal(pullback.input(torch.ones(BATCH, 6)), torch.ones(BATCH, 2, 3))


# Batch statistics


def statistics(module: nn.Module) -> list[torch.Tensor]:
    return [buffer.clone() for buffer in module.buffers()]


@BOTH_TYPES
def test_batch_statistics_change_in_forward_alone_and_as_torchs_do(dtype):
    module = normalized_pair([5])[0].to(dtype)
    map_, x = ModuleMap(module), torch.randn(BATCH, 5, dtype=dtype) + 1
    before = statistics(module)
    map_(x, call(Mode.EVALUATE))
    map_(x, call(Mode.LOCAL))
    map_.linearize(x, call(Mode.LOCAL)).input(torch.ones(BATCH, 4, dtype=dtype))
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(module), strict=True))
    map_(x, call(Mode.FORWARD))
    mean, variance, count = statistics(module)
    z = module[0](x).detach()
    assert_near(mean, 0.1 * z.mean(0))
    assert_near(variance, 0.9 + 0.1 * z.var(0))
    assert count == 1


@BOTH_TYPES
def test_local_calls_use_the_minibatchs_statistics_and_evaluation_the_running_ones(dtype):
    module = normalized_pair([5])[0].to(dtype)
    map_, x = ModuleMap(module), torch.randn(BATCH, 5, dtype=dtype) + 1
    map_(x, call(Mode.FORWARD))
    first, norm, _ = module
    leaf, cotangent = x.clone().requires_grad_(), torch.randn(BATCH, 4, dtype=dtype)
    y = torch.tanh(batch_norm(first(leaf), None, None, norm.weight, norm.bias, training=True))
    expected = torch.autograd.grad((y * cotangent).sum(), [norm.weight, norm.bias, leaf])
    pullback = map_.linearize(x, call(Mode.LOCAL))
    found = [*pullback.parameters(cotangent)[2:], pullback.input(cotangent)]
    for left, right in zip(found, expected, strict=True):
        assert_near(left, right)
    assert_near(map_(x, call(Mode.LOCAL)), y.detach())
    running = batch_norm(first(x), norm.running_mean, norm.running_var, norm.weight, norm.bias)
    assert_near(map_(x, call(Mode.EVALUATE)), torch.tanh(running).detach())


# Random numbers of a module's own


def test_dropout_draws_by_minibatch_purpose_and_iteration_and_leaves_the_global_stream_alone():
    torch.manual_seed(17)
    state = torch.get_rng_state()
    map_, x = ModuleMap(nn.Sequential(nn.Dropout(0.5))), torch.ones(BATCH, 40)
    first = map_(x, call(Mode.FORWARD))
    assert 0 < (first == 0).sum() < first.numel()
    assert torch.equal(first, map_(x, call(Mode.FORWARD)))
    assert torch.equal(first, map_(x, call(Mode.LOCAL)))
    assert torch.equal(first, map_.linearize(x, call(Mode.LOCAL)).output)
    for other in (call(k=1), call(purpose="inverse"), call(iteration=1)):
        assert not torch.equal(first, map_(x, other))
    assert torch.equal(map_(x, call(Mode.EVALUATE)), x)
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_draws_what_its_key_says():
    map_, x = ModuleMap(nn.Dropout(0.5)), torch.ones(BATCH, 40)
    found = map_(x, call(k=3, purpose="inverse", iteration=2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(SEED, 2, 3, Phase.BOTH, "inverse", 2))
        assert torch.equal(found, nn.functional.dropout(x, 0.5))


def test_pullbacks_of_dropout_use_the_mask_of_the_output():
    module = dropout_pair([5], units=30)[0].double()[:2]
    map_, x = ModuleMap(module), torch.randn(BATCH, 5).double()
    dropped = map_(x, call(Mode.FORWARD)) == 0
    pullback = map_.linearize(x, call())
    inner = torch.ones(BATCH, 30).double().masked_fill(dropped, 0) * 2
    weight, bias = pullback.parameters(torch.ones(BATCH, 30).double())
    assert_near(weight, inner.T @ x)
    assert_near(bias, inner.sum(0))


# What a module must not do


@pytest.mark.parametrize("mode", [Mode.FORWARD, Mode.LOCAL, Mode.EVALUATE])
def test_a_module_that_changes_its_input_in_place_is_an_error(mode):
    map_ = ModuleMap(inplace_pair([5])[0])
    with pytest.raises(RuntimeError, match="in place"):
        map_(torch.randn(BATCH, 5), call(mode))


def test_in_place_work_further_up_in_a_module_is_allowed():
    module = nn.Sequential(linear(), nn.ReLU(inplace=True))
    x, cotangent = torch.randn(BATCH, 5).double(), torch.randn(BATCH, 4).double()
    dense = DenseMap(module[0], "relu").linearize(x, call())
    general = ModuleMap(module).linearize(x, call())
    assert_near(general.output, dense.output)
    assert_near(general.input(cotangent), dense.input(cotangent))


def test_calls_leave_parameters_alone():
    module = normalized_pair([5])[0]
    map_, before = ModuleMap(module), values_of(module)
    for mode in Mode:
        map_(torch.randn(BATCH, 5), call(mode))
    assert all(torch.equal(a, b) for a, b in zip(before, values_of(module), strict=True))


# bfloat16 inputs with float32 weights


@pytest.mark.parametrize("kind", ["dense", "module"])
def test_bfloat16_in_bfloat16_out_and_gradients_of_the_parameters_type(kind):
    module = linear(dtype=torch.float32)
    map_ = DenseMap(module, "tanh") if kind == "dense" else ModuleMap(modules_of(module, "tanh"))
    x, cotangent = torch.randn(BATCH, 5), torch.randn(BATCH, 4)
    exact = map_.linearize(x, call())
    pullback = map_.linearize(x.bfloat16(), call())
    assert map_(x.bfloat16(), call()).dtype is pullback.output.dtype is torch.bfloat16
    pulled = pullback.input(cotangent.bfloat16())
    assert pulled.dtype is torch.bfloat16
    assert_near(pulled.float(), exact.input(cotangent), ROUNDED, dtype=torch.bfloat16)
    found = pullback.parameters(cotangent.bfloat16())
    for left, right in zip(found, exact.parameters(cotangent), strict=True):
        assert_near(left, right, ROUNDED, dtype=torch.bfloat16)


# Initial weights


def test_initial_weights():
    def fresh(init, out=240, fan_in=160):
        return initial_weight(out, fan_in, init, torch.Generator().manual_seed(4))

    bound = (6 / 400) ** 0.5
    uniform, normal, orthogonal = (fresh(init) for init in ("xavier_uniform", "xavier_normal", "orthogonal"))
    assert uniform.abs().max() <= bound
    assert uniform.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
    assert normal.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.01)
    assert_near(orthogonal.T @ orthogonal, torch.eye(160), 240)
    u, _, vh = torch.linalg.svd(uniform.double(), full_matrices=False)
    assert_near(orthogonal, (u @ vh).float(), 240)
    for init in INITS:
        assert torch.equal(fresh(init), fresh(init))
        assert fresh(init, 3, 8).shape == (3, 8)
        assert fresh(init).is_contiguous()
