"""Random numbers inside f in the inverse loss: drawn afresh in each iteration, and F's in T, U and for ldrl.

Each loss is written out in torch's own words and differentiated by autograd; every draw is made again from
what it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from closeness import assert_near, tolerance
from torch import Tensor, nn
from torch.nn.functional import linear

from dtp_dist.algorithm.layers import (
    DenseOptions,
    DropoutOptions,
    InverseOptions,
    Layer,
    LayerOptions,
    ModuleOptions,
    ResidualOptions,
)
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.optimizers.kinds import SGDOptions
from dtp_dist.algorithm.randomness import Randomness, derive_seed
from dtp_dist.phase import Phase
from networks import BATCH, SEED, build, exact_step, minibatch, noise, rule, stages, values_of

WIDTH, SIGMA, ITERATIONS = 6, 0.3, 3
LEARNED = InverseOptions(sigma=SIGMA, iterations=ITERATIONS)
LINEAR = InverseOptions(activation="linear", bias=False)
WIDE = torch.float64


@dataclass
class Written:
    """f and g of one pass: both take the iteration whose random numbers f has in it."""

    f: Callable[[Tensor, int], Tensor]
    g: Callable[[Tensor, Tensor, int], Tensor]
    """Of y, of what f took in the pass that g undoes, and of that pass's iteration."""


def generator(purpose: str, iteration: int, *place: str) -> torch.Generator:
    key = derive_seed(SEED, 2, 0, Phase.BOTH, purpose, iteration, *place)
    return torch.Generator().manual_seed(key)


def named(layer: Layer) -> tuple[dict[str, Tensor], dict[str, nn.Parameter]]:
    own = {name: each.detach() for name, each in layer.f.module.named_parameters()}
    return own, dict(layer.g.module.named_parameters())


def sampled(layer: Layer) -> Written:
    """Binary samples of a noisy input, as in the stochastic network of Lee et al. 2015, section 3.3."""
    f, g = named(layer)

    def forward(h: Tensor, i: int) -> Tensor:
        noisy = h + torch.empty_like(h).normal_(0.0, 0.2, generator=generator("input noise", i))
        seen = (torch.rand(h.shape, generator=generator("sample", i)) < noisy).to(h.dtype)
        return torch.sigmoid(linear(seen, f["weight"], f["bias"]))

    return Written(forward, lambda y, h, i: torch.tanh(linear(y, g["weight"], g["bias"])))


def dropped(layer: Layer) -> Written:
    """A residual layer that drops what its dense layer gives; g puts back what that pass left out."""
    f, g = named(layer)

    def mask(i: int) -> Tensor:
        return torch.empty(BATCH, WIDTH).bernoulli_(0.6, generator=generator("dropout", i, "body.2")).to(WIDE)

    def inner(h: Tensor) -> Tensor:
        return linear(h, f["body.0.weight"])

    def back(y: Tensor, h: Tensor, i: int) -> Tensor:
        kept = torch.where(mask(i) > 0, 0.6 * y, inner(h))
        return torch.tanh(linear(kept, g["body.1.weight"]) + y)

    return Written(lambda h, i: torch.tanh(inner(h) * mask(i) / 0.6 + h), back)


def users(layer: Layer) -> Written:
    """Modules of a user's, the forward one with dropout."""
    module, (v, c) = layer.f.module, layer.g.parameters()

    def forward(h: Tensor, i: int) -> Tensor:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(derive_seed(SEED, 2, 0, Phase.BOTH, "forward", i))
            return module.train()(h)

    return Written(forward, lambda y, h, i: linear(y, v, c))


def random_pair(units: int) -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(nn.Linear(units, units), nn.Dropout(0.5)), nn.Linear(units, units)


INSIDE: list[LayerOptions] = [
    DenseOptions(units=WIDTH, activation="linear", bias=False, inverse=LINEAR),
    DropoutOptions(p=0.4),
]
LAYERS: dict[str, tuple[LayerOptions, Callable[[Layer], Written]]] = {
    "samples": (
        DenseOptions(
            units=WIDTH, activation="sigmoid", noise=0.2, input_transmission="sample", inverse=LEARNED
        ),
        sampled,
    ),
    "dropout": (ResidualOptions(body=INSIDE, activation="tanh", inverse=LEARNED), dropped),
    "a user's": (
        ModuleOptions(kind="test_fresh_numbers:random_pair", args={"units": WIDTH}, inverse=LEARNED),
        users,
    ),
}
EVERY = pytest.mark.parametrize("name", LAYERS)


def network(name: str, rule_name: str) -> Sequence[Layer]:
    first = DenseOptions(units=WIDTH, activation="sigmoid")
    last = DenseOptions(units=3, activation="linear", inverse=replace(LEARNED, iterations=0))
    return build([first, LAYERS[name][0], last], rule(rule_name), inputs=5, inverse=SGDOptions(lr=0.1))


