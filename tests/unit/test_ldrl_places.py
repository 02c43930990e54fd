"""L-DRL where maxima are pooled: each value of g with the places of its own pass, as in the authors' code.

The layers are written out again in torch's own words, forward and back, and differentiated by autograd. A
forward pass returns what it gives and the places of its maxima; what else g takes of F is that of ``clean``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from closeness import assert_near, tolerance
from torch import Tensor
from torch.nn.functional import (
    batch_norm,
    conv2d,
    conv_transpose2d,
    elu,
    fold,
    layer_norm,
    linear,
    max_pool2d,
    unfold,
)

from dtp_dist.algorithm.layers import (
    ConvOptions,
    DenseOptions,
    DropoutOptions,
    InverseOptions,
    Layer,
    LayerNormOptions,
    LayerOptions,
    LocalOptions,
    PoolOptions,
    ResidualOptions,
)
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.optimizers.kinds import SGDOptions
from dtp_dist.algorithm.randomness import Randomness, derive_seed
from dtp_dist.phase import Phase
from networks import SEED, build, rule, stages

SIDE, EXAMPLES, SIGMA, RATE = 9, 6, 0.4, 0.01
SUMS = 3 * EXAMPLES * SIDE**2  # terms of a convolution's gradient: those of three values of g
Window = tuple[int, int, int]
WINDOWS = [(2, 2, 0), (3, 2, 1)]
Weights = dict[str, Tensor]


@dataclass
class Written:
    """A layer in torch's words: y and the places of a pass, and what g makes of a y with a pass's places."""

    forward: Callable[[Tensor], tuple[Tensor, Any]]
    back: Callable[[Tensor, Any], Tensor]


def pooled(z: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    y, places = max_pool2d(z, *window, return_indices=True)
    return y, places


def unpooled(y: Tensor, places: Tensor) -> Tensor:
    flat = y.new_zeros(*y.shape[:2], SIDE * SIDE)
    return flat.scatter_add(2, places.flatten(2), y.flatten(2)).unflatten(2, (SIDE, SIDE))


def weights(layer: Layer) -> tuple[Weights, Weights]:
    """Return those of f, without a graph, and the leaves of g, by their names."""
    own = {name: each.detach() for name, each in layer.f.module.named_parameters()}
    return own, dict(layer.g.module.named_parameters())


# Layers, written out


def conv(layer: Layer, clean: Tensor, window: Window) -> Written:
    """The authors' own layer: ELU before the pooling, which is the same as after it."""
    del clean
    f, g = weights(layer)

    def forward(h):
        return pooled(elu(conv2d(h, f["weight"], f["bias"], padding=1)), window)

    def back(y, places):
        return conv_transpose2d(unpooled(elu(y), places), g["weight"], g["bias"], padding=1)

    return Written(forward, back)


def conv_then_activation(layer: Layer, clean: Tensor, window: Window) -> Written:
    """The same with an inverse that is not affine."""
    _, g = weights(layer)

    def back(y, places):
        return elu(conv_transpose2d(unpooled(y, places), g["weight"], g["bias"], padding=1))

    return Written(conv(layer, clean, window).forward, back)


def with_derivative(layer: Layer, clean: Tensor, window: Window) -> Written:
    """The slope is the one of the clean pass for all values of g; the places are each pass's own."""
    f, g = weights(layer)

    def forward(h):
        z, places = pooled(conv2d(h, f["weight"], f["bias"], padding=1), window)
        return elu(z), places

    z = pooled(conv2d(clean, f["weight"], f["bias"], padding=1), window)[0].requires_grad_()
    (slope,) = torch.autograd.grad(elu(z).sum(), z)

    def back(y, places):
        return conv_transpose2d(unpooled(slope * y, places), g["weight"], g["bias"], padding=1)

    return Written(forward, back)


