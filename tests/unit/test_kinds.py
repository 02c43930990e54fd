"""Pooling, dropout, normalisation and locally connected layers: against autograd, and what targets do."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from closeness import assert_near
from torch import Tensor, nn
from torch.nn.functional import fold

from dtp_dist import load_config, train
from dtp_dist.algorithm.build import layer_shapes
from dtp_dist.algorithm.layers import (
    ConvOptions,
    DenseOptions,
    DropoutOptions,
    InverseOptions,
    LayerNormOptions,
    LayerOptions,
    LocalOptions,
    PoolOptions,
    ResidualOptions,
)
from dtp_dist.algorithm.maps.base import Call, Map, Mode
from dtp_dist.algorithm.optimizers.kinds import SGDOptions
from dtp_dist.algorithm.options import RangeError
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.config import Config
from dtp_dist.phase import Phase
from networks import ascended, build, descended, exact_step, image_minibatch, rule, same_bits, stages, values
from runs import read_metrics, small

IMAGE = (3, 9, 7)
EXAMPLES = 5
LINEAR = InverseOptions(activation="linear")
POOLS = {
    f"{pool} {name}": PoolOptions(pool=pool, **settings)
    for pool in ("max", "average")
    for name, settings in {
        "side by side": {},
        "overlapping": {"kernel": 3, "stride": 2, "padding": 1},
        "apart": {"kernel": 2, "stride": 3},
        "global": {"kernel": "global"},
    }.items()
}
LOCALS = {
    "plain": LocalOptions(channels=4),
    "strided": LocalOptions(channels=2, kernel=2, stride=2, padding=1, activation="gelu", bias=False),
    "normalised": LocalOptions(channels=2, padding=1, norm="batch", norm_affine=True, activation="selu"),
}
KINDS: dict[str, LayerOptions] = {
    **POOLS,
    **{f"local, {name}": each for name, each in LOCALS.items()},
    "dropout": DropoutOptions(p=0.3),
    "layer norm": LayerNormOptions(),
    "layer norm without scale": LayerNormOptions(affine=False, eps=1e-3),
    "conv, batch norm": ConvOptions(channels=4, norm="batch"),
    "conv, batch norm before": ConvOptions(
        channels=4, norm="batch", norm_place="before_activation", norm_affine=True, activation="relu"
    ),
    "conv, layer norm": ConvOptions(channels=4, norm="layer", norm_affine=True, pool="max", bias=False),
}
EVERY_KIND = pytest.mark.parametrize("name", KINDS)


def call(mode: Mode = Mode.LOCAL, *, k: int = 0, context: Tensor | None = None) -> Call:
    return Call(Randomness(7, 2, k, Phase.BOTH), mode, context=context)


def random(*shape: int, seed: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def made(options: LayerOptions, shape=IMAGE, dtype: torch.dtype = torch.float64) -> tuple[Map, Map]:
    """Return both maps, with every parameter without structure."""
    f, g = options.maps(shape, torch.Generator().manual_seed(3), inverse=True)
    assert g is not None
    for seed, map_ in enumerate((f, g)):
        map_.module.to(dtype)
        with torch.no_grad():
            for number, parameter in enumerate(map_.parameters()):
                parameter.add_(0.3 * random(*parameter.shape, seed=10 * seed + number, dtype=dtype))
    return f, g


def assert_pulls(pullback, output: Tensor, leaf: Tensor, parameters) -> None:
    """Compare a pullback with autograd of ``output``."""
    cotangent = random(*output.shape, seed=5)
    expected = torch.autograd.grad(output, [leaf, *parameters], cotangent)
    assert_near(pullback.output, output.detach())
    found = [pullback.input(cotangent), *pullback.parameters(cotangent)]
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other)


# Forward maps


@EVERY_KIND
def test_a_forward_map_is_its_torch_modules_and_pulls_their_gradients(name):
    """Dropout's mask is not torch's own: it is compared below."""
    options = KINDS[name]
    f, _ = made(options)
    x = random(EXAMPLES, *IMAGE)
    y, context = f.with_context(x, call(Mode.FORWARD))
    assert tuple(y.shape[1:]) == options.output_shape(IMAGE)
    assert y.is_contiguous()
    assert not y.requires_grad
    assert torch.equal(y, f(x, call()))
    if name != "dropout":
        leaf = x.clone().requires_grad_()
        module = nn.Sequential(*f.torch_modules()).train()
        assert_pulls(f.linearize(x, call()), module(leaf), leaf, f.parameters())
        assert_pulls(f.linearize(x, call(context=context), y), module(leaf), leaf, f.parameters())
        evaluated = f(x, call(Mode.EVALUATE))
        assert_near(evaluated, module.eval()(x).detach())
    assert f.linearize(x, call(context=context), y).output.is_contiguous()


@pytest.mark.parametrize("name", [*KINDS, "conv, derivative", "residual", "residual of maxima"])
def test_an_inverse_says_whether_it_needs_what_f_found(name):
    learned = InverseOptions(activation="derivative")
    more = {
        "conv, derivative": ConvOptions(channels=4, activation="tanh", inverse=learned),
        "residual": ResidualOptions(body=[ConvOptions(channels=3, padding=1)]),
        "residual of maxima": ResidualOptions(
            body=[ConvOptions(channels=3, padding=1), PoolOptions(pool="max", kernel=1)]
        ),
    }
    options = {**KINDS, **more}[name]
    _, g = made(options)
    y = random(EXAMPLES, *options.output_shape(IMAGE))
    if options.inverse_reads_forward(IMAGE):
        with pytest.raises(AssertionError, match=r"in (its|the) context"):
            g(y, call().inverse())
    else:
        assert g(y, call().inverse()).shape == (EXAMPLES, *IMAGE)


@EVERY_KIND
def test_bfloat16_numbers_stay_so_and_gradients_have_the_parameters_type(name):
    f, g = made(KINDS[name], dtype=torch.float32)
    x = random(EXAMPLES, *IMAGE, dtype=torch.bfloat16)
    y, context = f.with_context(x, call(Mode.FORWARD))
    now = call(context=context)
    for map_, h in ((f, x), (g, y)):
        pullback = map_.linearize(h, now)
        assert map_(h, now).dtype is pullback.output.dtype is torch.bfloat16
        cotangent = random(*pullback.output.shape, dtype=torch.bfloat16)
        assert pullback.input(cotangent).dtype is torch.bfloat16
        gradients = pullback.parameters(cotangent)
        assert [each.dtype for each in gradients] == [torch.float32] * len(map_.parameters())
        assert [each.shape for each in gradients] == [each.shape for each in map_.parameters()]


def test_work_and_parameters_are_what_there_is():
    for name, options in KINDS.items():
        f, _ = made(options)
        assert options.parameters(IMAGE) == sum(each.numel() for each in f.parameters()), name
    assert LocalOptions(channels=4).work(IMAGE) == ConvOptions(channels=4).work(IMAGE)


# Inverses


def expected_inverse(name: str, f: Map, g: Map, y: Tensor, x: Tensor) -> Tensor:
    """Return g(y) as its formula says, through autograd; x is the input of F."""
    options = KINDS[name]
    if isinstance(options, PoolOptions):
        return restored(options, y, x)
    if isinstance(options, DropoutOptions):
        dropped = f(x, call()) == 0
        return torch.where(dropped, x, y * 0.7)
    if isinstance(options, LayerNormOptions):
        flat = x.flatten(1)
        deviation = (flat.var(1, correction=0) + options.eps).sqrt().view(-1, 1, 1, 1)
        scale, shift = g.parameters() or (1.0, 0.0)
        return (scale * y + shift) * deviation + flat.mean(1).view(-1, 1, 1, 1)
    if isinstance(options, LocalOptions):
        places = y.flatten(2).permute(2, 0, 1)
        patches = torch.einsum("pbo,poi->bip", places, g.parameters()[0])
        z = fold(patches, IMAGE[1:], options.kernel, padding=options.padding, stride=options.stride)
        return torch.tanh(z + g.parameters()[1] if options.bias else z)
    raise AssertionError("the inverse of a convolution is in test_conv.py")


def restored(options: PoolOptions, y: Tensor, x: Tensor) -> Tensor:
    """Return at each place the mean of the y's that it had part in, by the pooling's own Jacobian."""
    leaf = x.clone().requires_grad_()
    pooled = nn.Sequential(*made(options)[0].torch_modules())(leaf)
    units = torch.eye(y[0].numel(), dtype=y.dtype).view(-1, 1, *y.shape[1:])
    rows = [torch.autograd.grad(pooled, leaf, unit.expand_as(y), retain_graph=True)[0] for unit in units]
    jacobian = torch.stack(rows, dim=1)  # [B, units of y, C, H, W]
    parts = jacobian.sum(1)
    return torch.einsum("buchw,bu->bchw", jacobian, y.flatten(1)) / parts.masked_fill(parts == 0, 1)


@pytest.mark.parametrize("name", [name for name in KINDS if "conv" not in name])
def test_an_inverse_is_its_formula_and_pulls_its_gradients(name):
    f, g = made(KINDS[name])
    x = random(EXAMPLES, *IMAGE)
    y, context = f.with_context(x, call(Mode.FORWARD))
    now = call(context=context).inverse()
    leaf = random(*y.shape, seed=6).requires_grad_()
    output = expected_inverse(name, f, g, leaf, x)
    assert output.shape == x.shape
    assert torch.equal(g(leaf.detach(), now), g.linearize(leaf.detach(), now).output)
    assert_pulls(g.linearize(leaf.detach(), now), output, leaf, g.parameters())


@pytest.mark.parametrize("name", [*POOLS, "dropout", "layer norm without scale"])
def test_an_inverse_that_learns_nothing_gives_back_what_f_gave(name):
    """Windows that overlap share their places, so there is no y for each of which f(g(y)) = y."""
    f, g = KINDS[name].maps(IMAGE, torch.Generator(), inverse=True)
    x = random(EXAMPLES, *IMAGE).abs()  # a maximum must be above the zeros around it
    y, context = f.with_context(x, call(Mode.FORWARD))
    back = g(y, call(context=context).inverse())
    assert g.fixed
    assert g.parameters() == []
    if name in ("dropout", "layer norm without scale"):
        assert_near(back, x)
    if "overlapping" not in name:
        assert_near(f(back, call()), y)


def test_a_fresh_layer_norm_is_undone_exactly_and_its_inverse_learns():
    f, g = LayerNormOptions().maps(IMAGE, torch.Generator(), inverse=True)
    for map_ in (f, g):
        map_.module.double()
    x = 3 * random(EXAMPLES, *IMAGE) + 2
    y, context = f.with_context(x, call(Mode.FORWARD))
    assert_near(g(y, call(context=context).inverse()), x)
    assert not g.fixed
    assert [each.shape for each in g.parameters()] == [torch.Size(IMAGE)] * 2


# Dropout


def test_dropout_draws_by_minibatch_and_layer_alone_and_leaves_the_global_stream_alone():
    torch.manual_seed(17)
    state = torch.get_rng_state()
    f, _ = made(DropoutOptions(p=0.4))
    x = torch.ones(EXAMPLES, 400, dtype=torch.float64)
    first, context = f.with_context(x, call(Mode.FORWARD))
    dropped = first == 0
    assert dropped.double().mean().item() == pytest.approx(0.4, abs=0.04)
    assert_near(first[~dropped], x[~dropped] / 0.6)
    assert torch.equal(context.isnan(), ~dropped)
    same = (call(), call().forward(), call().inverse(3).forward(), replace(call(), purpose="inverse"))
    assert all(torch.equal(first, f(x, each)) for each in same)
    assert torch.equal(first, f.linearize(x, call()).output)
    assert torch.equal(f(x, call(Mode.EVALUATE)), x)
    others = (
        call(k=1),
        call().forward(3),
        Call(Randomness(8, 2, 0, Phase.BOTH)),
        Call(Randomness(7, 3, 0, Phase.BOTH)),
    )
    assert not any(torch.equal(first, f(x, each)) for each in others)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dropout_pulls_through_its_mask_drawn_anew_or_stored_with_the_same_bits(dtype):
    f, _ = made(DropoutOptions(p=0.3))
    x, cotangent = (random(EXAMPLES, 40, seed=seed, dtype=dtype) for seed in (1, 2))
    y, context = f.with_context(x, call(Mode.FORWARD))
    pulled = f.linearize(x, call()).input(cotangent)
    assert torch.equal(pulled, f.linearize(x, call(context=context), y).input(cotangent))
    assert torch.equal(pulled == 0, y == 0)
    evaluated = f.linearize(x, call(Mode.EVALUATE))
    assert torch.equal(evaluated.output, x)
    assert torch.equal(evaluated.input(cotangent), cotangent)


def test_no_number_is_left_out_with_probability_zero():
    f, g = made(DropoutOptions(p=0.0))
    x = random(EXAMPLES, 40)
    y, context = f.with_context(x, call(Mode.FORWARD))
    assert torch.equal(y, x)
    assert torch.equal(g(y + 1, call(context=context).inverse()), x + 1)


# Targets


def network() -> list[LayerOptions]:
    """A layer of each kind, for images [2, 9, 9] and 3 classes."""
    return [
        LocalOptions(channels=3, padding=1, inverse=LINEAR),
        DropoutOptions(p=0.25),
        PoolOptions(pool="max"),
        LayerNormOptions(),
        ConvOptions(channels=4, padding=1, norm="batch", norm_affine=True, norm_place="before_activation"),
        LayerNormOptions(affine=False),
        PoolOptions(pool="average", kernel="global"),
        DenseOptions(units=5, norm="layer", activation="gelu"),
        DenseOptions(units=3, activation="linear", inverse=LINEAR),
    ]


def propagated(name: str) -> tuple[list, list[Tensor], list[Tensor]]:
    """Return the layers of a network, and each one's activations and displacements of a minibatch."""
    layers = build(network(), rule(name), shape=(2, 9, 9))
    parts = stages(layers, rule(name), [1] * len(layers))
    x, labels = image_minibatch(0, torch.float64)
    h = ascended(parts, 0, x, labels)
    return layers, h, descended(parts, 0, h[-1], labels)


