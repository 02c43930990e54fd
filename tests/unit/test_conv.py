"""Convolutional layers, their inverses and flatten: against autograd, in any partition, through files."""

from dataclasses import replace

import pytest
import torch
from closeness import assert_near
from torch import nn
from torch.nn.functional import avg_pool2d, elu

from dtp_dist.algorithm.build import layer_shapes
from dtp_dist.algorithm.layers import ConvOptions, DenseOptions, FlattenOptions, InverseOptions
from dtp_dist.algorithm.maps.activations import ACTIVATIONS as KNOWN
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.maps.pooling import MaxPooling
from dtp_dist.algorithm.optimizers.kinds import AdamOptions, SGDOptions
from dtp_dist.algorithm.options import RangeError
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.algorithm.state import layer_state, load_layer_state
from dtp_dist.phase import Phase
from dtp_dist.storage.checkpoint import read_layer, write_layer
from networks import (
    ACTIVATIONS,
    BATCH,
    ascended,
    build,
    conv_network,
    descended,
    exact_step,
    image_minibatch,
    layer_work,
    rule,
    same_bits,
    stages,
    values,
)

GEOMETRIES = [(3, 1, 1, 3, 2, 1), (5, 2, 1, 2, None, 0), (4, 3, 2, 3, 1, 1)]
IMAGE = (3, 13, 11)
CONV = BATCH * IMAGE[1] * IMAGE[2]  # terms of a weight's gradient, the longest sums
EVERY_POOL = pytest.mark.parametrize("pool", ["none", "max", "average"])
EVERY_GEOMETRY = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)


def conv(pool: str, geometry=GEOMETRIES[0], **more) -> ConvOptions:
    names = ("kernel", "stride", "padding", "pool_kernel", "pool_stride", "pool_padding")
    return ConvOptions(channels=4, pool=pool, **dict(zip(names, geometry, strict=True)), **more)


def maps(options: ConvOptions):
    """Return f, g, an input, its output and the call for what comes later, in float64."""
    f, g = options.maps(IMAGE, torch.Generator().manual_seed(3), inverse=True)
    for map_ in (f, g):
        map_.module.double()
    x = torch.randn(5, *IMAGE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    call = Call(Randomness(0, 1, 0, Phase.BOTH))
    y, context = f.with_context(x, call)
    return f, g, x, y, Call(call.randomness, context=context)


def random_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(5), dtype=tensor.dtype)


def assert_pulls(pullback, output, leaf, parameters) -> None:
    """Compare a pullback with autograd of ``output``."""
    cotangent = random_like(output)
    expected = torch.autograd.grad(output, [leaf, *parameters], cotangent)
    assert_near(pullback.output, output.detach(), CONV)
    found = [pullback.input(cotangent), *pullback.parameters(cotangent)]
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other, CONV)


@EVERY_POOL
@EVERY_GEOMETRY
def test_forward_map_is_its_torch_modules_and_pulls_their_gradients(geometry, pool):
    options = conv(pool, geometry)
    f, _, x, y, call = maps(options)
    leaf = x.clone().requires_grad_()
    output = nn.Sequential(*f.torch_modules())(leaf)
    assert tuple(y.shape[1:]) == options.output_shape(IMAGE)
    assert y.is_contiguous()
    assert_pulls(f.linearize(x, Call(call.randomness)), output, leaf, f.parameters())
    output = nn.Sequential(*f.torch_modules())(leaf)
    assert_pulls(f.linearize(x, call, y), output, leaf, f.parameters())


@EVERY_POOL
@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "sigmoid"])
def test_every_activation_in_both_maps(activation, pool):
    for place in ("output", "input"):
        learning = InverseOptions(activation=activation, activation_of=place)
        f, g, x, y, call = maps(conv(pool, activation=activation, inverse=learning))
        leaf = x.clone().requires_grad_()
        output = nn.Sequential(*f.torch_modules())(leaf)
        assert_pulls(f.linearize(x, call, y), output, leaf, f.parameters())
        leaf, act = random_like(y).requires_grad_(), KNOWN[activation]
        u = ACTIVATIONS[activation](leaf) if place == "input" else leaf
        output = g.module(spread(g, u, call))
        output = ACTIVATIONS[activation](output) if place == "output" else output
        assert act.apply(torch.zeros(1)) == 0, "what is 0 stays so where pooling is undone"
        assert_pulls(g.linearize(leaf.detach(), call.inverse()), output, leaf, g.parameters())