def normalized(layer: Layer, clean: Tensor, window: Window) -> Written:
    """Batch normalisation after the pooling, before ELU; statistics are those of the minibatch."""
    del clean
    f, g = weights(layer)

    def forward(h):
        z, places = pooled(conv2d(h, f["0.weight"], f["0.bias"], padding=1), window)
        return elu(batch_norm(z, None, None, training=True)), places

    def back(y, places):
        return conv_transpose2d(unpooled(elu(y), places), g["weight"], g["bias"], padding=1)

    return Written(forward, back)


def residual(layer: Layer, clean: Tensor, window: Window) -> Written:
    """A body of a pooled convolution and a linear one, a pooled shortcut: three places to keep apart."""
    del clean
    f, g = weights(layer)

    def forward(h):
        inner, first = pooled(elu(conv2d(h, f["body.0.weight"], f["body.0.bias"], padding=1)), window)
        beside, second = pooled(conv2d(h, f["shortcut.0.weight"]), window)
        return elu(conv2d(inner, f["body.1.weight"], f["body.1.bias"], padding=1) + beside), (first, second)

    def back(y, places):
        u = elu(y)
        inner = elu(conv_transpose2d(u, g["body.0.weight"], g["body.0.bias"], padding=1))
        body = unpooled(inner, places[0])
        body = conv_transpose2d(body, g["body.1.weight"], g["body.1.bias"], padding=1)
        return body + conv_transpose2d(unpooled(u, places[1]), g["shortcut.0.weight"])

    return Written(forward, back)


def local_and_pool(layer: Layer, clean: Tensor, window: Window) -> Written:
    """A body of a locally connected layer and a pool layer, undone by means where windows overlap."""
    del clean
    f, g = weights(layer)

    def forward(h):
        patches = unfold(h, 3, padding=1).permute(2, 0, 1)
        z = torch.bmm(patches, f["body.0.weight"].mT).permute(1, 2, 0).unflatten(2, (SIDE, SIDE))
        y, places = pooled(elu(z + f["body.0.bias"]), window)
        return elu(y + conv2d(h, f["shortcut.0.weight"], stride=2)), places

    def back(y, places):
        u = elu(y)
        parts = unpooled(torch.ones_like(y), places).clamp_min(1)
        image = unpooled(u, places) / parts
        patches = torch.bmm(image.flatten(2).permute(2, 0, 1), g["body.1.weight"])
        body = elu(fold(patches.permute(1, 2, 0), (SIDE, SIDE), 3, padding=1) + g["body.1.bias"])
        return body + conv_transpose2d(u, g["shortcut.0.weight"], stride=2)

    return Written(forward, back)


# The same layers as options

LINEAR, LAST = InverseOptions(activation="linear"), InverseOptions(activation="elu")


def learned(**settings: Any) -> InverseOptions:
    """The authors': ELU of what the transposed convolution gets."""
    own = {"activation": "elu", "activation_of": "input", "iterations": 2, "sigma": SIGMA}
    return InverseOptions(**{**own, **settings})


def image(inverse: InverseOptions, window: Window | None = None, **settings: Any) -> LayerOptions:
    pooling = {}
    if window is not None:
        names = ("pool_kernel", "pool_stride", "pool_padding")
        pooling = {"pool": "max", **dict(zip(names, window, strict=True))}
    return ConvOptions(**{"channels": 4, "padding": 1, "inverse": inverse, **pooling, **settings})


def block(window: Window) -> LayerOptions:
    body = [image(LINEAR, window), image(LAST, activation="linear")]
    beside = image(LINEAR, window, kernel=1, padding=0, bias=False, activation="linear")
    return ResidualOptions(body=body, projection=beside, inverse=learned())


def local_block(window: Window) -> LayerOptions:
    kernel, stride, padding = window
    pool = PoolOptions(pool="max", kernel=kernel, stride=stride, padding=padding)
    body = [LocalOptions(channels=4, padding=1, inverse=LAST), pool]
    beside = image(LINEAR, kernel=1, stride=2, padding=0, bias=False, activation="linear")
    return ResidualOptions(body=body, projection=beside, inverse=learned())


