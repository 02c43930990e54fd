"""Every loss, gradient and displacement of every rule against autograd of the formula as written."""

import copy

import pytest
import torch
from closeness import assert_near, tolerance
from torch import nn
from torch.nn.functional import cross_entropy

from dtp_dist.algorithm.losses import CROSS_ENTROPY
from dtp_dist.algorithm.maps.activations import ACTIVATIONS as KNOWN
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.optimizers.kinds import AdamOptions, SGDOptions
from dtp_dist.algorithm.options import RangeError
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.phase import Phase
from networks import (
    ACTIVATIONS,
    BATCH,
    DTYPES,
    SEED,
    Reference,
    build,
    dense,
    exact_step,
    minibatch,
    noise,
    parameters,
    rule,
    stages,
    values,
)

BOTH_TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
EVERY_ACTIVATION = pytest.mark.parametrize("activation", ACTIVATIONS)
VARIANTS = {
    "current": {"anchor": "current", "jacobian": "current"},
    "stored": {"anchor": "current", "jacobian": "stored"},
    "stale": {"anchor": "stale", "jacobian": "current"},
}


def call(layer: int, k: int = 0) -> Call:
    return Call(Randomness(SEED, layer, k, Phase.BOTH))


def moved(layers) -> None:
    """Change every weight, as updates between F and U do."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in parameters(layers):
            shift = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * shift.to(parameter.dtype))


def setting(rule_options, activation="tanh", dtype=torch.float64, **more):
    """Return layers, their rule, and a reference that has run F and T of minibatch 0."""
    options = dense(activation=activation, inverse=activation, iterations=more.pop("iterations", 1))
    layers = build(options, rule_options, dtype=dtype, **more)
    reference = Reference(layers, options, rule_options)
    reference.forward(0, *minibatch(dtype=dtype))
    reference.target(0)
    return layers, rule_options.build(len(layers)), reference


# Output targets and displacements


@BOTH_TYPES
@pytest.mark.parametrize("name", ["dtp", "tp", "backprop"])
def test_output_displacement_is_the_negative_gradient_of_the_mean_loss(name, dtype):
    logits, labels = torch.randn(BATCH, 3, dtype=dtype) * 3, minibatch()[1]
    logits.requires_grad_()
    expected = -torch.autograd.grad(cross_entropy(logits, labels), logits)[0]
    assert_near(rule(name).build(4).output(logits.detach(), labels, CROSS_ENTROPY), expected)


@BOTH_TYPES
@EVERY_ACTIVATION
@pytest.mark.parametrize("name", ["dtp", "tp"])
def test_displacement_below_the_output_layer_is_minus_eta_times_the_loss_gradient(name, activation, dtype):
    options = rule(name, target_step=0.7)
    layers, learned, reference = setting(options, activation, dtype)
    h = reference.h[3, 0].clone().requires_grad_()
    loss = cross_entropy(reference.f(4, h), reference.labels[0])
    expected = -0.7 * torch.autograd.grad(loss, h)[0]
    delta = learned.output(reference.h[4, 0], reference.labels[0], CROSS_ENTROPY)
    found = learned.propagate(layers[3], reference.h[3, 0], reference.h[4, 0], delta, call(4))
    assert_near(found, expected)


@BOTH_TYPES
@EVERY_ACTIVATION
def test_difference_target_displacement(activation, dtype):
    layers, learned, reference = setting(rule("dtp"), activation, dtype)
    for l in (3, 2):
        h_in, h_out, delta = reference.h[l - 1, 0], reference.h[l, 0], reference.delta[l, 0]
        expected = reference.g(l, h_out + delta) - reference.g(l, h_out)
        assert_near(learned.propagate(layers[l - 1], h_in, h_out, delta, call(l)), expected)


@BOTH_TYPES
@EVERY_ACTIVATION
def test_plain_target_displacement(activation, dtype):
    layers, learned, reference = setting(rule("tp"), activation, dtype)
    for l in (3, 2):
        h_in, h_out, delta = reference.h[l - 1, 0], reference.h[l, 0], reference.delta[l, 0]
        expected = reference.g(l, h_out + delta) - h_in
        assert_near(learned.propagate(layers[l - 1], h_in, h_out, delta, call(l)), expected)


@BOTH_TYPES
@EVERY_ACTIVATION
def test_backprop_displacement_uses_the_weights_of_today_at_the_stored_input(activation, dtype):
    layers, learned, reference = setting(rule("backprop"), activation, dtype, delay=1)
    moved(layers)
    today = Reference(layers, list(reference.options.values()), rule("backprop"))
    for l in (4, 3, 2):
        x = reference.h[l - 1, 0].clone().requires_grad_()
        delta = reference.delta[l, 0]
        (expected,) = torch.autograd.grad((today.f(l, x) * delta).sum(), x)
        found = learned.propagate(layers[l - 1], x.detach(), reference.h[l, 0], delta, call(l))
        assert_near(found, expected)


def test_displacements_do_not_write_to_what_they_are_given():
    for name in ("dtp", "tp", "backprop"):
        layers, learned, reference = setting(rule(name))
        for l in (4, 3, 2):
            given = [reference.h[l - 1, 0], reference.h[l, 0], reference.delta[l, 0]]
            before = [tensor.clone() for tensor in given]
            learned.propagate(layers[l - 1], *given, call(l))
            learned.forward_step(layers[l - 1], *given, call(l))
            if name != "backprop" and l < 4:
                learned.inverse_step(layers[l - 1], given[0], given[1], 0.3, call(l).inverse(0))
            assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


# Forward updates


@BOTH_TYPES
@EVERY_ACTIVATION
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["dtp", "tp"])
def test_forward_step_without_delay(name, variant, activation, dtype):
    """With nothing updated since F, current and stored Jacobians and both anchors are one formula."""
    layers, learned, reference = setting(rule(name, **VARIANTS[variant]), activation, dtype)
    for l in (1, 2, 3):
        layer, h_in, h_out = layers[l - 1], reference.h[l - 1, 0], reference.h[l, 0]
        delta = reference.delta[l, 0]
        mine = [parameter.detach().clone().requires_grad_() for parameter in layer.f.parameters()]
        y = ACTIVATIONS[activation](h_in @ mine[0].T + mine[1])
        loss = (y - (y + delta).detach()).square().sum(1).sum() / BATCH
        step = learned.forward_step(layer, h_in, h_out, delta, call(l))
        assert_near(step.loss, loss.detach())
        for found, expected in zip(step.gradients, torch.autograd.grad(loss, mine), strict=True):
            assert_near(found, expected)


@BOTH_TYPES
@EVERY_ACTIVATION
@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_step_with_weights_moved_since_f(variant, activation, dtype):
    layers, learned, reference = setting(rule("dtp", **VARIANTS[variant]), activation, dtype, delay=1)
    moved(layers)
    for l in (1, 2, 3):
        layer, h_in, h_out = layers[l - 1], reference.h[l - 1, 0], reference.h[l, 0]
        delta, act = reference.delta[l, 0], ACTIVATIONS[activation]
        mine = [parameter.detach().clone().requires_grad_() for parameter in layer.f.parameters()]
        y = act(h_in @ mine[0].T + mine[1])
        anchor = h_out if variant == "stale" else y.detach()
        loss = (y - (anchor + delta)).square().sum() / BATCH
        if variant == "stored" and KNOWN[activation].of_output:
            z = reference.z[l, 0].clone().requires_grad_()
            (slope,) = torch.autograd.grad(act(z).sum(), z)
            cotangent = -2 / BATCH * delta * slope
            expected = [torch.einsum("bo,bi->oi", cotangent, h_in), torch.einsum("bo->o", cotangent)]
        else:
            expected = torch.autograd.grad(loss, mine)
        step = learned.forward_step(layer, h_in, h_out, delta, call(l))
        assert_near(step.loss, loss.detach())
        for found, one in zip(step.gradients, expected, strict=True):
            assert_near(found, one)


def test_stored_and_current_jacobian_differ_once_weights_have_moved_and_only_then():
    found = {}
    for variant in ("current", "stored"):
        layers, learned, reference = setting(rule("dtp", **VARIANTS[variant]), delay=1)
        given = (reference.h[0, 0], reference.h[1, 0], reference.delta[1, 0])
        before = learned.forward_step(layers[0], *given, call(1)).gradients[0]
        moved(layers)
        found[variant] = before, learned.forward_step(layers[0], *given, call(1)).gradients[0]
    assert_near(found["stored"][0], found["current"][0])
    assert_near(found["stored"][1], found["stored"][0])
    assert (found["current"][1] - found["stored"][1]).abs().max() > 0.05 * found["stored"][1].abs().max()


@BOTH_TYPES
@pytest.mark.parametrize("name", ["dtp", "tp", "backprop"])
def test_output_layer_is_trained_by_its_own_gradient(name, dtype):
    layers, learned, reference = setting(rule(name), dtype=dtype)
    h_in, h_out = reference.h[3, 0], reference.h[4, 0]
    delta = learned.output(h_out, reference.labels[0], CROSS_ENTROPY)
    mine = [parameter.detach().clone().requires_grad_() for parameter in layers[3].f.parameters()]
    loss = cross_entropy(h_in @ mine[0].T + mine[1], reference.labels[0])
    step = learned.forward_step(layers[3], h_in, h_out, delta, call(4))
    for found, expected in zip(step.gradients, torch.autograd.grad(loss, mine), strict=True):
        assert_near(found, expected)
    assert_near(step.loss, delta.square().sum() / BATCH)


@BOTH_TYPES
@EVERY_ACTIVATION
def test_backprop_lowers_the_product_with_the_displacement(activation, dtype):
    layers, learned, reference = setting(rule("backprop"), activation, dtype, delay=1)
    moved(layers)
    for l in (1, 2, 3):
        layer, h_in, delta = layers[l - 1], reference.h[l - 1, 0], reference.delta[l, 0]
        mine = [parameter.detach().clone().requires_grad_() for parameter in layer.f.parameters()]
        loss = -(ACTIVATIONS[activation](h_in @ mine[0].T + mine[1]) * delta).sum()
        step = learned.forward_step(layer, h_in, reference.h[l, 0], delta, call(l))
        for found, expected in zip(step.gradients, torch.autograd.grad(loss, mine), strict=True):
            assert_near(found, expected)


# Inverse updates


@BOTH_TYPES
@EVERY_ACTIVATION
@pytest.mark.parametrize("inverse", ACTIVATIONS)
def test_inverse_step(inverse, activation, dtype):
    options = dense(activation=activation, inverse=inverse)
    layers = build(options, rule("dtp"), dtype=dtype)
    learned = rule("dtp").build(4)
    reference = Reference(layers, options, rule("dtp"))
    reference.forward(6, *minibatch(6, dtype=dtype))
    for l, iteration in ((2, 0), (3, 4)):
        h_in, h_out = reference.h[l - 1, 6], reference.h[l, 6]
        noisy = h_in + noise(l, 6, iteration, h_in, 0.4)
        weight, bias = (each.detach().clone() for each in layers[l - 1].f.parameters())
        mine = [parameter.detach().clone().requires_grad_() for parameter in layers[l - 1].g.parameters()]
        y = ACTIVATIONS[activation](noisy @ weight.T + bias)
        loss = (ACTIVATIONS[inverse](y @ mine[0].T + mine[1]) - noisy).square().sum() / BATCH
        step = learned.inverse_step(layers[l - 1], h_in, h_out, 0.4, call(l, 6).inverse(iteration))
        assert_near(step.loss, loss.detach())
        for found, expected in zip(step.gradients, torch.autograd.grad(loss, mine), strict=True):
            assert_near(found, expected)


@BOTH_TYPES
@pytest.mark.parametrize("name", ["dtp", "tp"])
def test_inverse_iterations_each_with_fresh_noise_and_moved_weights(name, dtype):
    layers, _, reference = setting(rule(name), dtype=dtype, iterations=3)
    (stage,) = stages(layers, rule(name))
    before = values(layers)
    stage.forward(0, *minibatch(dtype=dtype))
    stage.inverse(0)
    reference.inverse(0)
    changed = 0
    for old, new, expected in zip(before, values(layers), reference.parameters(), strict=True):
        if torch.equal(expected, old):
            assert torch.equal(new, old), "only inverses learn"
        else:
            assert_near(new - old, expected - old)
            changed += 1
    assert changed == 4
    means = stage.meter.means()
    for l in (2, 3):
        assert means[f"layer/{l}/inverse_loss"] == pytest.approx(
            reference.losses[l, "inverse"].item(), rel=tolerance()
        )


def test_which_inverses_exist():
    assert list(rule("dtp").build(5).inverses()) == [2, 3, 4]
    assert list(rule("tp").build(5).inverses()) == [2, 3, 4]
    assert list(rule("backprop").build(5).inverses()) == []
    layers = build(dense(), rule("dtp"))
    assert [layer.inverse is not None for layer in layers] == [False, True, True, False]
    assert all(layer.inverse is None for layer in build(dense(), rule("backprop")))


def test_stale_anchor_with_a_stored_jacobian_is_refused():
    with pytest.raises(RangeError, match="write current"):
        rule("dtp", anchor="stale", jacobian="stored")
    assert rule("dtp").stores_jacobian
    assert not rule("dtp", anchor="stale").stores_jacobian


# Whole training steps


@BOTH_TYPES
@EVERY_ACTIVATION
@pytest.mark.parametrize("name", ["dtp", "tp", "backprop"])
def test_a_whole_step_changes_every_weight_by_its_gradient(name, activation, dtype):
    layers, _, reference = setting(rule(name), activation, dtype)
    before = values(layers)
    (stage,) = stages(layers, rule(name))
    exact_step([stage], 0, *minibatch(dtype=dtype))
    reference.inverse(0)
    reference.target(0)
    reference.update(0)
    assert len(before) == (8 if name == "backprop" else 12)
    for old, new, expected in zip(before, values(layers), reference.parameters(), strict=True):
        assert_near(new - old, expected - old)
    means = stage.meter.means()
    for l in (1, 2, 3) if name != "backprop" else ():
        assert means[f"layer/{l}/forward_loss"] == pytest.approx(
            reference.losses[l, "forward"].item(), rel=tolerance()
        )
    for l in (1, 2, 3, 4):
        ratio = reference.delta[l, 0].norm() / reference.h[l, 0].norm()
        assert means[f"layer/{l}/displacement"] == pytest.approx(ratio.item(), rel=tolerance())
    logits, labels = reference.h[4, 0], reference.labels[0]
    assert means["loss"] == pytest.approx(cross_entropy(logits, labels).item(), rel=tolerance())
    wrong = (logits.argmax(1) != labels).double().mean().item()
    assert means["error"] == pytest.approx(100 * wrong)


@BOTH_TYPES
def test_linear_network_with_transposed_inverses_takes_a_multiple_of_backpropagations_step(dtype):
    """delta_l = -eta dLoss/dh_l then, and each hidden loss doubles it and divides by B: 2 eta / B."""
    eta, options = 0.8, dense(activation="linear", inverse="linear", iterations=0, bias=False)
    layers = build(options, rule("dtp", target_step=eta), dtype=dtype)
    for layer in layers[1:-1]:
        with torch.no_grad():
            layer.g.module.weight.copy_(layer.f.module.weight.t())
    network = nn.Sequential(*[copy.deepcopy(layer.f.module) for layer in layers])
    x, labels = minibatch(dtype=dtype)
    cross_entropy(network(x), labels).backward()
    before = [layer.f.module.weight.detach().clone() for layer in layers]
    exact_step(stages(layers, rule("dtp", target_step=eta)), 0, x, labels)
    for layer, old, linear in zip(layers, before, network, strict=True):
        factor = 1.0 if layer.is_output else 2 * eta / BATCH
        assert_near(layer.f.module.weight.detach() - old, -factor * linear.weight.grad)


OPTIMIZERS = {
    "sgd": (
        SGDOptions(lr=0.3, momentum=0.9, weight_decay=1e-3),
        lambda given: torch.optim.SGD(given, lr=0.3, momentum=0.9, weight_decay=1e-3),
    ),
    "adam": (AdamOptions(lr=0.01), lambda given: torch.optim.Adam(given, lr=0.01)),
}


@BOTH_TYPES
@EVERY_ACTIVATION
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_backprop_as_a_rule_is_loss_backward_on_the_sequential(optimizer, activation, dtype):
    mine, make = OPTIMIZERS[optimizer]
    layers = build(dense(activation=activation), rule("backprop"), forward=mine, dtype=dtype)
    modules = [module for layer in layers for module in layer.f.torch_modules()]
    assert len(modules) == (4 if activation == "linear" else 7)
    network = copy.deepcopy(nn.Sequential(*modules))
    theirs = make(network.parameters())
    before = values(layers)
    parts = stages(layers, rule("backprop"), [1, 3])
    for k in range(6):
        x, labels = minibatch(k, dtype=dtype)
        theirs.zero_grad()
        loss = cross_entropy(network(x), labels)
        loss.backward()
        theirs.step()
        exact_step(parts, k, x, labels)
        assert parts[-1].meter.take().means()["loss"] == pytest.approx(loss.item(), rel=tolerance())
    for old, new, expected in zip(before, values(layers), network.parameters(), strict=True):
        assert_near(new - old, expected.detach() - old)