@pytest.mark.parametrize("name", ["dtp", "tp", "fw_dtp"])
def test_targets_pass_dropout_where_numbers_were_kept_and_leave_the_others_alone(name):
    _, h, delta = propagated(name)
    dropped = h[2] == 0
    assert 0.1 < dropped.double().mean() < 0.4
    assert delta[0][dropped].abs().max() == 0
    assert_near(delta[0][~dropped], delta[1][~dropped] * 0.75)


@pytest.mark.parametrize("name", ["dtp", "fw_dtp"])
def test_a_target_of_a_mean_is_that_of_every_place_and_that_of_a_maximum_is_its_places(name):
    _, h, delta = propagated(name)
    assert_near(delta[5], delta[6][:, :, None, None].expand_as(delta[5]))
    assert_near(delta[5].mean((2, 3)), delta[6])
    wanted = (delta[1] != 0).sum().item()
    assert wanted == delta[2].numel(), "one place in each window"
    moved = torch.nn.functional.max_pool2d(h[2] + delta[1].clamp_min(0), 2)
    assert_near(moved, h[3] + delta[2].clamp_min(0))


def test_the_targets_of_ldrl_follow_the_transpose_where_an_inverse_learns_nothing():
    layers, h, delta = propagated("ldrl")
    x = h[0].clone()
    for l in (2, 3, 6, 7):
        f = layers[l - 1].f
        if l == 2:
            expected = torch.where(h[2] == 0, 0.0, delta[1] / 0.75)
        else:
            leaf = h[l - 1].clone().requires_grad_()
            y = nn.Sequential(*f.torch_modules())(leaf)
            (expected,) = torch.autograd.grad(y, leaf, delta[l - 1])
        assert_near(delta[l - 2], expected)
    assert x.shape == (7, 2, 9, 9)