def spread(g, u: torch.Tensor, call: Call) -> torch.Tensor:
    """Return pooling's transpose of u through autograd, which differentiates it by u."""
    z = torch.zeros(*u.shape[:2], *g.image, dtype=u.dtype, requires_grad=True)
    (found,) = torch.autograd.grad(select(g.pooling, z, call.context), z, u, create_graph=True)
    return found


def select(pooling, z: torch.Tensor, places) -> torch.Tensor:
    """Return what a pooling takes of z, by torch's own functions."""
    if places is not None:
        return z.flatten(2).gather(2, places.flatten(2)).view(places.shape)
    return (pooling.module() or nn.Identity())(z)


@EVERY_POOL
@EVERY_GEOMETRY
@pytest.mark.parametrize("place", ["input", "output"])
def test_inverse_undoes_pooling_and_gives_the_shape_of_the_input(place, geometry, pool):
    options = conv(pool, geometry, inverse=InverseOptions(activation="elu", activation_of=place))
    f, g, x, y, call = maps(options)
    leaf = random_like(y).requires_grad_()
    u = elu(leaf) if place == "input" else leaf
    if pool == "max":
        flat = u.new_zeros(5, 4, f.image[0] * f.image[1])
        u = flat.scatter_add(2, call.context.flatten(2), u.flatten(2)).unflatten(2, f.image)
    elif pool == "average":
        z = torch.zeros(5, 4, *f.image, dtype=torch.float64, requires_grad=True)
        pooled = avg_pool2d(z, geometry[3], geometry[4], geometry[5])
        (u,) = torch.autograd.grad(pooled, z, u, create_graph=True)
    output = elu(g.module(u)) if place == "output" else g.module(u)
    assert output.shape == x.shape
    assert torch.equal(g(leaf.detach(), call.inverse()), g.linearize(leaf.detach(), call.inverse()).output)
    assert_pulls(g.linearize(leaf.detach(), call.inverse()), output, leaf, g.parameters())