BEFORE = {"norm": "batch", "norm_place": "before_activation"}
LAYERS: dict[str, tuple[Callable[[Window], LayerOptions], Callable[[Layer, Tensor, Window], Written]]] = {
    "conv": (lambda window: image(learned(), window), conv),
    "activation last": (lambda window: image(learned(activation_of="output"), window), conv_then_activation),
    "derivative": (lambda window: image(learned(activation="derivative"), window), with_derivative),
    "normalized": (lambda window: image(learned(), window, **BEFORE), normalized),
    "residual": (block, residual),
    "local and pool": (local_block, local_and_pool),
}
CASES = [
    (name, window)
    for name in LAYERS
    for window in WINDOWS
    if (name, window) != ("local and pool", WINDOWS[0])
]
EVERY = pytest.mark.parametrize(("name", "window"), CASES)


def network(name: str, window: Window, places: str, dtype: torch.dtype) -> tuple[list[Layer], Tensor]:
    """Return a convolution and the layer, and images for the two."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(EXAMPLES, 3, SIDE, SIDE, generator=generator, dtype=torch.float64).to(dtype)
    options = [ConvOptions(channels=3, padding=1), LAYERS[name][0](window)]
    rate = SGDOptions(lr=RATE, momentum=0.9)
    return build(options, rule("ldrl", places=places), inverse=rate, dtype=dtype, shape=(3, SIDE, SIDE)), x


def authors_loss(layer: Written, places: str, h: Tensor, eps: Tensor, eta: Tensor) -> Tensor:
    """Return ``-2 <eps, g(f(h+eps)) - r> + ||g(y+eta) - r||^2``, ``r = g(y)``: the minibatch's mean."""
    with torch.no_grad():
        y, clean = layer.forward(h)
        moved, own = layer.forward(h + eps)
    r = layer.back(y, clean)
    ahead = layer.back(moved, own if places == "own" else clean) - r
    around = layer.back(y + eta, clean) - r
    return (-2 * (eps * ahead).flatten(1).sum(1) + around.square().flatten(1).sum(1)).mean()


def drawn(h: Tensor, y: Tensor, iteration: int) -> tuple[Tensor, Tensor]:
    random = Randomness(SEED, 2, 0, Phase.INVERSE)
    purposes = ((h, "noise"), (y, "output_noise"))
    eps, eta = (random.normal(like, SIGMA, purpose, iteration) for like, purpose in purposes)
    return eps, eta