def test_backpropagation_through_all_of_it_is_torchs():
    """With dropout's mask in place of torch's own."""
    layers = build(network(), rule("backprop"), shape=(2, 9, 9))
    copies = build(network(), rule("backprop"), shape=(2, 9, 9))
    modules = [nn.Sequential(*layer.f.torch_modules()) for layer in copies]
    x, labels = image_minibatch(0, torch.float64)
    before = values(layers)
    parts = stages(layers, rule("backprop"), [1] * len(layers))
    dropped = ascended(parts[:2], 0, x, labels)[2] == 0
    for stage in parts[:2]:
        stage.abandon()
    h = x
    for number, module in enumerate(modules, 1):
        h = torch.where(dropped, 0.0, h / 0.75) if number == 2 else module.train()(h)
    nn.functional.cross_entropy(h, labels).backward()
    exact_step(parts, 0, x, labels)
    theirs = [each.grad for layer in copies for each in layer.f.parameters()]
    changes = [new - old for new, old in zip(values(layers), before, strict=True)]
    for change, gradient in zip(changes, theirs, strict=True):
        if gradient.abs().max() > 1e-12:  # a constant before a normalisation has none
            assert_near(change, -gradient)


@pytest.mark.parametrize("name", ["dtp", "ldrl", "autoencoder"])
def test_any_partition_gives_the_same_bits(name):
    found = []
    for split in ([9], [1, 1, 1, 1, 1, 1, 1, 1, 1], [2, 4, 3]):
        layers = build(
            network(), rule(name), dtype=torch.float32, shape=(2, 9, 9), forward=SGDOptions(lr=0.01)
        )
        parts = stages(layers, rule(name), split)
        for k in range(2):
            exact_step(parts, k, *image_minibatch(k))
        found.append(values(layers))
    assert same_bits(found[0], found[1])
    assert same_bits(found[0], found[2])


