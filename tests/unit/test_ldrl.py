"""The local difference reconstruction loss against autograd of the paper's formula, and what it is for."""

import math

import pytest
import torch
from closeness import assert_near, tolerance
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy, elu

from dtp_dist.algorithm.losses import CROSS_ENTROPY
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.optimizers.kinds import AdamOptions, SGDOptions
from dtp_dist.algorithm.optimizers.schedules import Cosine
from dtp_dist.algorithm.randomness import Randomness, derive_seed
from dtp_dist.phase import Phase
from dtp_dist.planning import costs
from networks import (
    ACTIVATIONS,
    BATCH,
    SEED,
    Reference,
    build,
    conv_network,
    dense,
    exact_step,
    image_minibatch,
    layer_work,
    minibatch,
    parameters,
    rule,
    same_bits,
    stages,
    values,
)

BOTH_TYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
SUMS = 3 * BATCH * 81  # terms of a convolution's gradient: three values of g for 9 x 9 pixels
DEEP = (6, 5, 4, 5, 4, 3)


def noise(layer: int, k: int, iteration: int, purpose: str, like: torch.Tensor, sigma: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(derive_seed(SEED, layer, k, Phase.BOTH, purpose, iteration))
    return torch.empty_like(like).normal_(0.0, sigma, generator=generator)


def paper_loss(f, g, h, y, eps, eta, there=None) -> torch.Tensor:
    """``-2 <eps, g(f(h+eps)) - r> + ||g(y+eta) - r||^2``, ``r = g(y)``: the mean over the minibatch.

    ``there`` is g at f(h+eps), where it is another one.
    """
    with torch.no_grad():
        moved = f(h + eps)
    r = g(y)
    ahead = (there or g)(moved) - r
    return (-2 * (eps * ahead).flatten(1).sum(1) + (g(y + eta) - r).square().flatten(1).sum(1)).mean()


class LDRLReference(Reference):
    """The paper's rule written out: ``||.||^2 / 2`` for every forward map, targets from the logits down."""

    def inverse_loss(self, l, k, eps):
        eta = noise(l, k, self.iteration, "output_noise", self.h[l, k], self.options[l].inverse.sigma)
        self.iteration += 1
        f, g = (lambda x: self.f(l, x)), (lambda y: self.g(l, y))
        return paper_loss(f, g, self.h[l - 1, k], self.h[l, k], eps, eta)

    def inverse(self, k, span=()):
        for l in span or self.options:
            self.iteration = 0
            super().inverse(k, [l])

    def g(self, l, y):
        if self.options[l].inverse.activation_of == "output":
            return super().g(l, y)
        return self._inner(l, "inverse", ACTIVATIONS[self.options[l].inverse.activation](y))

    def target(self, k, span=()):
        for l in reversed(span or list(self.options)):
            if l == self.last:
                onehot = torch.eye(self.h[l, k].shape[1], dtype=self.h[l, k].dtype)[self.labels[k]]
                self.delta[l, k] = self.rule.target_step * (onehot - self.h[l, k].softmax(1))
            if l > 1:
                y = self.h[l, k]
                self.delta[l - 1, k] = self.g(l, y + self.delta[l, k]) - self.g(l, y)

    def forward_loss(self, l, k):
        y = self._through_stored(l, k) if self.rule.stores_jacobian else self.f(l, self.h[l - 1, k])
        anchor = self.h[l, k] if self.rule.anchor == "stale" else y.detach()
        return 0.5 * (y - (anchor + self.delta[l, k]).detach()).square().sum(1).mean()


# Losses, gradients, targets


@BOTH_TYPES
@pytest.mark.parametrize("place", ["input", "output"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_inverse_loss_and_gradients_are_those_of_the_papers_formula(activation, place, dtype):
    options = dense(inverse=activation, place=place)
    layers = build(options, rule("ldrl"), dtype=dtype)
    reference = LDRLReference(layers, options, rule("ldrl"))
    reference.forward(0, *minibatch(dtype=dtype))
    learned = rule("ldrl").build(4)
    for l in (2, 3, 4):
        h, y = reference.h[l - 1, 0], reference.h[l, 0]
        eps, eta = (noise(l, 0, 0, name, h_, 0.3) for name, h_ in (("noise", h), ("output_noise", y)))
        mine = [each.requires_grad_() for each in reference.weights[l, "inverse"]]
        loss = paper_loss(lambda x, l=l: reference.f(l, x), lambda v, l=l: reference.g(l, v), h, y, eps, eta)
        call = Call(Randomness(SEED, l, 0, Phase.BOTH)).inverse(0)
        step = learned.inverse_step(layers[l - 1], h, y, 0.3, call)
        assert_near(step.loss, loss.detach(), SUMS)
        weight, bias = torch.autograd.grad(loss, mine)
        assert_near(step.gradients[0], weight, SUMS)
        assert (step.gradients[1] - bias).abs().max() <= tolerance(dtype, SUMS) * weight.abs().max()


@BOTH_TYPES
@pytest.mark.parametrize("place", ["input", "output"])
def test_conv_inverse_loss_and_gradients_are_those_of_the_papers_formula(place, dtype):
    layers = build(conv_network(place=place), rule("ldrl"), dtype=dtype, shape=(2, 9, 9))
    call = Call(Randomness(SEED, 2, 0, Phase.BOTH))
    h, _ = layers[0].f.with_context(image_minibatch(dtype=dtype)[0], call)
    for layer, pool in ((layers[1], "average"), (max_pooled(dtype, place), "max")):
        y, context = layer.f.with_context(h, call)
        g = conv_inverse(layer, context, pool, place)
        eps, eta = (noise(2, 0, 0, name, h_, 0.2) for name, h_ in (("noise", h), ("output_noise", y)))
        there = conv_inverse(layer, layer.f.with_context(h + eps, call)[1], pool, place)
        loss = paper_loss(nn.Sequential(*layer.f.torch_modules()), g, h, y, eps, eta, there)
        here = Call(call.randomness, context=context).inverse(0)
        step = rule("ldrl").build(5).inverse_step(layer, h, y, 0.2, here)
        assert_near(step.loss, loss.detach(), SUMS)
        weight, bias = torch.autograd.grad(loss, layer.g.parameters())
        assert_near(step.gradients[0], weight, SUMS)
        assert (step.gradients[1] - bias).abs().max() <= tolerance(dtype, SUMS) * weight.abs().max()


def max_pooled(dtype, place):
    options = conv_network(place=place)
    options[1] = options[0]
    return build(options, rule("ldrl"), dtype=dtype, shape=(2, 9, 9))[1]


def conv_inverse(layer, context, pool: str, place: str):
    """Return g in torch's own words, differentiable: the unpooling, the transposed convolution, ELU."""

    def g(y):
        u = elu(y) if place == "input" else y
        if pool == "max":
            flat = u.new_zeros(*u.shape[:2], math.prod(layer.g.image))
            u = flat.scatter_add(2, context.flatten(2), u.flatten(2)).unflatten(2, layer.g.image)
        else:
            u = nn.functional.pad(u.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4, (0, 1, 0, 1))
        return layer.g.conv(u) if place == "input" else elu(layer.g.conv(u))

    return g


@pytest.mark.parametrize("place", ["input", "output"])
@pytest.mark.parametrize("variant", [{"jacobian": "current"}, {}, {"anchor": "stale"}])
def test_a_pipeline_of_two_stages_follows_the_formulas_at_its_own_delays(variant, place):
    learned = rule("ldrl", target_step=0.5, **variant)
    options = dense(iterations=2, place=place, activation="elu")
    layers = build(options, learned, delay=[1, 1, 0, 0])
    before, reference = values(layers), LDRLReference(layers, options, learned)
    parts, spans = stages(layers, learned, [2, 2]), ([1, 2], [3, 4])
    h, delta = {}, {}
    lower = ["F0 I0 F1 I1", "T0 U0 F2 I2", "T1 U1", "T2 U2"]
    upper = ["F0 I0 T0 U0", "F1 I1 T1 U1", "F2 I2 T2 U2", ""]
    for line in range(4):
        for s, part in enumerate((lower[line], upper[line])):
            for action, k in ((each[0], int(each[1])) for each in part.split()):
                x, labels = minibatch(k)
                if action == "F":
                    h[s, k] = parts[s].forward(k, h[s - 1, k].clone() if s else x, labels)
                    reference.forward(k, x, labels, spans[s])
                elif action == "I":
                    parts[s].inverse(k)
                    reference.inverse(k, spans[s])
                elif action == "T":
                    delta[s, k] = parts[s].target(k, delta.get((s + 1, k)))
                    reference.target(k, spans[s])
                else:
                    parts[s].update(k)
                    reference.update(k, spans[s])
    for old, new, expected in zip(before, values(layers), reference.parameters(), strict=True):
        if (expected - old).abs().max() > tolerance(torch.float64):  # inverses' biases have no gradient
            assert_near(new - old, expected - old)


def test_an_inverse_with_its_activation_at_the_output_learns_its_bias_too():
    options = dense(inverse="tanh")
    layers = build(options, rule("ldrl"))
    (stage,) = stages(layers, rule("ldrl"))
    before = layers[1].g.module.bias.detach().clone()
    exact_step([stage], 0, *minibatch())
    assert not torch.equal(before, layers[1].g.module.bias)


# Partitions


@pytest.mark.parametrize("place", ["input", "output"])
def test_any_partition_gives_the_same_bits(place):
    found = []
    for split in ([5], [2, 3], [1, 1, 1, 1, 1]):
        optimizers = {"forward": SGDOptions(lr=0.05, momentum=0.9), "inverse": AdamOptions(lr=0.01)}
        layers = build(
            dense(DEEP, iterations=3, place=place), rule("ldrl"), dtype=torch.float32, **optimizers
        )
        parts = stages(layers, rule("ldrl"), split)
        for k in range(4):
            exact_step(parts, k, *minibatch(k, dtype=torch.float32))
        found.append(values(layers))
    assert all(same_bits(found[0], other) for other in found[1:])


def test_layers_without_iterations_keep_their_inverses_and_all_but_the_first_have_one():
    layers = build(dense(iterations=0), rule("ldrl"))
    assert [layer.inverse is not None for layer in layers] == [False, True, True, True]
    before = [each.clone() for layer in layers[1:] for each in layer.g.parameters()]
    (stage,) = stages(layers, rule("ldrl"))
    exact_step([stage], 0, *minibatch())
    assert same_bits(before, [each for layer in layers[1:] for each in layer.g.parameters()])


@pytest.mark.parametrize(("place", "products"), [("input", 3), ("output", 6)])
def test_planning_counts_the_products_of_an_inverse_iteration(place, products):
    """f once and g as often as it is taken, forth and back; differences spare three of g's six."""
    learned, shapes = rule("ldrl").build(3), [(6,), (5,), (4,), (3,)]
    one, three = (
        layer_work(dense((6, 5, 4, 3), iterations=k, place=place), shapes, learned, 10)[1] for k in (1, 3)
    )
    f, g = (10 * (2 * 5 * 4 + costs.ELEMENT_WORK * size) + costs.CALL_WORK for size in (4, 5))
    assert three - one == pytest.approx(2 * (f + products * g + costs.OPTIMIZER_WORK * 5 * 4))


# What it is for


def angles(layers, learned, x, labels) -> list[float]:
    """Return the mean angle between delta_l and -dLoss/dh_l over the examples, per hidden layer, degrees."""
    h, contexts = [x.clone().requires_grad_()], []
    for layer in layers:
        contexts.append(layer.f.with_context(h[-1].detach(), Call(Randomness(0, 1, 0, Phase.BOTH)))[1])
        h.append(nn.Sequential(*layer.f.torch_modules())(h[-1]))
    gradients = torch.autograd.grad(cross_entropy(h[-1], labels), h[1:-1])
    delta, found = learned.output(h[-1].detach(), labels, CROSS_ENTROPY), []
    for l in range(len(layers), 1, -1):
        call = Call(Randomness(0, l, 0, Phase.BOTH), context=contexts[l - 1])
        delta = learned.propagate(layers[l - 1], h[l - 1].detach(), h[l].detach(), delta, call)
        cosine = cosine_similarity(delta.flatten(1), -gradients[l - 2].flatten(1))
        found.append(torch.rad2deg(torch.acos(cosine)).mean().item())
    return found[::-1]


@pytest.mark.slow
def test_inverses_of_a_conv_net_turn_displacements_towards_the_negative_gradient():
    rate = Cosine(start=0.02, length=21, unit="minibatch")
    layers = build(
        conv_network(iterations=20),
        rule("ldrl"),
        inverse=AdamOptions(lr=rate),
        dtype=torch.float32,
        shape=(2, 9, 9),
        scrambled=False,
    )
    before, learned = values(layers), rule("ldrl", target_step=0.5).build(5)
    held_out = image_minibatch(99)
    start = angles(layers, learned, *held_out)
    (stage,) = stages(layers, rule("ldrl"))
    stage.begin(Phase.INVERSE, 0)
    for k in range(20):
        stage.forward(k, *image_minibatch(k))
        stage.inverse(k)
    end = angles(layers, learned, *held_out)
    assert min(start) > 80, start
    assert max(end) < 20, end
    moved = [not torch.equal(old, new) for old, new in zip(before, parameters(layers), strict=True)]
    assert sum(moved) == 3, "the weights of the three inverses that learn, nothing else"
    assert BATCH < 10, "few examples are enough"
