"""Feedback alignment against its equations in plain torch, and against backpropagation where B is W."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_near
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, elu, max_pool2d, one_hot

from dtp_dist import load_config
from dtp_dist.algorithm.build import inverse_parameters, layer_shapes
from dtp_dist.algorithm.layers import KINDS
from dtp_dist.algorithm.maps.feedback import FeedbackWeights
from dtp_dist.config.batches import load_batches
from dtp_dist.errors import ConfigError
from dtp_dist.planning.memory import stage_memory
from networks import (
    BATCH,
    SIZES,
    ascended,
    build,
    conv_network,
    dense,
    descended,
    exact_step,
    image_minibatch,
    minibatch,
    parameters,
    rule,
    same_bits,
    stages,
    values,
)
from runs import EVERY_KIND, small

ALIGNMENT = rule("feedback_alignment")


def feedback(layer) -> list[Tensor]:
    return [each.detach().clone() for each in layer.inverse.map.module.parameters()]


def matched(layers) -> None:
    """Give every layer the feedback weights that are its own."""
    with torch.no_grad():
        for layer in layers[1:]:
            for own, other in zip(layer.f.products(), layer.g.module.parameters(), strict=True):
                other.copy_(own)


@pytest.mark.parametrize("split", [[4], [1, 2, 1]])
def test_a_step_of_a_dense_network_is_that_of_the_paper(split):
    """``delta_{l-1} = B_l (a'(z_l) * delta_l)``; W_l rises by ``(a' * delta_l)^T h_{l-1}``."""
    layers = build(dense(), ALIGNMENT)
    weights = {l: [each.detach().clone() for each in layers[l - 1].f.parameters()] for l in (1, 2, 3, 4)}
    fixed = {l: feedback(layers[l - 1])[0] for l in (2, 3, 4)}
    x, labels = minibatch()
    h = {0: x}
    for l in (1, 2, 3, 4):
        z = h[l - 1] @ weights[l][0].T + weights[l][1]
        h[l] = torch.tanh(z) if l < 4 else z
    delta = (one_hot(labels, SIZES[-1]) - h[4].softmax(1)) / BATCH
    steps = {}
    for l in (4, 3, 2, 1):
        inner = delta * (1 - h[l] ** 2) if l < 4 else delta
        steps[l] = [inner.T @ h[l - 1], inner.sum(0)]
        delta = inner @ fixed[l] if l > 1 else delta
    exact_step(stages(layers, ALIGNMENT, split), 0, x, labels)
    for l in (1, 2, 3, 4):
        for old, new, step in zip(weights[l], layers[l - 1].f.parameters(), steps[l], strict=True):
            assert_near(new.detach() - old, step)
        assert l == 1 or torch.equal(feedback(layers[l - 1])[0], fixed[l]), "B never learns"


def test_displacements_of_a_convolutional_network_are_transposed_convolutions_with_fixed_kernels():
    """What pooling took a place from gets its displacement, overlapping windows too."""
    layers = build(conv_network(), ALIGNMENT, shape=(2, 9, 9))
    x, labels = image_minibatch(dtype=torch.float64)
    parts = stages(layers, ALIGNMENT, [1] * 5)
    h = ascended(parts, 0, x, labels)
    found = descended(parts, 0, h[-1], labels)
    delta = (one_hot(labels, 3) - h[5].softmax(1)) / BATCH
    assert_near(found[4], delta)
    for l in (5, 4):
        inner = delta * torch.where(h[4] > 0, 1.0, h[4] + 1) if l == 4 else delta
        delta = inner @ feedback(layers[l - 1])[0]
        assert_near(found[l - 2], delta)
    delta = delta.view(h[2].shape)
    assert_near(found[1], delta)
    weight, bias = layers[1].f.parameters()
    z = conv2d(h[1], weight.detach(), bias.detach(), padding=1).requires_grad_()
    (inner,) = torch.autograd.grad(elu(avg_pool2d(z, 2)), z, delta)
    delta = conv_transpose2d(inner, feedback(layers[1])[0], padding=1)
    assert_near(found[0], delta)
    assert h[1].shape == max_pool2d(conv2d(x, layers[0].f.products()[0].detach(), padding=1), 3, 2, 1).shape


@pytest.mark.parametrize("place", ["after_activation", "before_activation"])
def test_with_its_own_weights_as_feedback_it_is_backpropagation(place):
    """In every kind of layer that has products: what else a layer does is transposed as it is."""
    raw = {**EVERY_KIND, "layers": [dict(each) for each in EVERY_KIND["layers"]]}
    raw["layers"][4]["norm_place"] = raw["layers"][8]["norm_place"] = place
    found = []
    for name in ("feedback_alignment", "backprop"):
        config = load_config(small(model=raw, rule={"name": name}))
        layers = build(config.model.options, config.rule, shape=(1, 8, 8), scrambled=False)
        if name == "feedback_alignment":
            matched(layers)
        x, labels = load_batches(config)["train"].minibatch(0, 0)
        exact_step(stages(layers, config.rule), 0, x.double(), labels)
        found.append([each.detach() for layer in layers for each in layer.f.parameters()])
    assert same_bits(*found)


def test_the_forward_weights_are_in_their_place_again_and_the_feedback_is_drawn_by_itself():
    layers = build(dense(), ALIGNMENT, scrambled=False)
    before = values(layers)
    (stage,) = stages(layers, ALIGNMENT)
    stage.forward(0, *minibatch())
    stage.target(0, None)
    assert same_bits(values(layers), before)
    assert layers[0].inverse is None
    for layer in layers[1:]:
        assert isinstance(layer.g, FeedbackWeights)
        assert not layer.g.parameters(), "nothing of it learns"
        assert not torch.equal(feedback(layer)[0], layer.f.products()[0])
    plain = build(dense(), rule("backprop"), scrambled=False)
    assert same_bits([each.detach() for layer in layers for each in layer.f.parameters()], values(plain)), (
        "the network starts as any other"
    )


def test_initial_weights_and_scale_are_those_of_the_inverse():
    raw = small(rule={"name": "feedback_alignment"})
    raw["model"]["defaults"]["inverse"] = {"init": "uniform", "scale": 0.01}
    config = load_config(raw)
    layers = build(config.model.options, config.rule, inputs=64, scrambled=False)
    for layer in layers[1:]:
        (fixed,) = feedback(layer)
        assert fixed.shape == layer.f.products()[0].shape
        assert 0.009 < fixed.abs().max() <= 0.01


def test_every_kind_with_known_products_has_weights_of_their_shapes():
    config = load_config(small(model=EVERY_KIND, rule={"name": "feedback_alignment"}))
    options, shapes = config.model.options, layer_shapes((1, 8, 8), config.model.options)
    assert {each.kind for each in options} == KINDS.keys() - {"instance"}
    layers = build(options, config.rule, shape=(1, 8, 8))
    learned = config.build_rule()
    for layer, each, shape in zip(layers, options, shapes, strict=False):
        own = [product.shape for product in layer.f.products()]
        assert own == [product.shape for product in each.products(shape) or ()]
        count = inverse_parameters(each, layer.index, shapes, learned)
        assert count == (sum(map(torch.Size.numel, own)) if layer.index > 1 else 0)
        held = [] if layer.inverse is None else parameters([layer])[len(layer.f.parameters()) :]
        assert count == sum(map(torch.Tensor.numel, held))
    memory = stage_memory(config, range(len(options)), 0, 1)
    counts = [inverse_parameters(each, l, shapes, learned) for l, each in enumerate(options, 1)]
    assert memory.inverses == 4 * sum(counts)


def test_a_module_of_a_user_is_refused_in_one_line():
    raw = small(rule={"name": "feedback_alignment"})
    raw["model"]["layers"][0] = {"kind": "dense", "units": 32}
    raw["model"]["layers"].insert(1, {"kind": "networks:plain_pair", "args": {"units": 8}})
    with pytest.raises(ConfigError) as caught:
        load_config(raw)
    told = str(caught.value)
    assert told.startswith("model.layers.2.kind: rule.name=feedback_alignment has weights of its own")
    assert "\n" not in told
    raw["model"]["layers"][:2] = [raw["model"]["layers"][1]]
    load_config(raw)  # the first layer has nothing below it


def test_forward_weights_may_begin_as_zeros_if_what_comes_down_does_not():
    zeros = {"kind": "dense", "units": 32, "init": "zeros"}
    raw = small(rule={"name": "feedback_alignment"})
    raw["model"]["layers"] = [{"kind": "dense", "units": 32}, zeros, raw["model"]["layers"][-1]]
    with pytest.raises(
        ConfigError, match=r"^model\.layers\.2\.inverse\.init: null means the layer's own, zeros"
    ):
        load_config(raw)
    load_config({**raw, "rule": {"name": "backprop"}})
    block = {"kind": "residual", "body": [zeros, zeros]}
    inside = {**raw["model"], "layers": [raw["model"]["layers"][0], block, raw["model"]["layers"][-1]]}
    with pytest.raises(ConfigError, match=r"^model\.layers\.2\.body\.1\.inverse\.init: null means"):
        load_config({**raw, "model": inside})
    with pytest.raises(ConfigError, match="'zeros' is not allowed"):
        load_config(raw, ["model.layers.2.inverse.init=zeros"])
    config = load_config(raw, ["model.layers.2.inverse.init=uniform"])
    layers = build(config.model.options, config.rule, inputs=64, dtype=torch.float32, scrambled=False)
    assert not layers[1].f.products()[0].any()
    (stage,) = stages(layers, config.rule)
    batches = load_batches(config)["train"]
    for k in range(3):
        exact_step([stage], k, *batches.minibatch(0, k))
    assert layers[1].f.products()[0].any()