def of_the_documents(folder: Path, *overrides: str, number: int = 0) -> Config:
    """Return the configuration of a network in docs/layers.md: of every kind, or residual."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "layers.md").read_text()
    written = [each for each in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "input:" in each]
    assert len(written) == 2
    raw = small(**yaml.safe_load(written[number]), monitor={"tensorboard": False, "every": 10})
    return load_config(raw, [f"run_dir={folder / 'run'}", *overrides])


@pytest.mark.slow
def test_the_network_of_the_documents_learns(tmp_path):
    result = train(of_the_documents(tmp_path, "train.epochs=3", "parallel.stages=3")).result
    assert result["test_error"] < 45, "chance is 90"


@pytest.mark.slow
def test_the_targets_of_ldrl_come_to_point_down_the_gradient_through_every_kind(tmp_path):
    """On fixed weights, as its inverses learn. A layer that learns nothing turns no target away."""
    learning = {"activation": "linear", "sigma": 0.1, "iterations": 10, "init": "uniform", "scale": 0.01}
    settings = [f"model.defaults.inverse.{key}={value}" for key, value in learning.items()]
    settings += ["rule={name: ldrl}", "monitor.alignment_every=10", "train.epochs=4"]
    settings += ["optimizer.forward.lr=0", "optimizer.inverse={name: sgd, lr: 0.1}"]
    train(of_the_documents(tmp_path, *settings))
    lines = [each for each in read_metrics(tmp_path / "run") if "layer/1/target_angle" in each]
    first, last = (
        [line[f"layer/{index}/target_angle"] for index in range(1, 7)] for line in lines[:: len(lines) - 1]
    )
    assert min(first[:2]) > 60
    assert max(last) < 45
    assert abs(last[0] - last[1]) < 5, "pooling"
    assert abs(last[3] - last[4]) < 5, "the mean of images"
    assert abs(last[2] - last[3]) < 5, "dropout"


@pytest.mark.slow
def test_the_targets_of_the_documents_residual_network_come_near_the_gradient_in_every_layer(tmp_path):
    """On fixed weights."""
    settings = ["optimizer.forward={name: sgd, lr: 0}", "monitor.alignment_every=29", "train.epochs=1"]
    falling = "{schedule: cosine, start: 0.02, length: 31, unit: minibatch}"
    settings += [f"optimizer.inverse={{name: adam, lr: {falling}}}"]
    train(of_the_documents(tmp_path, *settings, number=1))
    lines = [each for each in read_metrics(tmp_path / "run") if "layer/1/target_angle" in each]
    first, last = (
        [line[f"layer/{index}/target_angle"] for index in range(1, 6)] for line in lines[:: len(lines) - 1]
    )
    assert first[0] > 45, "after the first minibatch's I"
    assert max(last) < 25


@pytest.mark.slow
def test_the_residual_network_of_the_documents_learns(tmp_path):
    settings = ("train.epochs=3", "parallel.stages=3", "optimizer.forward.lr=0.01", "seed=2")
    result = train(of_the_documents(tmp_path, *settings, number=1)).result
    assert result["test_error"] < 60, "chance is 90"


# What does not fit


@pytest.mark.parametrize(
    ("options", "shape", "key", "words"),
    [
        (PoolOptions(pool="max"), (784,), "1.kind", "a pool layer needs images [C, H, W], not [784]"),
        (PoolOptions(pool="max", kernel=5), (1, 4, 9), "1.kernel", "5 is more than the image of [4, 9]"),
        (LocalOptions(channels=2), (784,), "1.kind", "a local layer needs images [C, H, W], not [784]"),
        (LocalOptions(channels=2, kernel=5), (1, 4, 9), "1.kernel", "5 is more than the image of [4, 9]"),
        (LayerNormOptions(), (1,), "1.kind", "is always 0"),
        (DenseOptions(units=1, norm="layer"), (4,), "1.norm", "is always 0"),
        (ConvOptions(channels=1, norm="layer"), (2, 3, 3), "1.norm", "is always 0"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_write(options, shape, key, words):
    with pytest.raises(RangeError) as refused:
        layer_shapes(shape, [options])
    assert refused.value.key == key
    assert words in str(refused.value)


def test_what_these_messages_advise_works():
    pool, local = PoolOptions(pool="max", kernel=5), LocalOptions(channels=2, kernel=5)
    assert layer_shapes((1, 4, 9), [replace(pool, kernel=4)])[1] == (1, 1, 2)
    assert layer_shapes((1, 4, 9), [replace(pool, kernel="global")])[1] == (1,)
    assert layer_shapes((1, 4, 9), [replace(local, padding=1)])[1] == (2, 2, 7)
    assert layer_shapes((4,), [DenseOptions(units=1)])[1] == (1,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kernel": "global", "stride": 2}, "2 is not allowed with kernel: global"),
        ({"kernel": "global", "padding": 1}, "1 is not allowed with kernel: global"),
        ({"kernel": 2, "padding": 2}, "at most half of kernel"),
    ],
)
def test_settings_of_a_pool_that_can_not_work_are_refused(settings, words):
    with pytest.raises(RangeError, match=words):
        PoolOptions(pool="average", **settings)


@pytest.mark.parametrize(
    ("options", "shape", "needs"),
    [
        (DenseOptions(units=3, norm="batch"), (4,), True),
        (DenseOptions(units=3, norm="layer"), (4,), False),
        (ConvOptions(channels=3, norm="batch"), (2, 3, 3), True),
        (ConvOptions(channels=3, norm="batch"), (2, 4, 4), False),
        (LocalOptions(channels=3, norm="batch"), (2, 3, 3), True),
        (LayerNormOptions(), (4,), False),
        (DropoutOptions(), (4,), False),
    ],
)
def test_only_what_is_normalised_over_the_minibatch_alone_needs_several_examples(options, shape, needs):
    assert options.needs_several_examples(shape, inverse=False) == needs
