"""Stages: any order of actions, any partition, several minibatches in flight, and what each action keeps."""

import pytest
import torch
from closeness import assert_near
from torch import nn
from torch.nn.functional import cosine_similarity

from dtp_dist.algorithm.delay import DelayOptions
from dtp_dist.algorithm.layers import BoundInstance, InverseOptions, ModuleOptions
from dtp_dist.algorithm.optimizers.kinds import OPTIMIZERS, AdamOptions, SGDOptions
from dtp_dist.algorithm.state import layer_state
from dtp_dist.errors import NonFiniteError
from dtp_dist.phase import Phase
from networks import (
    BATCH,
    SIZES,
    Reference,
    build,
    dense,
    exact_step,
    minibatch,
    parameters,
    rule,
    same_bits,
    stages,
    values,
)

DEEP = (6, 5, 4, 5, 4, 3)
VARIANTS = {
    "current": {"anchor": "current", "jacobian": "current"},
    "stored": {"anchor": "current", "jacobian": "stored"},
    "stale": {"anchor": "stale", "jacobian": "current"},
}


def with_module(kind: str, sizes=SIZES, iterations: int = 1):
    """Dense layers, the second one a user's pair of modules."""
    options = dense(sizes, iterations=iterations)
    options[1] = ModuleOptions(kind=f"networks:{kind}", inverse=InverseOptions(iterations=iterations))
    return options


# Any partition


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dtp", "tp", "backprop"])
@pytest.mark.parametrize("kind", [None, "normalized_pair", "dropout_pair"])
def test_any_partition_gives_the_same_bits(kind, name):
    found = []
    for split in ([5], [2, 3], [1, 2, 2], [1, 1, 1, 1, 1]):
        options = dense(DEEP, iterations=2) if kind is None else with_module(kind, DEEP, iterations=2)
        optimizers = {"forward": AdamOptions(lr=0.01), "inverse": SGDOptions(lr=0.05, momentum=0.9)}
        layers = build(options, rule(name), dtype=torch.float32, **optimizers)
        parts = stages(layers, rule(name), split)
        for k in range(4):
            exact_step(parts, k, *minibatch(k, dtype=torch.float32))
        buffers = [buffer for layer in layers for m in layer.modules().values() for buffer in m.buffers()]
        found.append([*values(layers), *buffers])
    assert all(same_bits(found[0], other) for other in found[1:])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_any_partition_gives_the_same_bits_with_any_optimizer_and_unequal_iterations(optimizer):
    """Layers of one stage may share an optimizer; those that rest in an iteration must not move in it."""
    found = []
    for split in ([5], [3, 2], [1, 1, 1, 1, 1]):
        options = dense(DEEP, iterations=1)
        options[2] = dense(DEEP, iterations=3)[2]
        rates = OPTIMIZERS[optimizer](lr=0.02)
        layers = build(options, rule("dtp"), forward=rates, inverse=rates, dtype=torch.float32)
        parts = stages(layers, rule("dtp"), split)
        for k in range(3):
            exact_step(parts, k, *minibatch(k, dtype=torch.float32))
        found.append(values(layers))
    assert all(same_bits(found[0], other) for other in found[1:])


def test_waves_and_interleaved_actions_give_the_same_bits():
    """All F, then all I, then all T, then all U, or each stage as soon as it can: one algorithm."""
    layers = build(dense(DEEP), rule("dtp"), dtype=torch.float32)
    parts = stages(layers, rule("dtp"), [1, 2, 2])
    others = build(dense(DEEP), rule("dtp"), dtype=torch.float32)
    waves = stages(others, rule("dtp"), [1, 2, 2])
    for k in range(3):
        x, labels = minibatch(k, dtype=torch.float32)
        exact_step(parts, k, x, labels)
        for stage in waves:
            x = stage.forward(k, x, labels)
        for stage in waves:
            stage.inverse(k)
        delta = None
        for stage in reversed(waves):
            delta = stage.target(k, delta)
        for stage in waves:
            stage.update(k)
    assert same_bits(values(layers), values(others))


# Several minibatches in flight


