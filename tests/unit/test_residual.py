"""Residual layers against autograd of the plain torch module, alone and as parts of networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
from closeness import assert_near, tolerance
from test_ldrl import SUMS, noise, paper_loss
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, elu

from dtp_dist.algorithm.build import layer_shapes, weights_generator
from dtp_dist.algorithm.layers import (
    ConvOptions,
    DenseOptions,
    FlattenOptions,
    InverseOptions,
    Layer,
    LayerNormOptions,
    LayerOptions,
    LocalOptions,
    ModuleOptions,
    PoolOptions,
    ResidualOptions,
)
from dtp_dist.algorithm.maps.base import Call, Kept, Mode
from dtp_dist.algorithm.maps.residual import ResidualMap
from dtp_dist.algorithm.optimizers.kinds import AdamOptions, SGDOptions
from dtp_dist.algorithm.options import RangeError
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.phase import Phase
from dtp_dist.planning.costs import CALL_WORK, ELEMENT_WORK
from networks import (
    BATCH,
    SEED,
    build,
    exact_step,
    image_minibatch,
    layer_work,
    parameters,
    rule,
    same_bits,
    stages,
    values,
)

IMAGE, FLAT = (3, 9, 7), (6,)
OF_INPUT = InverseOptions(activation="elu", activation_of="input")
LINEAR = InverseOptions(activation="linear")
NORM = {"norm": "batch", "norm_place": "before_activation", "norm_affine": True}
MAX = {"pool": "max", "pool_kernel": 3, "pool_stride": 2, "pool_padding": 1}


def conv(channels: int = 3, activation: str = "elu", **more: Any) -> ConvOptions:
    inverse = more.pop("inverse", LINEAR if activation == "linear" else OF_INPUT)
    return ConvOptions(channels=channels, padding=1, activation=activation, inverse=inverse, **more)


def block(channels: int = 3, stride: int = 1, **more: Any) -> ResidualOptions:
    """Return a basic block of a residual network."""
    body = [conv(channels, stride=stride), conv(channels, "linear")]
    return ResidualOptions(body=body, inverse=OF_INPUT, **more)


def dense(units: int, activation: str = "tanh", **more: Any) -> DenseOptions:
    return DenseOptions(units=units, activation=activation, **more)


def of_mine(function: str, **args: Any) -> ModuleOptions:
    return ModuleOptions(kind=f"user_layers:{function}", args=args)


BLOCKS: dict[str, tuple[tuple[int, ...], ResidualOptions]] = {
    "identity": (IMAGE, block()),
    "relu": (IMAGE, block(activation="relu")),
    "projection": (IMAGE, block(channels=5, stride=2)),
    "one layer": (IMAGE, ResidualOptions(body=[conv(activation="tanh")], activation="linear")),
    "pooling inside": (IMAGE, ResidualOptions(body=[conv(4, **MAX), conv(2, "sigmoid")], activation="tanh")),
    "a projection of its own": (
        IMAGE,
        ResidualOptions(body=[conv(4, pool="average")], projection=conv(4, "elu", **MAX, kernel=5)),
    ),
    "in one another": (IMAGE, ResidualOptions(body=[block(4), conv(4, "linear"), block(5, 2)])),
    "gelu": (IMAGE, block(activation="gelu")),
    "normalized images": (
        IMAGE,
        ResidualOptions(
            body=[conv(5, "relu", stride=2, **NORM), conv(5, "linear", **NORM)],
            activation="relu",
        ),
    ),
    "other kinds": (
        IMAGE,
        ResidualOptions(
            body=[
                LocalOptions(channels=2, padding=1, activation="silu"),
                LayerNormOptions(),
                PoolOptions(pool="average", kernel=3, stride=1, padding=1),
                PoolOptions(pool="max", kernel=2),
                conv(4, "leaky_relu", norm="layer"),
            ],
            projection=conv(4, "linear", pool="max"),
        ),
    ),
    "flat": (FLAT, ResidualOptions(body=[dense(9), dense(6, "linear")], activation="elu")),
    "narrower": (FLAT, ResidualOptions(body=[dense(9, "elu"), dense(4, "sigmoid")])),
    "normalized": (FLAT, ResidualOptions(body=[dense(9, norm="batch"), dense(4, norm="batch")])),
    "of images a vector": (
        IMAGE,
        ResidualOptions(
            body=[conv(2, **MAX), FlattenOptions(), dense(5)], projection=of_mine("averaged", to=5)
        ),
    ),
    "modules of mine": (
        FLAT,
        ResidualOptions(body=[of_mine("tied"), of_mine("mirrored", units=4), dense(6)]),
    ),
}
EVERY_BLOCK = pytest.mark.parametrize("name", BLOCKS)


def call_of(k: int = 0, mode: Mode = Mode.LOCAL, context: Any = None) -> Call:
    return Call(Randomness(SEED, 2, k, Phase.BOTH), mode, context=context)


def maps_of(name: str, *, inverse: bool = True) -> tuple[ResidualMap, ResidualMap, Tensor]:
    """Return f, g and an input, in float64."""
    shape, options = BLOCKS[name]
    f, g = options.maps(shape, torch.Generator().manual_seed(3), inverse=inverse)
    for map_ in filter(None, (f, g)):
        map_.module.double()
    x = torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert isinstance(f, ResidualMap)
    return f, g, x  # type: ignore[return-value]


def like(tensor: Tensor, seed: int = 5) -> Tensor:
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed), dtype=tensor.dtype)


def assert_all_near(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Compare relative to the largest entry of all."""
    largest = max(one.abs().max() for one in expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= tolerance(torch.float64, SUMS) * largest


def assert_pulls(pullback: Any, output: Tensor, leaf: Tensor, learned: list[nn.Parameter]) -> None:
    """Compare a pullback with autograd of ``output``."""
    cotangent = like(output)
    expected = torch.autograd.grad(output, [leaf, *learned], cotangent, retain_graph=True)
    assert_near(pullback.output, output.detach(), SUMS)
    assert_all_near([pullback.input(cotangent), *pullback.parameters(cotangent)], expected)


# One layer


@EVERY_BLOCK
def test_forward_map_is_its_torch_module_and_pulls_its_gradients(name):
    f, _, x = maps_of(name)
    module = nn.Sequential(*f.torch_modules()).train()
    leaf = x.clone().requires_grad_()
    output = module(leaf)
    y, context = f.with_context(x, call_of())
    assert_near(y, output.detach(), SUMS)
    assert torch.equal(f(x, call_of()), y)
    assert [each.shape for each in f.parameters()] == [each.shape for each in module.parameters()]
    assert all(a is b for a, b in zip(f.parameters(), module.parameters(), strict=True))
    assert_pulls(f.linearize(x, call_of()), output, leaf, f.parameters())
    assert_pulls(f.linearize(x, call_of(context=context), y), output, leaf, f.parameters())


def test_with_what_was_kept_no_product_is_taken_again_and_the_bits_are_the_same(monkeypatch):
    f, _, x = maps_of("projection")
    y, context = f.with_context(x, call_of())
    today, cotangent = f.linearize(x, call_of()), like(y)
    with monkeypatch.context() as patch:
        patch.setattr("dtp_dist.algorithm.maps.conv._product", None)
        stored = f.linearize(x, call_of(context=context), y)
    assert torch.equal(stored.input(cotangent), today.input(cotangent))
    assert same_bits(stored.parameters(cotangent), today.parameters(cotangent))


def test_what_was_kept_gives_the_derivatives_and_todays_weights_the_products():
    """As for layers that follow one another: with a delay the parts' own outputs are those of F."""
    f, _, x = maps_of("flat")
    y, context = f.with_context(x, call_of())
    first, second = (each.module for each in f.parts.values())
    inner, cotangent = context.outputs["body.1"], like(y)
    with torch.no_grad():
        first.weight.mul_(-1.5)
        second.weight.mul_(0.3)
    outer = torch.where(y > 0, cotangent, cotangent * (y + 1))
    below = outer @ second.weight.detach() * (1 - inner.square())
    pullback = f.linearize(x, call_of(context=context), y)
    assert_near(pullback.input(cotangent), below @ first.weight.detach() + outer)
    gradients = pullback.parameters(cotangent)
    for found, expected in zip(gradients[::2], (below.T @ x, outer.T @ inner), strict=True):
        assert_near(found, expected)


@pytest.mark.parametrize("name", ["flat", "narrower", "normalized", "modules of mine"])
def test_inverse_of_vectors_is_its_torch_module_and_pulls_its_gradients(name):
    f, g, x = maps_of(name)
    y, context = f.with_context(x, call_of())
    leaf = y.clone().requires_grad_()
    output = nn.Sequential(*g.torch_modules())(leaf)
    assert_near(g(y, call_of(context=context).inverse()), output.detach())
    assert_pulls(g.linearize(y, call_of(context=context).inverse()), output, leaf, g.parameters())


def written_inverse(g: ResidualMap, context: Kept):
    """Return g of a block of two convolutions in torch's own words, differentiable."""

    def undone(place: str, u: Tensor) -> Tensor:
        part = g.parts[place]
        pooling, places = part.pooling, context.contexts[place]
        if places is not None:
            flat = u.new_zeros(*u.shape[:2], part.image[0] * part.image[1])
            u = flat.scatter_add(2, places.flatten(2), u.flatten(2)).unflatten(2, part.image)
        assert pooling.kernel == 1 or places is not None
        return part.module(u)

    def inverse(y: Tensor) -> Tensor:
        u = elu(y)
        shortcut = undone("projection", u) if "projection" in g.parts else u
        return undone("body.1", elu(undone("body.2", u))) + shortcut

    return inverse


def second_of(options: ResidualOptions) -> Layer:
    """Return a residual layer in a network trained by ldrl, in float64."""
    return build([conv(3), options, FlattenOptions(), dense(3)], rule("ldrl"), shape=IMAGE)[1]


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize(("channels", "stride"), [(3, 1), (5, 2)])
def test_inverse_of_images_leads_back_through_the_bodys_inverses_in_reverse(channels, stride, pooled):
    options = block(channels, stride)
    if pooled:
        options = replace(options, body=[conv(channels, stride=stride, **MAX), conv(channels, "linear")])
    layer = second_of(options)
    f, g = layer.f, layer.g
    x = torch.randn(BATCH, *IMAGE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    y, context = f.with_context(x, call_of())
    keeps_shape = stride == 1 and not pooled
    assert list(g.parts) == ["body.2", "body.1", *([] if keeps_shape else ["projection"])]
    leaf = like(y).requires_grad_()
    output = written_inverse(g, context)(leaf)
    assert output.shape == x.shape
    call = call_of(context=context).inverse()
    assert_near(g(leaf.detach(), call), output.detach(), SUMS)
    assert_pulls(g.linearize(leaf.detach(), call), output, leaf, g.parameters())

    eps, eta = noise(2, 0, 0, "noise", x, 0.2), noise(2, 0, 0, "output_noise", y, 0.2)
    module = nn.Sequential(*f.torch_modules())
    there = written_inverse(g, f.with_context(x + eps, call_of())[1])
    loss = paper_loss(module, written_inverse(g, context), x, y, eps, eta, there)
    expected = torch.autograd.grad(loss, g.parameters())
    step = rule("ldrl").build(4).inverse_step(layer, x, y, 0.2, call)
    assert_near(step.loss, loss.detach(), SUMS)
    assert_all_near(step.gradients, expected)


def test_layers_inside_have_random_numbers_by_their_places():
    drop = ModuleOptions(kind="torch.nn:Dropout", args={"p": 0.5})
    f, _ = ResidualOptions(body=[drop, drop], activation="linear").maps((200,), generator(), inverse=False)
    x = torch.ones(BATCH, 200)
    y, context = f.with_context(x, call_of(mode=Mode.FORWARD))
    first = context.outputs["body.1"] > 0
    both = context.outputs["body.2"] > 0
    assert first.sum() > both.sum() > 0.3 * first.sum(), "two masks"
    assert torch.equal(f(x, call_of()), y)
    assert torch.equal(f.linearize(x, call_of()).input(torch.ones_like(x)), 1 + 4.0 * both)
    assert torch.equal(f(x, call_of(mode=Mode.EVALUATE)), 2 * x)
    assert not torch.equal(f(x, call_of(k=1)), y)


def test_batch_statistics_inside_change_in_forward_alone():
    f, _, x = maps_of("normalized")
    before = [each.clone() for each in f.module.buffers()]
    f(x, call_of())
    f.linearize(x, call_of()).input(torch.ones(BATCH, 4).double())
    f(x, call_of(mode=Mode.EVALUATE))
    assert same_bits(before, list(f.module.buffers()))
    f.with_context(x, call_of(mode=Mode.FORWARD))
    assert [each for each in f.module.buffers() if each.dtype == torch.int64] == [1, 1, 1]


def test_a_minibatch_of_several_repeats_what_was_kept_all_the_way_down():
    f, g, x = maps_of("in one another")
    y, context = f.with_context(x, call_of())
    call = call_of(context=context).inverse()
    one, three = g(y, call), g(torch.cat([y, y, y]), call.in_context(*[context] * 3))
    for each in three.chunk(3):
        assert_near(each, one, SUMS)


# Initial weights


def generator(seed: int = SEED, layer: int = 2) -> torch.Generator:
    return weights_generator(seed, layer)


def test_initial_weights_are_those_of_layer_and_place():
    def weights(*body: LayerOptions, inverse: bool = True, layer: int = 2) -> dict[str, Tensor]:
        maps = ResidualOptions(body=list(body), projection=dense(8)).maps(
            FLAT, generator(layer=layer), inverse=inverse
        )
        sides = zip(("f", "g"), filter(None, maps), strict=False)
        return {
            f"{side} {place}": part.module.weight
            for side, map_ in sides
            for place, part in map_.parts.items()
        }

    two = weights(dense(8), dense(8))
    assert len(two) == 6
    found = list(two.values())
    assert not any(torch.equal(a, b) for i, a in enumerate(found) for b in found[:i] if a.shape == b.shape)
    for other in (weights(dense(8), dense(8), dense(8)), weights(dense(8), dense(8), inverse=False)):
        assert all(torch.equal(two[name], other[name]) for name in two.keys() & other.keys())
    elsewhere = weights(dense(8), dense(8), layer=3)
    assert not any(torch.equal(two[name], elsewhere[name]) for name in two)


# Networks


def network(iterations: int = 2) -> list[LayerOptions]:
    """A small residual network for the images of ``image_minibatch``."""
    learned = InverseOptions(activation="elu", activation_of="input", iterations=iterations, sigma=0.1)
    return [
        conv(3),
        replace(block(3), inverse=learned),
        replace(block(5, stride=2), inverse=learned),
        ResidualOptions(body=[conv(4, **MAX), conv(5, "linear")], inverse=learned),
        FlattenOptions(),
        dense(3, "linear", inverse=replace(LINEAR, iterations=iterations, sigma=0.1)),
    ]


def test_backpropagation_through_residual_layers_is_autograds():
    layers = build(network(), rule("backprop"), forward=SGDOptions(lr=1.0), shape=(2, 9, 9))
    x, labels = image_minibatch(dtype=torch.float64)
    plain = nn.Sequential(*(module for layer in layers for module in layer.f.torch_modules()))
    before = values(layers)
    expected = torch.autograd.grad(cross_entropy(plain(x), labels), parameters(layers))
    exact_step(stages(layers, rule("backprop")), 0, x, labels)
    moved = [old - new for old, new in zip(before, values(layers), strict=True)]
    assert_all_near(moved, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dtp", "ldrl", "backprop"])
def test_any_partition_gives_the_same_bits(name):
    found = []
    for split in ([6], [2, 4], [1, 1, 2, 2], [1] * 6):
        optimizers = {"forward": SGDOptions(lr=0.01, momentum=0.9), "inverse": AdamOptions(lr=0.01)}
        layers = build(network(), rule(name), dtype=torch.float32, shape=(2, 9, 9), **optimizers)
        parts = stages(layers, rule(name), split)
        for k in range(3):
            exact_step(parts, k, *image_minibatch(k))
        found.append(values(layers))
    assert all(same_bits(found[0], other) for other in found[1:])
    fresh = values(build(network(), rule(name), dtype=torch.float32, shape=(2, 9, 9)))
    assert not any(torch.equal(old, new) for old, new in zip(fresh, found[0], strict=True) if new.dim() > 1)


# Planning


@EVERY_BLOCK
def test_parameters_and_work_are_those_of_the_parts(name):
    shape, options = BLOCKS[name]
    f, _, x = maps_of(name, inverse=False)
    parts = options.parts(shape)
    assert [each.place for each in parts] == list(f.parts)
    assert options.output_shape(shape) == f(x, call_of()).shape[1:]
    assert options.kept(shape) == sum(prod(each.output_shape) for each in all_parts(options, shape))
    if "mine" not in name and "vector" not in name:  # modules of a user's are counted as dense
        learned = f.parameters()
        assert options.parameters(shape) == pytest.approx(sum(each.numel() for each in learned), rel=0.15)


def all_parts(options: LayerOptions, shape: tuple[int, ...]):
    for part in options.parts(shape):
        yield part
        yield from all_parts(part.options, part.input_shape)


def test_planning_counts_the_work_of_every_part():
    inner, outer = [dense(9), dense(4, "linear")], rule("backprop").build(3)
    layers = [dense(6), ResidualOptions(body=inner), dense(3)]
    shapes = layer_shapes(FLAT, layers)
    assert layers[1].work((6,)) == (2 * (6 * 9 + 9 * 4 + 6 * 4),) * 2
    plain = layer_work(
        [dense(6), *inner, dense(3)], layer_shapes(FLAT, [dense(6), *inner, dense(3)]), outer, 10
    )
    projection = 10 * (2 * 6 * 4 + ELEMENT_WORK * 4) + CALL_WORK
    total = 10 * ELEMENT_WORK * 4 + CALL_WORK
    found = layer_work(layers, shapes, outer, 10)[1]
    step = 120 * 24  # of the projection's weights
    assert found == pytest.approx(plain[1] + plain[2] + 3 * (projection + total) + step)


# What does not fit


@pytest.mark.parametrize(
    ("options", "shape", "key", "words"),
    [
        (
            block(5, projection=None),
            IMAGE,
            "projection",
            "the shortcut gives [3, 9, 7] and the body [5, 9, 7]",
        ),
        (block(5, projection=conv(4)), IMAGE, "projection", "the shortcut gives [4, 9, 7] and the body"),
        (ResidualOptions(body=[FlattenOptions()]), IMAGE, "projection", "auto has no 1x1 convolution from"),
        (ResidualOptions(body=[conv(3), dense(4)]), IMAGE, "body.2.kind", "a dense layer needs flat input"),
        (block(5, projection=dense(4)), IMAGE, "projection.kind", "a dense layer needs flat input"),
        (
            ResidualOptions(body=[block(3), ResidualOptions(body=[dense(3)])]),
            IMAGE,
            "body.2.body.1.kind",
            "flat",
        ),
    ],
    ids=["null", "other", "flatten", "body", "kind of the projection", "in one another"],
)
def test_shapes_that_do_not_fit_are_named_with_their_place(options, shape, key, words):
    with pytest.raises(RangeError) as caught:
        layer_shapes(shape, [options])
    assert caught.value.key == f"1.{key}"
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