@pytest.mark.parametrize("window", [(3, 2, 1), (2, 2, 0), (3, 1, 1), (5, 3, 2)], ids=str)
def test_unpooling_is_the_exact_transpose_of_the_selection(window):
    """As matrices, for windows that overlap too: a place chosen by two windows gets the sum of both."""
    pooling, image = MaxPooling(*window), (7, 6)
    z = torch.randn(1, 1, *image, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    y, context = pooling(z)
    assert torch.equal(y, pooling.select(z, context))
    units = torch.eye(z.numel(), dtype=torch.float64).view(-1, 1, *image)
    selection = pooling.select(units, context.expand(len(units), -1, -1, -1)).flatten(1).T
    units = torch.eye(y.numel(), dtype=torch.float64).view(-1, *y.shape[1:])
    spread = pooling.transpose(units, context.expand(len(units), -1, -1, -1), image).flatten(1).T
    assert torch.equal(spread, selection.T)
    assert selection.sum().item() == y.numel()
    if window == (3, 1, 1):
        assert selection.sum(0).max() > 1, "no place was chosen twice"


def test_an_inverse_reads_the_places_that_f_chose_on_noisy_outputs_too():
    _, g, _, y, call = maps(conv("max", inverse=InverseOptions(activation="linear")))
    moved = y + random_like(y)
    expected = g.module(MaxPooling(3, 2, 1).transpose(moved, call.context, (13, 11)))
    assert_near(g(moved, call.inverse()), expected.detach(), CONV)
    elsewhere = Call(call.randomness, context=call.context.flip(0))
    assert (g(moved, elsewhere.inverse()) - expected).abs().max() > 0.01 * expected.abs().max()


def test_flatten_is_exact_both_ways_and_has_no_parameters():
    options = FlattenOptions()
    f, g = options.maps(IMAGE, torch.Generator(), inverse=True)
    x, call = torch.randn(2, *IMAGE), Call(Randomness(0, 1, 0, Phase.BOTH))
    y = f(x, call)
    assert torch.equal(y, x.flatten(1))
    assert torch.equal(g(y, call), x)
    assert torch.equal(f.linearize(x, call).input(y), x)
    assert f.parameters() == g.parameters() == f.linearize(x, call).parameters(y) == []


@pytest.mark.parametrize(
    ("options", "shape", "key", "words"),
    [
        (conv("max"), (784,), "1.kind", "images [C, H, W], not [784]"),
        (conv("max", (5, 1, 0, 2, 2, 0)), (1, 4, 9), "1.kernel", "5 is more than the image of [4, 9]"),
        (conv("max", (3, 1, 0, 3, 2, 0)), (1, 4, 9), "1.pool_kernel", "3 is more than the image of [2, 7]"),
        (DenseOptions(units=3), (2, 4, 4), "1.kind", "{kind: flatten}"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_write(options, shape, key, words):
    with pytest.raises(RangeError) as refused:
        layer_shapes(shape, [options])
    assert refused.value.key == key
    assert words in str(refused.value)


def test_settings_that_can_not_work_are_refused():
    with pytest.raises(RangeError, match="half of pool_kernel"):
        conv("max", (3, 1, 1, 2, 2, 2))
    with pytest.raises(RangeError, match="0 at 0"):
        conv("max", inverse=InverseOptions(activation="sigmoid", activation_of="input"))


@pytest.mark.parametrize("name", ["dtp", "tp", "backprop", "ldrl"])
def test_any_partition_and_a_restart_give_the_same_bits(name, tmp_path):
    """A stage of flatten alone included; in the last split each layer went through a file after two steps."""
    found = []
    for split in ([5], [2, 3], [1, 1, 1, 1, 1], None):
        optimizers = {"forward": AdamOptions(lr=0.01), "inverse": SGDOptions(lr=0.01, momentum=0.9)}
        settings = {"dtype": torch.float32, "scrambled": False, "shape": (2, 9, 9), **optimizers}
        layers = build(conv_network(), rule(name), **settings)
        parts = stages(layers, rule(name), split)
        for k in range(4):
            if split is None and k == 2:
                for layer in layers:
                    write_layer(tmp_path, layer.index, layer_state(layer))
                layers = build(conv_network(), rule(name), seed=99, **settings)
                parts = stages(layers, rule(name), [3, 2])
                for layer in layers:
                    load_layer_state(layer, read_layer(tmp_path, layer.index))
            exact_step(parts, k, *image_minibatch(k))
        found.append(values(layers))
    assert all(same_bits(found[0], other) for other in found[1:])
    fresh = values(build(conv_network(), rule(name), dtype=torch.float32, scrambled=False, shape=(2, 9, 9)))
    assert all(not torch.equal(old, new) for old, new in zip(fresh, found[0], strict=True) if old.dim() > 1)


@pytest.mark.parametrize("name", ["dtp", "ldrl"])
def test_two_minibatches_in_flight_each_use_their_own_places(name):
    """Nothing learns, so that displacements depend on what was kept of their minibatch alone."""
    found = []
    for order in ("F0 I0 T0 F1 I1 T1", "F0 F1 I0 I1 T0 T1"):
        layers = build(conv_network(), rule(name), inverse=SGDOptions(lr=0.0), shape=(2, 9, 9))
        parts = stages(layers, rule(name), [1] * len(layers))
        outputs, displacements = {}, []
        for action, k in ((each[0], int(each[1])) for each in order.split()):
            x, labels = image_minibatch(k, torch.float64)
            if action == "F":
                outputs[k] = ascended(parts, k, x, labels)[-1]
            elif action == "I":
                for stage in parts:
                    stage.inverse(k)
            else:
                displacements += descended(parts, k, outputs[k], labels)
        found.append(displacements)
    assert same_bits(*found)
    assert not same_bits(found[0][:5], found[0][5:])


@pytest.mark.parametrize("kind", [ConvOptions(channels=4), DenseOptions(units=4)])
def test_an_inverse_may_have_its_own_initial_weights_and_bias(kind):
    def fresh(**own):
        options = replace(kind, inverse=InverseOptions(**own))
        shape = (2, 5, 5) if isinstance(kind, ConvOptions) else (7,)
        maps = options.maps(shape, torch.Generator().manual_seed(2), inverse=True)
        return [[each.detach() for each in map_.parameters()] for map_ in maps]

    (forward, inverse), (same, small) = fresh(), fresh(init="uniform", scale=1e-3, bias=False)
    assert same_bits(forward, same)
    assert [len(inverse), len(small)] == [2, 1]
    assert 0.5e-3 < small[0].abs().max() <= 1e-3 < inverse[0].abs().max()


def test_work_counts_products_and_parameters():
    options, learned = conv("max"), rule("backprop").build(2)
    assert options.work((3, 8, 8)) == (2 * 64 * 4 * 3 * 9,) * 2
    assert options.parameters((3, 8, 8)) == 4 * 3 * 9 + 4
    network = [options, FlattenOptions()]
    heavy, none = layer_work(network, layer_shapes((3, 8, 8), network), learned, 10)
    assert heavy > none == 0