def follow(actions: str, parts, reference: Reference) -> None:
    """Run ``0F0 1F0 1I0 ...`` (stage, action, minibatch) on stages and on the reference alike."""
    spans = [[layer.index for layer in stage.layers] for stage in parts]
    h: dict[tuple[int, int], torch.Tensor] = {}
    deltas: dict[tuple[int, int], torch.Tensor] = {}
    for s, kind, k in ((int(action[0]), action[1], int(action[2])) for action in actions.split()):
        stage, span = parts[s], spans[s]
        if kind == "F":
            x, labels = minibatch(k)
            h[s, k] = stage.forward(k, h[s - 1, k].clone() if s else x, labels)
            reference.forward(k, x, labels, span)
        elif kind == "I":
            stage.inverse(k)
            reference.inverse(k, span)
        elif kind == "T":
            deltas[s, k] = stage.target(k, deltas.get((s + 1, k)))
            reference.target(k, span)
        else:
            stage.update(k)
            reference.update(k, span)


@pytest.mark.parametrize("variant", [*VARIANTS, "tp", "backprop"])
@pytest.mark.parametrize("activation", ["tanh", "elu"])
def test_two_minibatches_in_flight_each_use_their_own_stored_tensors(activation, variant):
    learned = rule("dtp", **VARIANTS[variant]) if variant in VARIANTS else rule(variant)
    options = dense(activation=activation, inverse=activation, iterations=2)
    layers = build(options, learned, delay=1)
    before, reference = values(layers), Reference(layers, options, learned)
    (stage,) = parts = stages(layers, learned)
    follow("0F0 0I0 0F1 0I1", parts, reference)
    assert stage.in_flight == 2
    follow("0T0 0U0", parts, reference)
    assert stage.in_flight == 1
    follow("0T1 0U1", parts, reference)
    assert stage.in_flight == 0
    for old, new, expected in zip(before, values(layers), reference.parameters(), strict=True):
        assert_near(new - old, expected - old)


@pytest.mark.parametrize("variant", [*VARIANTS, "tp", "backprop"])
def test_a_pipeline_of_two_stages_follows_the_formulas_at_its_own_delays(variant):
    learned = rule("dtp", **VARIANTS[variant]) if variant in VARIANTS else rule(variant)
    options = dense()
    layers = build(options, learned, delay=[1, 1, 0, 0])
    before, reference = values(layers), Reference(layers, options, learned)
    parts = stages(layers, learned, [2, 2])
    lower = ["0F0 0I0 0F1 0I1", "0T0 0U0 0F2 0I2", "0T1 0U1 0F3 0I3", "0T2 0U2", "0T3 0U3"]
    upper = [f"1F{k} 1I{k} 1T{k} 1U{k}" for k in range(4)]
    order = " ".join(part for pair in zip(lower, [*upper, ""], strict=True) for part in pair)
    follow(order, parts, reference)
    assert [stage.in_flight for stage in parts] == [0, 0]
    for old, new, expected in zip(before, values(layers), reference.parameters(), strict=True):
        assert_near(new - old, expected - old)


def test_anchors_and_jacobians_are_one_algorithm_without_delay_and_three_with_it():
    def run(order: str, delay: int):
        found = []
        for settings in VARIANTS.values():
            layers = build(dense(), rule("dtp", **settings), delay=delay)
            reference = Reference(layers, dense(), rule("dtp", **settings))
            follow(order, stages(layers, rule("dtp", **settings)), reference)
            found.append(values(layers)[0])
        return found

    exact = run("0F0 0I0 0T0 0U0 0F1 0I1 0T1 0U1", 0)
    assert same_bits(exact[:1] * 2, exact[1:])
    current, stored, stale = run("0F0 0I0 0F1 0I1 0T0 0U0 0T1 0U1", 1)
    largest = current.abs().max()
    for one, other in ((current, stored), (current, stale), (stored, stale)):
        assert (one - other).abs().max() > 1e-4 * largest


def test_forward_rate_is_scaled_by_delay_and_the_inverse_rate_is_not():
    def change(delay: int, power: float):
        layers = build(dense(), rule("dtp", jacobian="stored"), delay=delay)
        before = values(layers)
        exact_step(stages(layers, rule("dtp", jacobian="stored"), delay_power=power), 0, *minibatch())
        return [new - old for new, old in zip(values(layers), before, strict=True)]

    sides = [side for layer in build(dense(), rule("dtp")) for side in layer.modules() for _ in range(2)]
    plain = change(0, 0.5)
    for delay, power, factor in ((3, 0.5, 0.5), (1, 1.0, 0.5), (7, 0.0, 1.0), (4, 2.0, 0.04)):
        for side, one, other in zip(sides, plain, change(delay, power), strict=True):
            assert_near(other, one * (factor if side == "forward" else 1.0))


