"""Direct feedback alignment against its equations in plain torch, and what travels for it."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_near
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, elu, max_pool2d, one_hot

from dtp_dist import load_config, train
from dtp_dist.algorithm.build import inverse_parameters, layer_shapes
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.maps.feedback import DirectFeedback
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.errors import ConfigError
from dtp_dist.phase import Phase
from dtp_dist.planning.costs import action_work
from dtp_dist.planning.memory import stage_memory
from dtp_dist.runtime.stage.link_encoding import message_bytes
from dtp_dist.schedule import Kind
from dtp_dist.transport.messages import HEADER_BYTES
from networks import (
    BATCH,
    SEED,
    SIZES,
    ascended,
    build,
    conv_network,
    dense,
    exact_step,
    image_minibatch,
    minibatch,
    rule,
    stages,
)
from runs import EVERY_KIND, read_metrics, small

DFA = rule("dfa")


def feedback(layer) -> Tensor:
    (found,) = layer.g.module.parameters()
    return found.detach().clone()


@pytest.mark.parametrize("split", [[4], [1, 2, 1]])
def test_a_step_of_a_dense_network_is_that_of_the_paper(split):
    """``delta_l = (B_l e) * a'(z_l)``, ``e`` the error of the outputs; W_l falls by ``delta_l h_{l-1}^T``."""
    layers = build(dense(), DFA)
    weights = {l: [each.detach().clone() for each in layers[l - 1].f.parameters()] for l in (1, 2, 3, 4)}
    fixed = {l: feedback(layers[l - 1]) for l in (1, 2, 3)}
    x, labels = minibatch()
    h = {0: x}
    for l in (1, 2, 3, 4):
        z = h[l - 1] @ weights[l][0].T + weights[l][1]
        h[l] = torch.tanh(z) if l < 4 else z
    error = (h[4].softmax(1) - one_hot(labels, SIZES[-1])) / BATCH
    exact_step(stages(layers, DFA, split), 0, x, labels)
    for l in (1, 2, 3, 4):
        delta = error if l == 4 else (error @ fixed[l].T) * (1 - h[l] ** 2)
        step = [-(delta.T @ h[l - 1]), -delta.sum(0)]
        for old, new, one in zip(weights[l], layers[l - 1].f.parameters(), step, strict=True):
            assert_near(new.detach() - old, one)
        assert l == 4 or torch.equal(feedback(layers[l - 1]), fixed[l]), "B never learns"
    assert layers[3].inverse is None


def test_images_get_a_displacement_at_every_place_and_layers_without_weights_none():
    layers = build(conv_network(), DFA, shape=(2, 9, 9))
    x, labels = image_minibatch(dtype=torch.float64)
    weights = {l: [each.detach().clone() for each in layers[l - 1].f.parameters()] for l in (1, 2)}
    fixed = {l: feedback(layers[l - 1]) for l in (1, 2)}
    parts = stages(layers, DFA, [1] * 5)
    h = ascended(parts, 0, x, labels)
    error = (h[5].softmax(1) - one_hot(labels, 3)) / BATCH
    signal = None
    for part in reversed(parts):
        signal = part.target(0, signal)
        assert signal is None or torch.equal(signal, -error), "the same on every link"
        part.update(0)
    for l, pool in ((1, lambda z: max_pool2d(z, 3, 2, 1)), (2, lambda z: avg_pool2d(z, 2))):
        mine = [each.clone().requires_grad_() for each in weights[l]]
        delta = -(error @ fixed[l].T).view(h[l].shape)
        loss = -(elu(pool(conv2d(h[l - 1], *mine, padding=1))) * delta).sum()
        for old, new, gradient in zip(
            weights[l], layers[l - 1].f.parameters(), torch.autograd.grad(loss, mine), strict=True
        ):
            assert_near(new.detach() - old, -gradient)
    assert layers[2].inverse is None
    given = (layers[2], h[3], -error, Call(Randomness(SEED, 3, 0, Phase.BOTH)))
    assert torch.equal(DFA.build(5).displacement(*given), torch.zeros_like(h[3]))