@EVERY
@pytest.mark.parametrize("places", ["own", "clean"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_loss_and_gradients_are_those_of_the_authors_code_path(name, window, places, dtype):
    (_, layer), h = network(name, window, places, dtype)
    written = LAYERS[name][1](layer, h, window)
    call = Call(Randomness(SEED, 2, 0, Phase.INVERSE))
    y, context = layer.f.with_context(h, call)
    loss = authors_loss(written, places, h, *drawn(h, y, 1))
    expected = torch.autograd.grad(loss, layer.g.parameters())
    inverse_call = replace(call, context=context).inverse(1)
    found = rule("ldrl", places=places).build(2).inverse_step(layer, h, y, SIGMA, inverse_call)
    assert_near(found.loss, loss.detach(), SUMS)
    largest = max(each.abs().max() for each in expected)
    for one, other in zip(found.gradients, expected, strict=True):
        assert (one - other).abs().max() <= tolerance(dtype, SUMS) * largest


@EVERY
def test_own_places_are_another_loss_than_clean_ones(name, window):
    (_, layer), h = network(name, window, "own", torch.float64)
    written = LAYERS[name][1](layer, h, window)
    noises = drawn(h, written.forward(h)[0], 0)
    own, clean = (authors_loss(written, places, h, *noises).item() for places in ("own", "clean"))
    assert abs(own - clean) > 1e-3 * abs(own)


@EVERY
def test_a_stage_takes_two_steps_down_the_authors_loss(name, window):
    """F, then I with K = 2, by SGD with momentum."""
    layers, x = network(name, window, "own", torch.float64)
    layer = layers[1]
    before = [each.detach().clone() for each in layer.g.parameters()]
    (stage,) = stages(layers, rule("ldrl"))
    stage.begin(Phase.INVERSE, 0)
    stage.forward(0, x, torch.zeros(EXAMPLES, dtype=torch.int64))
    stage.inverse(0)
    after = [each.detach().clone() for each in layer.g.parameters()]
    with torch.no_grad():
        for each, old in zip(layer.g.parameters(), before, strict=True):
            each.copy_(old)
    first = layers[0].f.module
    h = elu(conv2d(x, first.weight.detach(), first.bias.detach(), padding=1))
    written = LAYERS[name][1](layer, h, window)
    steps = torch.optim.SGD(layer.g.parameters(), lr=RATE, momentum=0.9)
    for iteration in range(2):
        steps.zero_grad()
        authors_loss(written, "own", h, *drawn(h, written.forward(h)[0], iteration)).backward()
        steps.step()
    for old, new, each in zip(before, after, layer.g.parameters(), strict=True):
        moved, expected = new - old, each.detach() - old
        if expected.abs().max() > tolerance(torch.float64) * old.abs().max():  # a bias may have no gradient
            assert_near(moved, expected, SUMS)


# What is no place stays that of F


def test_means_deviations_and_masks_are_those_of_the_clean_pass():
    """A residual layer of vectors; what undoes its norm and its dropout is the same for all values of g."""
    inside = [
        DenseOptions(units=7, activation="linear", inverse=LINEAR),
        LayerNormOptions(),
        DropoutOptions(p=0.4),
    ]
    options = [DenseOptions(units=7), ResidualOptions(body=inside, inverse=learned())]
    layer = build(options, rule("ldrl"), inputs=7)[1]
    f, g = weights(layer)
    h = torch.randn(EXAMPLES, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    key = derive_seed(SEED, 2, 0, Phase.INVERSE, "dropout", 0, "body.3")
    mask = torch.empty(EXAMPLES, 7).bernoulli_(0.6, generator=torch.Generator().manual_seed(key)).double()

    def inner(x):
        return linear(x, f["body.0.weight"], f["body.0.bias"])

    def normal(x):
        return layer_norm(inner(x), (7,), f["body.1.weight"], f["body.1.bias"])

    def forward(x):
        return elu(normal(x) * mask / 0.6 + x), None

    deviation, mean = torch.std_mean(inner(h), 1, correction=0, keepdim=True)
    deviation = (deviation.square() + 1e-5).sqrt()

    def back(y, places):
        del places
        u = elu(y)
        kept = torch.where(mask > 0, 0.6 * u, normal(h))
        scaled = (g["body.1.weight"] * kept + g["body.1.bias"]) * deviation + mean
        return linear(scaled, g["body.2.weight"], g["body.2.bias"]) + u

    call = Call(Randomness(SEED, 2, 0, Phase.INVERSE))
    y, context = layer.f.with_context(h, call)
    assert_near(y, forward(h)[0])
    loss = authors_loss(Written(forward, back), "own", h, *drawn(h, y, 1))
    expected = torch.autograd.grad(loss, layer.g.parameters())
    step = rule("ldrl").build(2).inverse_step(layer, h, y, SIGMA, replace(call, context=context).inverse(1))
    assert_near(step.loss, loss.detach())
    largest = max(each.abs().max() for each in expected)
    for one, other in zip(step.gradients, expected, strict=True):
        assert (one - other).abs().max() <= tolerance(torch.float64) * largest