ADAM = AdamOptions(lr=0.01)


def trained_once(forward=ADAM, **settings):
    """A stage of delay 3 after one minibatch, its layers, and each parameter's change in that minibatch."""
    layers = build(dense(), rule("dtp"), forward=forward, delay=3)
    before = forward_values(layers)
    (stage,) = stages(layers, rule("dtp"), **settings)
    exact_step([stage], 0, *minibatch())
    return stage, layers, [new - old for new, old in zip(forward_values(layers), before, strict=True)]


def forward_values(layers):
    return [parameter.detach().clone() for layer in layers for parameter in layer.f.module.parameters()]


@pytest.mark.parametrize("lookahead", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("forward", [ADAM, SGDOptions(lr=0.05, momentum=0.9), SGDOptions(lr=0.05)], ids=repr)
def test_forward_looks_as_many_of_its_last_steps_ahead_as_minibatches_are_in_flight(forward, lookahead):
    stage, layers, steps = trained_once(forward, lookahead=lookahead, delay_power=0.5)
    if forward == SGDOptions(lr=0.05):
        lookahead = 0.0  # without momentum
    weights = forward_values(layers)
    for in_flight in range(4):
        h, labels = minibatch(1 + in_flight)
        found = stage.forward(1 + in_flight, h, labels)
        there = [w + lookahead * in_flight * step for w, step in zip(weights, steps, strict=True)]
        for weight, bias in zip(there[:-2:2], there[1:-2:2], strict=True):
            h = torch.tanh(h @ weight.T + bias)
        assert_near(found, h @ there[-2].T + there[-1])
    assert same_bits(weights, forward_values(layers)), "looking ahead moves nothing"


@pytest.mark.parametrize(
    ("phase", "looks"), [(Phase.BOTH, True), (Phase.FORWARD, True), (Phase.INVERSE, False)]
)
def test_only_a_forward_pass_that_an_update_follows_looks_ahead(phase, looks):
    stage, _, _ = trained_once(lookahead=1.0)
    stage.begin(Phase.EVALUATE, 0)
    today = stage.forward(2, *minibatch(2))
    stage.begin(phase, 0)
    stage.forward(1, *minibatch(1))
    assert torch.equal(stage.forward(2, *minibatch(2)), today) == (not looks)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_delay_lengthens_the_memory_of_forward_adam_alone(name):
    """Delay 3 and q = 1/2: beta1 0.9 remembers 10 gradients, 0.95 twice as many."""
    found = []
    for beta1, delay in ((0.9, 3), (0.95, 0)):
        forward, inverse = OPTIMIZERS[name](lr=0.01, beta1=beta1), OPTIMIZERS[name](lr=0.01)
        layers = build(dense(), rule("dtp", jacobian="stored"), forward=forward, inverse=inverse, delay=delay)
        parts = stages(layers, rule("dtp", jacobian="stored"), delay_memory=0.5)
        for k in range(4):
            exact_step(parts, k, *minibatch(k))
        found.append(values(layers))
    for one, other in zip(*found, strict=True):
        assert_near(one, other)


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "centred_rmsprop"])
def test_optimizers_without_an_average_of_gradients_keep_their_memory(name):
    options = OPTIMIZERS[name](lr=0.01)
    assert options.with_memory(4.0) == options


def test_without_delay_no_remedy_changes_a_bit_or_keeps_anything():
    found = []
    for strength in (0.0, 1.0):
        layers = build(dense(), rule("dtp"), forward=ADAM)
        remedies = dict.fromkeys(("delay_power", "delay_memory", "lookahead"), strength)
        parts = stages(layers, rule("dtp"), [2, 2], **remedies)
        for k in range(3):
            exact_step(parts, k, *minibatch(k))
        assert not any(name.endswith(".before") for layer in layers for name in layer_state(layer))
        found.append(values(layers))
    assert same_bits(*found)


# What is kept, and what is not


