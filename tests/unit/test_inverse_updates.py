"""Inverse updates that cost less: shares of a minibatch, as many as are needed, closed forms.

The closed forms are compared with autograd of the exact Jacobians of layers written in torch's own words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from closeness import assert_near
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.nn.functional import conv2d, conv_transpose2d, elu, linear, max_pool2d

from dtp_dist import load_config
from dtp_dist.algorithm.layers import ConvOptions, DenseOptions, InverseOptions, Layer, LocalOptions
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.optimizers.kinds import SGDOptions
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.algorithm.stages.inverses import share
from dtp_dist.errors import ConfigError
from dtp_dist.phase import Phase
from networks import SEED, build, dense, exact_step, minibatch, rule, same_bits, stages, values

SIGMA, EXAMPLES, SIDE = 0.3, 5, 7
ELU_IN = InverseOptions(activation="elu", activation_of="input", sigma=SIGMA)
DERIVATIVE = InverseOptions(activation="derivative", sigma=SIGMA)
Maps = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


def call_of(layer: Layer, h: Tensor, iteration: int = 0) -> tuple[Tensor, Call]:
    """Return what F gives for h, and the call of the inverse in the same minibatch."""
    call = Call(Randomness(SEED, layer.index, 0, Phase.BOTH))
    y, context = layer.f.with_context(h, call)
    return y, replace(call, context=context).inverse(iteration)


def dense_maps(layer: Layer, h: Tensor) -> Maps:
    """Return f and g of one example, f's derivative where g takes it that of h."""
    (w, b), (v, c) = layer.f.module.parameters(), layer.g.module.parameters()
    slope = elu(linear(h, w, b)).clamp_max(0) + 1
    taken = layer.options_inverse.activation == "derivative"
    return (
        lambda x: elu(linear(x, w.detach(), b.detach())),
        lambda y: linear(y * slope if taken else elu(y), v, c),
    )


def conv_maps(layer: Layer, h: Tensor) -> Maps:
    """Return the same of a conv layer with overlapping pooling, no padding, at the places that h has."""
    (w, b), (v, c) = layer.f.module.parameters(), layer.g.module.parameters()
    z = conv2d(h[None], w.detach(), b.detach())
    _, places = max_pool2d(z, 3, 2, return_indices=True)
    chosen = places.flatten(2)

    def forward(x: Tensor) -> Tensor:
        image = conv2d(x[None], w.detach(), b.detach())
        return elu(image.flatten(2).gather(2, chosen)).view(places.shape)[0]

    def back(y: Tensor) -> Tensor:
        flat = y.new_zeros(1, z.shape[1], z.shape[2] * z.shape[3])
        flat = flat.scatter_add(2, chosen, elu(y)[None].flatten(2))
        return conv_transpose2d(flat.view(z.shape), v, c)[0]

    return forward, back


DENSE = DenseOptions(units=6, activation="elu", inverse=ELU_IN)
POOLED = ConvOptions(channels=3, activation="elu", pool="max", pool_kernel=3, pool_stride=2, inverse=ELU_IN)
KINDS = [
    pytest.param(DENSE, (4,), dense_maps, id="dense"),
    pytest.param(replace(DENSE, inverse=DERIVATIVE), (4,), dense_maps, id="derivative"),
    pytest.param(POOLED, (2, SIDE, SIDE), conv_maps, id="conv"),
]
PLACES = pytest.mark.parametrize(("options", "shape", "maps"), KINDS)


def layer_of(options, shape, form: str) -> Layer:
    """Return layer 2 of two equal ones: the first has no inverse."""
    below = replace(options, units=shape[0]) if shape == (4,) else ConvOptions(channels=shape[0], padding=1)
    shape_in = shape if shape == (4,) else (1, *shape[1:])
    layer = build([below, options], rule("ldrl", inverse_loss=form), shape=shape_in)[1]
    layer.options_inverse = options.inverse
    return layer


