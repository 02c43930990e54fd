"""Signs and samples between layers, noise on the input, and evaluation by the mean of sampled passes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from closeness import assert_near, tolerance
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dtp_dist.algorithm.layers import DenseOptions, InverseOptions
from dtp_dist.algorithm.losses import CROSS_ENTROPY
from dtp_dist.algorithm.losses.output import OutputMeasure
from dtp_dist.algorithm.maps.base import Call, Mode
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.algorithm.transmission import MODULES, SAMPLE, SIGN, sample, sign, transmitted
from dtp_dist.phase import Phase
from dtp_dist.training.parts import evaluation
from networks import (
    BATCH,
    SEED,
    SIZES,
    ascended,
    build,
    descended,
    exact_step,
    minibatch,
    noise,
    rule,
    same_bits,
    stages,
    values,
    values_of,
)

WIDE = torch.float64


class StraightThrough(torch.autograd.Function):
    """Any function of h, with the gradient of the identity."""

    @staticmethod
    def forward(ctx, h: Tensor, seen: Tensor) -> Tensor:
        del ctx, h
        return seen.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        del ctx
        return gradient, None


def randomness(layer: int, k: int = 0, phase: Phase = Phase.BOTH) -> Randomness:
    return Randomness(SEED, layer, k, phase)


def seen(kind: str, h: Tensor, layer: int, k: int = 0) -> Tensor:
    return transmitted(kind, h, lambda: randomness(layer, k).generator("sample", 0, h.device))


def network(kind: str, *, first: float = 0.0, inverse: str = "real", activation: str = "tanh"):
    learning = InverseOptions(sigma=0.3, input_transmission=inverse)
    options = [
        DenseOptions(
            units=units, activation=activation, inverse=learning, input_transmission=kind if l else "real"
        )
        for l, units in enumerate(SIZES[1:-1])
    ]
    options[0] = DenseOptions(units=SIZES[1], activation=activation, noise=first)
    return [*options, DenseOptions(units=SIZES[-1], activation="linear", input_transmission=kind)]


def test_the_sign_of_zero_is_minus_one():
    assert sign(torch.tensor([-2.0, -0.0, 0.0, 1e-30])).tolist() == [-1.0, -1.0, -1.0, 1.0]


def test_a_sample_is_one_as_often_as_its_probability():
    h = torch.tensor([0.0, 0.25, 1.0, 1.4, -0.2]).repeat(20_000, 1)
    drawn = seen(SAMPLE, h, 1).mean(0)
    assert drawn.tolist() == pytest.approx([0.0, 0.25, 1.0, 1.0, 0.0], abs=0.02)
    assert drawn[[0, 2, 3, 4]].tolist() == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("kind", [SIGN, SAMPLE])
def test_twice_is_once(kind: str):
    h = torch.rand(50, 30, generator=torch.Generator().manual_seed(1)) * 2 - 0.5
    once = seen(kind, h, 2)
    assert len(once.unique()) == 2
    assert torch.equal(seen(kind, once, 2), once)


def test_samples_depend_on_layer_minibatch_and_phase_alone():
    h = torch.full((20, 20), 0.5)
    assert torch.equal(seen(SAMPLE, h, 2, 5), seen(SAMPLE, h, 2, 5))
    assert not torch.equal(seen(SAMPLE, h, 2, 5), seen(SAMPLE, h, 3, 5))
    assert not torch.equal(seen(SAMPLE, h, 2, 5), seen(SAMPLE, h, 2, 6))


@pytest.mark.parametrize(("kind", "activation"), [(SIGN, "tanh"), (SAMPLE, "sigmoid")])
def test_backprop_is_the_straight_through_estimator(kind: str, activation: str):
    options = rule("backprop")
    layers = build(network(kind, activation=activation), options)
    weights = [[p.requires_grad_() for p in values_of(layer.f.module)] for layer in layers]
    x, labels = minibatch()
    h = x
    for l, (weight, bias) in enumerate(weights, 1):
        entering = h if l == 1 else StraightThrough.apply(h, seen(kind, h.detach(), l))
        z = entering @ weight.T + bias
        h = z if l == len(weights) else {"tanh": torch.tanh, "sigmoid": torch.sigmoid}[activation](z)
    loss = cross_entropy(h, labels)
    expected = torch.autograd.grad(loss, [p for pair in weights for p in pair])
    exact_step(stages(layers, options), 0, x, labels)
    after = [p for layer in layers for p in values_of(layer.f.module)]
    for old, new, gradient in zip([p for pair in weights for p in pair], after, expected, strict=True):
        assert_near(old.detach() - new, gradient)


def test_discrete_dtp_keeps_targets_and_noise_on_real_numbers():
    """Lee et al. 2015, section 3.2: f_2 and g_2 see signs, everything else is real."""
    options = rule(target_step=1.5)
    layers = build(network(SIGN, inverse="sign"), options)
    second = layers[1]
    v, c = values_of(second.g.module)
    w, b = values_of(second.f.module)
    x, labels = minibatch()
    parts = stages(layers, options, [1] * len(layers))
    h = ascended(parts, 0, x, labels)
    h1, h2 = h[1:3]
    noisy = h1 + noise(2, 0, 0, h1, 0.3)
    leaves = [v.requires_grad_(), c.requires_grad_()]
    rebuilt = torch.tanh(sign(torch.tanh(sign(noisy) @ w.T + b)) @ v.T + c)
    wanted = torch.autograd.grad((rebuilt - noisy).square().sum(1).mean(), leaves)
    for stage in parts:
        stage.inverse(0)
    for old, new, gradient in zip(leaves, values_of(second.g.module), wanted, strict=True):
        assert_near(old.detach() - new, 0.1 * gradient)
    delta1, delta2 = descended(parts, 0, h[-1], labels)[:2]
    v, c = values_of(second.g.module)
    difference = torch.tanh(sign(h2 + delta2) @ v.T + c) - torch.tanh(sign(h2) @ v.T + c)
    assert_near(delta1, difference)


def test_the_target_passes_through_the_sample_unchanged():
    """Lee et al. 2015, section 3.3: delta_{L-1} = -eta dLoss/dsample_{L-1}."""
    options = rule(target_step=2.0)
    layers = build(network(SAMPLE, activation="sigmoid"), options)
    x, labels = minibatch()
    parts = stages(layers, options, [1] * len(layers))
    h = ascended(parts, 0, x, labels)
    for stage in parts:
        stage.inverse(0)
    delta = descended(parts, 0, h[-1], labels)
    weight, bias = values_of(layers[-1].f.module)
    drawn = seen(SAMPLE, h[-2], len(layers)).requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(drawn @ weight.T + bias, labels), drawn)
    assert_near(delta[-2], -2.0 * gradient)


def test_forward_and_update_see_the_same_sample_and_evaluation_sees_no_noise():
    layers = build(network(SAMPLE, first=0.5, activation="sigmoid"), rule())
    first, second = layers[0].f, layers[1].f
    x, _ = minibatch()
    going, later = Call(randomness(1), Mode.FORWARD), Call(randomness(1), Mode.LOCAL)
    assert torch.equal(first(x, going), first.linearize(x, later).output)
    weight, bias = values_of(layers[0].f.module)
    assert_near(first(x, Call(randomness(1), Mode.EVALUATE)), torch.sigmoid(x @ weight.T + bias))
    assert not torch.equal(first(x, going), first(x, Call(randomness(1), Mode.EVALUATE)))
    h = torch.rand(BATCH, SIZES[1], dtype=WIDE, generator=torch.Generator().manual_seed(3))
    assert torch.equal(second(h, Call(randomness(2))), second.linearize(h, Call(randomness(2))).output)


@pytest.mark.parametrize("name", ["dtp", "tp", "backprop"])
@pytest.mark.parametrize(("kind", "activation"), [(SIGN, "tanh"), (SAMPLE, "sigmoid")])
def test_partitions_end_with_the_same_bits(name: str, kind: str, activation: str):
    found = []
    for split in ([4], [1, 3], [2, 1, 1]):
        layers = build(network(kind, first=0.3, activation=activation), rule(name), dtype=torch.float32)
        parts = stages(layers, rule(name), split)
        for k in range(5):
            exact_step(parts, k, *minibatch(k, dtype=torch.float32))
        found.append(values(layers))
    assert all(same_bits(one, other) for one, other in pairwise(found))


def test_only_a_layer_without_noise_transmits_bits():
    assert DenseOptions(units=3, input_transmission=SIGN).transmission == SIGN
    assert DenseOptions(units=3, input_transmission=SIGN, noise=0.1).transmission == "real"


def test_an_evaluation_of_several_passes_judges_the_mean_output():
    generator = torch.Generator().manual_seed(4)
    passes = [torch.randn(9, 4, generator=generator) * 3 for _ in range(3)]
    labels = torch.randint(0, 4, (9,), generator=generator)
    measure = OutputMeasure(CROSS_ENTROPY, 3)
    mean = sum(nn.functional.softmax(logits, 1) for logits in passes) / 3
    for _ in range(2):  # it begins again for the next minibatch
        assert [measure(logits, labels) for logits in passes[:2]] == [None, None]
        found = measure(passes[2], labels)
        assert found["loss"] == pytest.approx(
            -mean[torch.arange(9), labels].log().mean().item(), rel=tolerance()
        )
        assert found["error"] == pytest.approx(100 * (mean.argmax(1) != labels).float().mean().item())


def test_passes_are_minibatches_of_their_own():
    segment = evaluation("test", 3, 4, passes=3)
    assert len(segment.minibatches) == 12
    assert [segment.index(k) for k in segment.minibatches] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_the_modules_of_exported_networks_see_what_layers_see():
    h = torch.tensor([-2.0, -0.0, 0.0, 1e-30, 0.4, 1.0, 2.0])
    assert torch.equal(MODULES[SIGN]()(h), sign(h))
    torch.manual_seed(3)
    uniform = torch.rand(h.shape)
    torch.manual_seed(3)
    assert torch.equal(MODULES[SAMPLE]()(h), sample(h, uniform))