def test_evaluation_keeps_nothing_and_changes_nothing():
    layers = build(with_module("normalized_pair"), rule("dtp"), dtype=torch.float32)
    before = [*values(layers), *(buffer.clone() for buffer in layers[1].f.module.buffers())]
    (stage,) = stages(layers, rule("dtp"))
    stage.begin(Phase.EVALUATE, 0)
    for k in range(3):
        stage.forward(k, *minibatch(k, dtype=torch.float32))
    assert stage.in_flight == 0
    assert same_bits(before, [*values(layers), *layers[1].f.module.buffers()])
    assert set(stage.meter.means()) == {"loss", "error"}
    assert stage.meter.weight("loss") == 3 * BATCH
    stage.begin(Phase.BOTH, 0)


def test_an_inverse_phase_updates_inverses_alone_and_leaves_nothing_in_flight():
    layers = build(dense(), rule("dtp"))
    (stage,) = stages(layers, rule("dtp"))
    before = values(layers)
    stage.begin(Phase.INVERSE, 0)
    stage.forward(0, *minibatch())
    assert stage.in_flight == 1
    stage.inverse(0)
    assert stage.in_flight == 0
    sides = [side for layer in layers for side in layer.modules() for _ in range(2)]
    for side, old, new in zip(sides, before, values(layers), strict=True):
        assert torch.equal(old, new) == (side == "forward")
    assert set(stage.meter.means()) == {"layer/2/inverse_loss", "layer/3/inverse_loss"}


def test_a_forward_phase_updates_forward_maps_alone():
    layers = build(dense(), rule("dtp"))
    (stage,) = stages(layers, rule("dtp"))
    before = values(layers)
    stage.begin(Phase.FORWARD, 0)
    stage.forward(0, *minibatch())
    assert stage.target(0, None) is None
    stage.update(0)
    assert stage.in_flight == 0
    sides = [side for layer in layers for side in layer.modules() for _ in range(2)]
    for side, old, new in zip(sides, before, values(layers), strict=True):
        assert torch.equal(old, new) == (side == "inverse")


def test_a_stage_says_which_layer_is_at_work_before_its_first_action_too():
    """A stage that froze there was in layer 0, which there is not."""
    layers = build(dense(), rule("dtp"))
    parts = stages(layers, rule("dtp"), [2, 2])
    assert [part.now for part in parts] == [1, 3]
    exact_step(parts, 0, *minibatch())
    assert [part.now for part in parts] == [2, 4], "the last whose forward map was updated"


def test_begin_refuses_a_full_pipeline_and_abandon_empties_it():
    (stage,) = stages(build(dense(), rule("dtp")), rule("dtp"))
    stage.forward(3, *minibatch())
    with pytest.raises(AssertionError, match="3"):
        stage.begin(Phase.BOTH, 1)
    stage.abandon()
    assert stage.in_flight == 0
    stage.begin(Phase.BOTH, 1)


def test_stages_know_where_they_are():
    first, middle, last = stages(build(dense(), rule("dtp")), rule("dtp"), [1, 2, 1])
    assert [stage.first for stage in (first, middle, last)] == [True, False, False]
    assert [stage.last for stage in (first, middle, last)] == [False, False, True]


def test_only_the_last_stage_measures_the_output():
    layers = build(dense(), rule("dtp"))
    parts = stages(layers, rule("dtp"), [2, 2])
    exact_step(parts, 0, *minibatch())
    assert "loss" not in parts[0].meter.means()
    assert {"loss", "error", "layer/3/inverse_loss", "layer/4/forward_loss"} <= set(parts[1].meter.means())


def test_the_last_minibatch_of_an_epoch_may_be_smaller():
    options = dense()
    layers = build(options, rule("dtp"))
    before, reference = values(layers), Reference(layers, options, rule("dtp"))
    x, labels = (tensor[:2] for tensor in minibatch())
    exact_step(stages(layers, rule("dtp")), 0, x, labels)
    reference.forward(0, x, labels)
    reference.inverse(0)
    reference.target(0)
    reference.update(0)
    for old, new, expected in zip(before, values(layers), reference.parameters(), strict=True):
        assert_near(new - old, expected - old)


# Nothing silent


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_weight_of_a_hidden_layer_is_named_with_its_minibatch(bad):
    layers = build(dense(activation="relu", inverse="linear"), rule("dtp"))
    parts = stages(layers, rule("dtp"), [3, 1])
    with torch.no_grad():
        layers[1].f.module.bias.fill_(bad)
    with pytest.raises(NonFiniteError, match="layer 2, minibatch 5: the inverse loss"):
        exact_step(parts, 5, *minibatch())