def lengths(layer: Layer, maps, h: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``||J_g||^2``, ``<J_g, J_f^T>`` and ``||J_f||^2``, means over the examples, of Jacobians."""
    found = []
    for x, out in zip(h, y, strict=True):
        f, g = maps(layer, x)
        ours = jacobian(g, out, create_graph=True).reshape(x.numel(), out.numel())
        theirs = jacobian(f, x).reshape(out.numel(), x.numel())
        found.append(torch.stack([ours.square().sum(), (ours * theirs.T).sum(), theirs.square().sum()]))
    own, common, other = torch.stack(found).mean(0)
    return own, common, other


def inputs(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(EXAMPLES, *shape, generator=generator, dtype=torch.float64)


@PLACES
def test_expected_is_the_loss_of_the_exact_jacobians(options, shape, maps):
    layer, h = layer_of(options, shape, "expected"), inputs(shape)
    y, call = call_of(layer, h)
    own, common, other = lengths(layer, maps, h, y)
    loss = SIGMA**2 * (own - 2 * common)
    (gradient,) = torch.autograd.grad(loss, [layer.g.module.weight])
    step = rule("ldrl", inverse_loss="expected").build(2).inverse_step(layer, h, y, SIGMA, call)
    assert_near(step.gradients[0], gradient)
    assert not step.gradients[1].any(), "a bias moves no Jacobian"
    assert_near(step.loss, loss.detach())
    assert_near(step.cosine, (common / (own * other).sqrt()).detach())


@PLACES
def test_solved_goes_to_the_minimum_of_that_loss(options, shape, maps):
    layer, h = layer_of(options, shape, "solved"), inputs(shape)
    y, call = call_of(layer, h)
    before = torch.autograd.grad(lengths(layer, maps, h, y)[0], [layer.g.module.weight])[0].abs().max()
    step = rule("ldrl", inverse_loss="solved").build(2).inverse_step(layer, h, y, SIGMA, call)
    with torch.no_grad():
        layer.g.module.weight.sub_(step.gradients[0])
    own, common, _ = lengths(layer, maps, h, y)
    (left,) = torch.autograd.grad(own - 2 * common, [layer.g.module.weight])
    assert left.abs().max() <= 1e-12 * before


@PLACES
def test_mirrored_draws_the_noise_of_the_input_alone(options, shape, maps):
    layer, h = layer_of(options, shape, "mirrored"), inputs(shape)
    y, call = call_of(layer, h, iteration=3)
    eps = call.randomness.normal(h, SIGMA, "noise", 3)
    drawn = []
    for x, out, moved in zip(h, y, layer.f(h + eps, call.forward()), strict=True):
        g, there = maps(layer, x)[1], maps(layer, x)[1]
        drawn.append(there(moved) - g(out))
    common = (eps * torch.stack(drawn)).flatten(1).sum(1).mean()
    own, _, _ = lengths(layer, maps, h, y)
    loss = SIGMA**2 * own - 2 * common
    (gradient,) = torch.autograd.grad(loss, [layer.g.module.weight])
    learning = rule("ldrl", inverse_loss="mirrored", places="clean").build(2)
    step = learning.inverse_step(layer, h, y, SIGMA, call)
    assert_near(step.gradients[0], gradient)
    assert_near(step.loss, loss.detach())


def test_a_local_layers_columns_are_those_of_each_place():
    options = LocalOptions(channels=3, kernel=3, activation="elu", inverse=ELU_IN)
    layer = build([ConvOptions(channels=2, padding=1), options], rule("ldrl"), shape=(1, SIDE, SIDE))[1]
    h = inputs((2, SIDE, SIDE))
    y, call = call_of(layer, h)
    columns = layer.g.columns()
    assert columns is not None
    energy = columns.of_columns(columns.slopes(y, call).square())
    length = torch.zeros((), dtype=torch.float64)
    for out in y:
        slopes = torch.where(out > 0, torch.ones_like(out), out.exp())
        for place in range(out.numel()):
            unit = torch.zeros_like(out).flatten()
            unit[place] = slopes.flatten()[place]
            length += layer.g.product(unit.view(1, *out.shape)).square().sum() / len(y)
    assert_near((energy * columns.weight.detach().square()).sum(), length)


@pytest.mark.parametrize(("samples", "count"), [(0.25, 2), (0.1, 1), (0.5, 4), (1.0, 8)])
def test_shares_take_every_example_in_turn(samples, count):
    taken = [list(range(8))[share(8, samples, iteration)] for iteration in range(8 // count)]
    assert all(len(each) == count for each in taken)
    assert sorted(each for one in taken for each in one) == list(range(8))
    assert list(range(8))[share(8, samples, 8 // count)] == taken[0]


def learned(samples: float, iterations: int = 1) -> tuple[list[Tensor], Layer, Tensor, Tensor]:
    """Return the weights after I with that many samples, and layer 2 with what went in and out."""
    options = dense(iterations=iterations, inverse="linear")
    options = [replace(each, inverse=replace(each.inverse, samples=samples)) for each in options]
    layers = build(options, rule("ldrl"))
    (stage,) = stages(layers, rule("ldrl"))
    stage.begin(Phase.BOTH, 0)
    x, labels = minibatch(0)
    stage.forward(0, x, labels)
    h_in, h_out = stage._flights[0].activations[1:3]
    stage.inverse(0)
    return values(layers), layers[1], h_in, h_out


def by_hand(layer: Layer, v: Tensor, h: Tensor, y: Tensor, iteration: int) -> Tensor:
    """Return the gradient of the paper's loss in a dense layer with a linear inverse."""
    w, b = (each.detach() for each in layer.f.module.parameters())
    random = Randomness(SEED, layer.index, 0, Phase.BOTH)
    eps = random.normal(h, 0.3, "noise", iteration)
    eta = random.normal(y, 0.3, "output_noise", iteration)
    v = v.detach().requires_grad_()
    r = y @ v.T
    ahead = torch.tanh((h + eps) @ w.T + b) @ v.T - r
    loss = (-2 * (eps * ahead).sum(1) + ((y + eta) @ v.T - r).square().sum(1)).mean()
    return torch.autograd.grad(loss, v)[0]


def test_a_share_of_the_examples_learns_from_their_rows_alone():
    _, layer, h, y = learned(0.3, iterations=2)
    start = build(dense(inverse="linear"), rule("ldrl"))[1].g.module.weight.detach()
    count = round(0.3 * len(h))
    for iteration in range(2):
        rows = slice(iteration * count, (iteration + 1) * count)
        start = start - 0.1 * by_hand(layer, start, h[rows], y[rows], iteration)
    assert_near(layer.g.module.weight.detach(), start)


def test_several_samples_are_several_copies_of_each_example():
    _, layer, h, y = learned(3.0)
    start = build(dense(inverse="linear"), rule("ldrl"))[1].g.module.weight.detach()
    start = start - 0.1 * by_hand(layer, start, h.repeat(3, 1), y.repeat(3, 1), 0)
    assert_near(layer.g.module.weight.detach(), start)


def automatic(
    angle: float, most: int, split: list[int] | None = None
) -> tuple[dict[str, float], list[Tensor]]:
    """Return what four minibatches measure, and the weights, where K is found out."""
    options = dense((6, 5, 4, 3), "linear", inverse="linear", sigma=0.1)
    found_out = {"iterations": "auto", "angle": angle, "most_iterations": most, "samples": 8.0}
    options = [replace(each, inverse=replace(each.inverse, **found_out)) for each in options]
    layers = build(options, rule("ldrl"), inverse=SGDOptions(lr=5.0), forward=SGDOptions(lr=0.0))
    parts = stages(layers, rule("ldrl"), split)
    for part in parts:
        part.begin(Phase.BOTH, 0)
    for k in range(4):
        exact_step(parts, k, *minibatch(k))
    means = {}
    for part in parts:
        means.update(part.meter.take().means())
    return means, values(layers)


def test_auto_updates_an_inverse_until_it_is_near_enough():
    near, _ = automatic(40.0, 300)
    few, _ = automatic(40.0, 2)
    assert 1 < few["layer/2/inverse_iterations"] <= 2
    assert 1 < near["layer/2/inverse_iterations"] < 300
    assert near["layer/2/inverse_angle"] <= 40.0
    loose, _ = automatic(89.9, 300)
    assert loose["layer/2/inverse_iterations"] < near["layer/2/inverse_iterations"]


def test_auto_gives_the_same_bits_for_any_partition():
    whole, apart = automatic(40.0, 50), automatic(40.0, 50, [1, 1, 1])
    assert same_bits(whole[1], apart[1])
    assert whole[0]["layer/3/inverse_iterations"] == apart[0]["layer/3/inverse_iterations"]


BASE = {
    "model": {
        "input": [8],
        "defaults": {"inverse": {"activation": "linear"}},
        "layers": [
            {"kind": "dense", "units": 6, "repeat": 2},
            {"kind": "dense", "units": 3, "activation": "linear"},
        ],
    },
    "rule": {"name": "ldrl"},
    "optimizer": {"forward": {"name": "sgd", "lr": 0.1}},
    "data": {"name": "synthetic", "options": {"shape": [8], "classes": 3}},
}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rule.name=dtp", "model.defaults.inverse.iterations=auto"], "rule.name=dtp does not measure"),
        (["model.defaults.inverse.samples=1.5"], "above 1 it must be a whole number"),
        (["model.defaults.inverse.samples=0"], "inverse.samples"),
        (["model.defaults.inverse.angle=90"], "inverse.angle"),
        (["rule.inverse_loss=mirrored", "model.defaults.inverse.activation=tanh"], "layer 2 has another"),
        (["rule.inverse_loss=solved", "optimizer.inverse={name: adam, lr: 1.0}"], "optimizer.inverse"),
        (
            ["rule.inverse_loss=solved", "optimizer.inverse={name: sgd, lr: 1.0, momentum: 0.9}"],
            "optimizer.inverse",
        ),
        (["rule.inverse_loss=expected", "model.defaults.norm=batch"], "layer 2 is not"),
        (["model.defaults.noise=0.1", "model.defaults.inverse.samples=0.5"], "inverse.samples"),
    ],
)
def test_what_does_not_go_together_is_one_line(overrides, message):
    load_config(BASE)
    with pytest.raises(ConfigError) as caught:
        load_config(BASE, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_errors_advise_works():
    load_config(BASE, ["rule.inverse_loss=solved", "optimizer.inverse={name: sgd, lr: 1.0}"])
    load_config(BASE, ["rule.inverse_loss=mirrored", "model.defaults.norm=batch"])
    tanh = ["model.defaults.inverse.activation=tanh", "model.defaults.inverse.activation_of=input"]
    load_config(BASE, ["rule.inverse_loss=mirrored", *tanh])
    assert math.isclose(
        load_config(BASE, ["model.defaults.inverse.iterations=auto"]).model.options[1].inverse.enough,
        math.cos(math.radians(10)),
    )