def test_every_kind_has_a_map_from_the_outputs_to_what_it_gives():
    config = load_config(small(model=EVERY_KIND, rule={"name": "dfa"}))
    options, shapes = config.model.options, layer_shapes((1, 8, 8), config.model.options)
    learned = config.build_rule()
    for layer in build(options, config.rule, shape=(1, 8, 8)):
        count = inverse_parameters(options[layer.index - 1], layer.index, shapes, learned)
        if not layer.f.parameters() or layer.is_output:
            assert (layer.inverse, count) == (None, 0)
            continue
        assert isinstance(layer.g, DirectFeedback)
        given = torch.randn(4, 10, dtype=torch.float64)
        found = layer.g(given, Call(Randomness(SEED, layer.index, 0, Phase.BOTH)))
        assert found.shape == (4, *shapes[layer.index])
        assert_near(found.flatten(1), given @ feedback(layer).T)
        assert feedback(layer).numel() == count
    memory = stage_memory(config, range(len(options)), 0, 1)
    counts = [inverse_parameters(each, l, shapes, learned) for l, each in enumerate(options, 1)]
    assert memory.inverses == 4 * sum(counts)
    assert memory.optimizers == 3 * memory.weights, "nothing of the feedback is optimized"


def test_feedback_is_drawn_as_the_inverse_says():
    raw = small(rule={"name": "dfa"})
    raw["model"]["layers"][0] = {"kind": "dense", "units": 32, "init": "zeros", "repeat": 4}
    with pytest.raises(ConfigError, match=r"^model\.layers\.1\.inverse\.init: null means"):
        load_config(raw)
    raw["model"]["defaults"]["inverse"] = {"init": "uniform", "scale": 0.02}
    config = load_config(raw)
    for layer in build(config.model.options, config.rule, inputs=64, scrambled=False)[:-1]:
        assert feedback(layer).shape == (32, 10)
        assert 0.019 < feedback(layer).abs().max() <= 0.02
        assert not layer.f.products()[0].any()


def test_a_target_message_has_the_outputs_size_on_every_link():
    config = load_config(small(rule={"name": "dfa"}))
    for layer in (1, 2, 3, 4):
        down = message_bytes(config, config.build_rule(), layer, Phase.BOTH)[1]
        assert down == HEADER_BYTES + 40 * 10 * 4
    twin = load_config(small(rule={"name": "backprop"}))
    assert message_bytes(twin, twin.build_rule(), 2, Phase.BOTH)[1] == HEADER_BYTES + 40 * 32 * 4


def test_handing_on_is_no_work_and_each_layer_makes_its_displacement_in_u():
    options = dense((6, 50, 40, 30, 3))
    shapes = layer_shapes((6,), options)
    mine, theirs = (action_work(options, shapes, rule(name).build(4), 20) for name in ("dfa", "backprop"))
    assert mine[Kind.TARGET] == [0.0] * 4
    assert mine[Kind.FORWARD] == theirs[Kind.FORWARD]
    more = [a - b for a, b in zip(mine[Kind.UPDATE], theirs[Kind.UPDATE], strict=True)]
    assert more[3] == 0
    assert more[0] > more[1] > more[2] > 0


@pytest.mark.parametrize("runtime", ["inprocess", "local", "virtual"])
def test_angles_are_measured_next_to_a_signal_of_another_shape(tmp_path, runtime):
    overrides = ["parallel.stages=3", f"run_dir={tmp_path / 'run'}", "train.max_steps=20"]
    overrides += ["monitor.alignment_every=5", "monitor.tensorboard=false"]
    if runtime == "virtual":
        overrides.append("parallel.virtual_costs={F: 0.1, T: 0.1, U: 0.1}")
    else:
        overrides.append(f"parallel.runtime={runtime}")
    config = load_config(small(rule={"name": "dfa"}), overrides)
    result, _ = train(config)
    assert result["steps"] == 20
    if config.parallel.virtual:
        return
    found = [line for line in read_metrics(tmp_path / "run") if "layer/5/target_angle" in line]
    assert found
    for line in found:
        assert line["layer/5/target_angle"] < 0.1
        assert 20 < line["layer/1/target_angle"] < 160
        assert "layer/1/jacobian_angle" not in line


def test_with_the_products_of_all_weights_above_as_feedback_a_linear_network_takes_backpropagations_step():
    layers = build(dense(activation="linear", bias=False), DFA, scrambled=False)
    found = []
    with torch.no_grad():
        above = torch.eye(SIZES[-1], dtype=torch.float64)
        for layer, upper in zip(layers[2::-1], layers[:0:-1], strict=True):
            above = above @ upper.f.module.weight
            layer.g.module.weight.copy_(above.T)
    for name in ("dfa", "backprop"):
        network = (
            layers
            if name == "dfa"
            else build(dense(activation="linear", bias=False), rule(name), scrambled=False)
        )
        before = [layer.f.module.weight.detach().clone() for layer in network]
        exact_step(stages(network, rule(name)), 0, *minibatch())
        found.append([layer.f.module.weight - old for layer, old in zip(network, before, strict=True)])
    for mine, theirs in zip(*found, strict=True):
        assert_near(mine.detach(), theirs.detach())