def test_a_broken_output_is_named_with_its_minibatch():
    layers = build(dense(), rule("backprop"))
    with torch.no_grad():
        layers[3].f.module.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="layer 4, minibatch 9: the output loss is nan"):
        exact_step(stages(layers, rule("backprop"), [2, 2]), 9, *minibatch())


def test_a_broken_displacement_is_named_with_its_minibatch():
    layers = build(dense(), rule("dtp"))
    (stage, _) = stages(layers, rule("dtp"), [2, 2])
    stage.forward(4, *minibatch())
    stage.target(4, torch.full((BATCH, SIZES[2]), float("inf"), dtype=torch.float64))
    with pytest.raises(NonFiniteError, match=r"layer 2, minibatch 4: the forward loss|layer 1, minibatch 4"):
        stage.update(4)


def test_weights_that_explode_stop_the_run():
    rates = {"forward": SGDOptions(lr=1e30), "inverse": SGDOptions(lr=1e30)}
    layers = build(dense(activation="linear", inverse="linear"), rule("dtp"), dtype=torch.float32, **rates)
    parts = stages(layers, rule("dtp"))

    def train():
        for k in range(10):
            exact_step(parts, k, *minibatch(k, dtype=torch.float32))

    with pytest.raises(NonFiniteError, match=r"layer \d, minibatch \d: the \w+ loss is (nan|inf)"):
        train()


# Batch statistics


def test_batch_statistics_change_once_in_every_f_and_in_nothing_else():
    layers = build(with_module("normalized_pair", iterations=3), rule("dtp"), delay=1)
    (stage,) = stages(layers, rule("dtp"))
    forward, inverse = layers[1].f.module[1], layers[1].g.module[1]
    mean, variance = torch.zeros(4).double(), torch.ones(4).double()
    for k in range(3):
        x, labels = minibatch(k)
        z = layers[1].f.module[0](torch.tanh(layers[0].f.module(x))).detach()
        mean, variance = 0.9 * mean + 0.1 * z.mean(0), 0.9 * variance + 0.1 * z.var(0)
        actions = [
            lambda k=k, x=x, labels=labels: stage.forward(k, x, labels),
            lambda k=k: stage.inverse(k),
            lambda k=k: stage.target(k, None),
            lambda k=k: stage.update(k),
        ]
        for action in actions:
            action()
            assert forward.num_batches_tracked == k + 1
            assert_near(forward.running_mean, mean)
            assert_near(forward.running_var, variance)
    assert inverse.num_batches_tracked == 0, "an inverse has no F"
    assert torch.equal(inverse.running_mean, torch.zeros(5).double())
    stage.begin(Phase.EVALUATE, 0)
    x, labels = minibatch(7)
    found = stage.forward(0, x, labels)
    network = nn.Sequential(*[module for layer in layers for module in layer.f.torch_modules()]).eval()
    assert_near(found, network(x).detach())
    assert forward.num_batches_tracked == 3


# Random numbers of a user's module


def test_dropout_has_one_mask_a_minibatch_and_leaves_the_global_stream_alone():
    layers = build(with_module("dropout_pair"), rule("dtp"), delay=1)
    dropped: list[torch.Tensor] = []
    layers[1].f.module[1].register_forward_hook(lambda module, given, out: dropped.append(out == 0))
    (stage,) = stages(layers, rule("dtp"))
    torch.manual_seed(12)
    state = torch.get_rng_state()
    masks = {}
    for k in (0, 1):
        stage.forward(k, *minibatch(k))
        masks[k] = dropped.pop()
        stage.inverse(k)
    dropped.clear()
    for k in (0, 1):
        stage.target(k, None)
        stage.update(k)
        assert torch.equal(dropped.pop(), masks[k])
        assert not dropped
    assert not torch.equal(masks[0], masks[1])
    assert 0 < masks[0].sum() < masks[0].numel()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_module_that_changes_its_input_in_place_is_an_error():
    layers = build(with_module("inplace_pair"), rule("dtp"))
    with pytest.raises(RuntimeError, match="in place"):
        exact_step(stages(layers, rule("dtp")), 0, *minibatch())