def learn_and_compare(
    layers: Sequence[Layer], rule_name: str, loss_of: Callable[[Tensor, int], Tensor]
) -> None:
    """Let a stage do F and I, and g of layer 2 go down the written ``loss_of(h, iteration)`` beside it."""
    layer = layers[1]
    x, labels = minibatch(inputs=5)
    h = torch.sigmoid(linear(x, *(each.detach() for each in layers[0].f.parameters())))
    before = [each.detach().clone() for each in layer.g.parameters()]
    (stage,) = stages(layers, rule(rule_name))
    stage.forward(0, x, labels)
    stage.inverse(0)
    after = [each.detach().clone() for each in layer.g.parameters()]
    with torch.no_grad():
        for each, old in zip(layer.g.parameters(), before, strict=True):
            each.copy_(old)
    for iteration in range(ITERATIONS):
        gradients = torch.autograd.grad(loss_of(h, iteration), layer.g.parameters())
        with torch.no_grad():
            for each, gradient in zip(layer.g.parameters(), gradients, strict=True):
                each.sub_(0.1 * gradient)
    for old, new, each in zip(before, after, layer.g.parameters(), strict=True):
        expected = each.detach() - old
        if expected.abs().max() > tolerance(WIDE):  # what ldrl's differences leave of a bias
            assert_near(new - old, expected)


@EVERY
@pytest.mark.parametrize("rule_name", ["dtp", "tp"])
def test_each_iteration_of_target_propagation_draws_afresh(name, rule_name):
    layers = network(name, rule_name)
    written = LAYERS[name][1](layers[1])

    def loss(h: Tensor, i: int) -> Tensor:
        noisy = h + noise(2, 0, i, h, SIGMA)
        return (written.g(written.f(noisy, i), noisy, i) - noisy).square().sum(1).mean()

    learn_and_compare(layers, rule_name, loss)


@EVERY
def test_each_iteration_of_an_autoencoder_draws_afresh(name):
    layers = network(name, "autoencoder")
    layers[0].iterations = 0
    written = LAYERS[name][1](layers[1])

    def loss(h: Tensor, i: int) -> Tensor:
        noisy = h + noise(2, 0, i, h, SIGMA)
        return (written.g(written.f(noisy, i), noisy, i) - h).square().sum(1).mean()

    learn_and_compare(layers, "autoencoder", loss)


@EVERY
def test_every_iteration_of_ldrl_has_the_random_numbers_of_f(name):
    """``f(h + eps)`` and ``y = f(h)`` differ by eps alone."""
    layers = network(name, "ldrl")
    written = LAYERS[name][1](layers[1])

    def loss(h: Tensor, i: int) -> Tensor:
        y, eps = written.f(h, 0), noise(2, 0, i, h, SIGMA)
        key = derive_seed(SEED, 2, 0, Phase.BOTH, "output_noise", i)
        eta = torch.empty_like(y).normal_(0.0, SIGMA, generator=torch.Generator().manual_seed(key))
        r = written.g(y, h, 0)
        ahead, around = written.g(written.f(h + eps, 0), h, 0) - r, written.g(y + eta, h, 0) - r
        return (-2 * (eps * ahead).sum(1) + around.square().sum(1)).mean()

    learn_and_compare(layers, "ldrl", loss)


@EVERY
def test_iterations_draw_other_numbers_than_one_another(name):
    layers = network(name, "dtp")
    written = LAYERS[name][1](layers[1])
    h = torch.rand(BATCH, WIDTH, generator=torch.Generator().manual_seed(3), dtype=WIDE)
    drawn = [written.f(h, i) for i in range(ITERATIONS)]
    assert not any(torch.equal(drawn[i], drawn[i - 1]) for i in range(ITERATIONS))
    call = Call(Randomness(SEED, 2, 0, Phase.BOTH))
    for i, expected in enumerate(drawn):
        assert_near(layers[1].f(h, call.inverse(i).forward(i)), expected)
    assert_near(layers[1].f(h, call.inverse(2).forward()), drawn[0])


def test_the_forward_update_is_at_the_sample_of_f_after_all_iterations():
    """The last layer sees samples and its inverse learns: its own gradient is that of what it saw in F."""
    last: dict[str, Any] = {"units": 3, "activation": "linear", "inverse": replace(LEARNED, iterations=5)}
    options = [
        DenseOptions(units=WIDTH, activation="sigmoid"),
        DenseOptions(input_transmission="sample", **last),
    ]
    layers = build(options, rule("ldrl", target_step=0.5), inputs=5)
    x, labels = minibatch(inputs=5)
    h = torch.sigmoid(linear(x, *values_of(layers[0].f.module)))
    weight, bias = values_of(layers[1].f.module)
    seen = (torch.rand(h.shape, generator=generator("sample", 0)) < h).to(WIDE)
    outputs = linear(seen, weight, bias)
    delta = 0.5 * (torch.eye(3, dtype=WIDE)[labels] - outputs.softmax(1))
    exact_step(stages(layers, rule("ldrl", target_step=0.5)), 0, x, labels)
    assert_near(values_of(layers[1].f.module)[0] - weight, delta.T @ seen / BATCH)