def test_an_inverse_that_changes_its_input_in_place_is_an_error():
    pair = (nn.Linear(5, 4), nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 5)))
    options = dense()
    options[1] = BoundInstance(pair=pair, inverse=InverseOptions(iterations=0))
    layers = build(options, rule("dtp"))
    with pytest.raises(RuntimeError, match="in place"):
        exact_step(stages(layers, rule("dtp")), 0, *minibatch())


def test_a_frozen_parameter_of_a_users_module_stays_as_it_is():
    pair = (nn.Sequential(nn.Linear(5, 4), nn.Tanh()), nn.Linear(4, 5))
    pair[0][0].bias.requires_grad_(False)
    options = dense()
    options[1] = BoundInstance(pair=pair)
    layers = build(options, rule("dtp"))
    bias, weight = pair[0][0].bias.clone(), pair[0][0].weight.detach().clone()
    exact_step(stages(layers, rule("dtp")), 0, *minibatch())
    assert torch.equal(pair[0][0].bias, bias)
    assert not torch.equal(pair[0][0].weight, weight)


# bfloat16


@pytest.mark.parametrize("kind", [None, "plain_pair"])
@pytest.mark.parametrize("name", ["dtp", "tp", "backprop"])
def test_bfloat16_activations_give_float32_weights_nearly_the_same_step(name, kind):
    """A displacement may be shorter than bfloat16 resolves of the activation it is added to."""
    changes = []
    for dtype in (torch.float32, torch.bfloat16):
        learned = {} if name == "backprop" else {"target_step": 0.33}
        options = dense(sigma=0.0)
        if kind:
            options[1] = ModuleOptions(kind=f"networks:{kind}", inverse=InverseOptions(sigma=0.0))
        layers = build(options, rule(name, **learned), dtype=torch.float32, scrambled=False)
        before = values(layers)
        x, labels = minibatch(dtype=torch.float32)
        (stage,) = stages(layers, rule(name, **learned))
        assert stage.forward(0, x.to(dtype), labels).dtype is dtype
        stage.inverse(0)
        stage.target(0, None)
        stage.update(0)
        assert all(parameter.dtype is torch.float32 for parameter in parameters(layers))
        changes.append([new - old for new, old in zip(values(layers), before, strict=True)])
    for exact, rounded in zip(*changes, strict=True):
        assert rounded.isfinite().all()
        assert cosine_similarity(exact.flatten(), rounded.flatten(), dim=0) > 0.99
        assert rounded.norm() / exact.norm() == pytest.approx(1.0, abs=0.05)


def test_bfloat16_resolves_displacements_far_shorter_than_the_activations():
    """784-7x240-10 at eta 0.33 and batch 100 has displacements of 0.001 to 0.003 of the activations."""
    sizes, changes = (6, 32, 32, 32, 32, 3), []
    for dtype in (torch.float32, torch.bfloat16):
        learned = rule("dtp", target_step=0.03)
        layers = build(dense(sizes, sigma=0.0), learned, dtype=torch.float32, scrambled=False)
        before = values(layers)
        x, labels = minibatch(dtype=torch.float32)
        (stage,) = stages(layers, learned)
        exact_step([stage], 0, x.to(dtype), labels)
        assert 1e-4 < stage.meter.means()["layer/1/displacement"] < 4e-3
        changes.append([new - old for new, old in zip(values(layers), before, strict=True)])
    for exact, rounded in zip(*changes, strict=True):
        assert cosine_similarity(exact.flatten(), rounded.flatten(), dim=0) > 0.99


def test_bfloat16_displacements_travel_as_bfloat16():
    parts = stages(build(dense(), rule("dtp"), dtype=torch.float32), rule("dtp"), [2, 2])
    x, labels = minibatch(dtype=torch.bfloat16)
    h = x
    for stage in parts:
        h = stage.forward(0, h, labels)
    assert parts[1].target(0, None).dtype is torch.bfloat16


def test_two_in_flight_do_not_look_ahead_and_more_do():
    remedies = DelayOptions(lookahead=0.7, delay_power=0.4, delay_memory=0.2)
    assert remedies.at_depth(3) == remedies
    assert remedies.at_depth(2) == DelayOptions(lookahead=0.0, delay_power=0.4, delay_memory=0.2)
