"""Optimizers: the paper's centred RMSprop by hand, torch's by comparison, and the learning rate they get."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from closeness import CHAIN, assert_near
from torch import nn

from dtp_dist.algorithm.layers import ModuleOptions
from dtp_dist.algorithm.layers.base import LayerOptimizers
from dtp_dist.algorithm.maps.base import ModuleMap
from dtp_dist.algorithm.optimizers.groups import OptimizedMap, OptimizerGroup
from dtp_dist.algorithm.optimizers.kept import kept_tensors, load_kept
from dtp_dist.algorithm.optimizers.kinds import (
    OPTIMIZERS,
    AdamOptions,
    AdamWOptions,
    CentredRMSprop,
    CentredRMSpropOptions,
    RMSpropOptions,
    SGDOptions,
)
from dtp_dist.algorithm.optimizers.schedules import Constant, Step
from dtp_dist.algorithm.options import RangeError
from dtp_dist.config.parse import parse_options
from dtp_dist.errors import ConfigError
from dtp_dist.phase import Phase
from networks import build, dense, exact_step, minibatch, parameters, rule, stages, values

LR = 0.05
STEPS = 8


def gradients(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    return [torch.randn(3, 4, generator=generator, dtype=torch.float64).to(dtype) for _ in range(STEPS)]


def trajectory(make, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Return the weights after each of ``STEPS`` steps at learning rate ``LR``."""
    parameter = nn.Parameter(torch.ones(3, 4, dtype=dtype))
    optimizer = make([parameter])
    optimizer.param_groups[0]["lr"] = LR
    found = []
    for gradient in gradients(dtype):
        parameter.grad = gradient.clone()
        optimizer.step()
        found.append(parameter.detach().clone())
    return found


def test_centred_rmsprop_is_the_published_formula():
    w, m, v, step = np.ones((3, 4)), np.zeros((3, 4)), np.zeros((3, 4)), np.zeros((3, 4))
    found = trajectory(CentredRMSpropOptions(lr=1.0).build)
    for gradient, mine in zip(gradients(), found, strict=True):
        g = gradient.numpy()
        m = 0.95 * m + 0.05 * g
        v = 0.95 * v + 0.05 * g**2
        step = 0.9 * step - LR * g / np.sqrt(v - m**2 + 0.001)
        w = w + step
        assert_near(mine, torch.from_numpy(w))


def test_centred_rmsprop_takes_its_own_constants():
    w, m, v, step = (np.zeros((3, 4)) for _ in range(4))
    options = CentredRMSpropOptions(lr=1.0, decay=0.8, momentum=0.5, eps=0.2)
    for gradient, mine in zip(gradients(), trajectory(options.build), strict=True):
        g = gradient.numpy()
        m, v = 0.8 * m + 0.2 * g, 0.8 * v + 0.2 * g * g
        step = 0.5 * step - LR * g / np.sqrt(v - m * m + 0.2)
        w = w + step
        assert_near(mine, torch.from_numpy(1 + w))


@pytest.mark.slow
def test_centred_rmsprop_is_not_torchs():
    ours = trajectory(CentredRMSpropOptions(lr=1.0).build)[-1]
    theirs = trajectory(
        lambda given: torch.optim.RMSprop(given, alpha=0.95, eps=0.001, momentum=0.9, centered=True)
    )[-1]
    assert (ours - theirs).abs().max() > 0.01


def test_centred_rmsprop_leaves_a_parameter_without_gradient_alone():
    still, moving = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = CentredRMSprop([still, moving], lr=0.1, decay=0.95, momentum=0.9, eps=0.001)
    moving.grad = torch.ones(2)
    assert optimizer.step(lambda: 4.5) == 4.5
    assert torch.equal(still, torch.ones(2))
    assert not torch.equal(moving, torch.ones(2))


TORCHS = {
    "sgd": (SGDOptions(lr=1.0), torch.optim.SGD, {}),
    "sgd, all set": (
        SGDOptions(lr=1.0, momentum=0.8, nesterov=True, weight_decay=0.01),
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
    ),
    "adam": (AdamOptions(lr=1.0), torch.optim.Adam, {}),
    "adam, all set": (
        AdamOptions(lr=1.0, beta1=0.7, beta2=0.9, eps=1e-3, weight_decay=0.01),
        torch.optim.Adam,
        {"betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.01},
    ),
    "adamw": (AdamWOptions(lr=1.0), torch.optim.AdamW, {}),
    "adamw, all set": (
        AdamWOptions(lr=1.0, beta1=0.7, beta2=0.9, eps=1e-3, weight_decay=0.1),
        torch.optim.AdamW,
        {"betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.1},
    ),
    "rmsprop": (RMSpropOptions(lr=1.0), torch.optim.RMSprop, {}),
    "rmsprop, all set": (
        RMSpropOptions(lr=1.0, alpha=0.8, eps=1e-3, momentum=0.5, centered=True, weight_decay=0.01),
        torch.optim.RMSprop,
        {"alpha": 0.8, "eps": 1e-3, "momentum": 0.5, "centered": True, "weight_decay": 0.01},
    ),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", TORCHS)
def test_options_build_torchs_optimizer(name, dtype):
    options, kind, settings = TORCHS[name]
    assert isinstance(options.build([nn.Parameter(torch.ones(2))]), kind)
    assert OPTIMIZERS[options.name] is type(options)
    mine = trajectory(options.build, dtype)
    theirs = trajectory(lambda given: kind(given, lr=LR, **settings), dtype)
    for left, right in zip(mine, theirs, strict=True):
        assert_near(left, right)


def test_every_option_is_among_the_optimizers():
    assert set(OPTIMIZERS) == {"sgd", "adam", "adamw", "rmsprop", "centred_rmsprop", "muon", "soap"}


@pytest.mark.parametrize(
    ("options", "raw", "key"),
    [
        (SGDOptions, {"lr": -0.1}, "lr"),
        (SGDOptions, {"lr": 0.1, "momentum": 1.0}, "momentum"),
        (SGDOptions, {"lr": 0.1, "nesterov": True}, "nesterov"),
        (AdamOptions, {"lr": 0.1, "beta2": 1.5}, "beta2"),
        (CentredRMSpropOptions, {"lr": 0.1, "eps": 0.0}, "eps"),
        (SGDOptions, {"lr": {"schedule": "cosin", "start": 1.0}}, "lr.schedule"),
    ],
)
def test_wrong_options_name_their_key(options, raw, key):
    with pytest.raises(ConfigError, match=f"^{key}: "):
        parse_options(options, raw)


def test_options_that_do_not_fit_one_another_are_refused_where_they_are_made():
    with pytest.raises(RangeError, match="needs a momentum") as error:
        SGDOptions(lr=0.1, nesterov=True)
    assert error.value.key == "nesterov"


# In a network


def changes(layers, before) -> list[torch.Tensor]:
    return [new - old for new, old in zip(values(layers), before, strict=True)]


def one_step(forward, inverse, *, epoch: int = 0, k: int = 0) -> list[torch.Tensor]:
    layers = build(dense(), rule("dtp"), forward=forward, inverse=inverse)
    (stage,) = stages(layers, rule("dtp"))
    stage.begin(Phase.BOTH, epoch)
    before = values(layers)
    x, labels = minibatch()
    exact_step([stage], k, x, labels)
    return changes(layers, before)


@pytest.mark.parametrize(
    ("number", "epoch", "k", "factor"),
    [
        (Step(start=0.4, factor=0.5, every=2), 3, 0, 0.2),
        (Step(start=0.4, factor=0.5, every=2, unit="minibatch"), 0, 5, 0.1),
        (Constant(start=0.3, warmup=4), 1, 0, 0.15),
    ],
)
def test_a_scheduled_rate_is_that_of_the_epoch_or_minibatch(number, epoch, k, factor):
    still = SGDOptions(lr=0.0)
    unit = one_step(SGDOptions(lr=1.0), still, k=k)
    scheduled = one_step(SGDOptions(lr=number), still, epoch=epoch, k=k)
    for one, other in zip(unit, scheduled, strict=True):
        if one.abs().max() > 0:
            assert_near(other, factor * one)


def test_forward_and_inverse_have_their_own_optimizers():
    found = one_step(SGDOptions(lr=0.0), SGDOptions(lr=0.1))
    sides = [each for layer in build(dense(), rule("dtp")) for each in layer.modules() for _ in range(2)]
    assert sides.count("inverse") == 4
    for side, change in zip(sides, found, strict=True):
        assert bool(change.abs().max() > 0) == (side == "inverse")


def test_no_gradient_outlives_its_step():
    layers = build(dense(), rule("dtp"))
    exact_step(stages(layers, rule("dtp")), 0, *minibatch())
    assert all(parameter.grad is None for parameter in parameters(layers))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "soap"])
def test_a_parameter_whose_memory_is_transposed_learns_as_any_other(name):
    """An optimizer that walks parameter and gradient as flat memory must find them laid out alike.

    ``soap`` has a test of its own: where a gradient is zero, rounding says which basis its covariance has.
    """
    found = []
    for contiguous in (True, False):
        options = dense()
        options[1] = ModuleOptions(kind="networks:transposed_pair")
        layers = build(
            options, rule("dtp"), forward=OPTIMIZERS[name](lr=0.1), inverse=OPTIMIZERS[name](lr=0.1)
        )
        if contiguous:
            for module in layers[1].modules().values():
                module.weight.data = module.weight.data.contiguous()
        assert layers[1].f.parameters()[0].is_contiguous() == contiguous
        parts = stages(layers, rule("dtp"))
        for k in range(3):
            exact_step(parts, k, *minibatch(k))
        found.append(values(layers))
    for left, right in zip(*found, strict=True):
        assert_near(left, right, 100 * CHAIN)  # a small gradient's step is as long as a large one's


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        (AdamOptions(lr=1.0, weight_decay=0.1), torch.optim.Adam),
        (AdamWOptions(lr=1.0, weight_decay=0.1, beta1=0.8), torch.optim.AdamW),
    ],
)
def test_the_fused_adam_has_torchs_bits_and_torchs_state(options, theirs):
    """Also where a parameter has no gradient in some steps, and after its state was put back."""
    generator = torch.Generator().manual_seed(3)
    start = [torch.randn(shape, generator=generator) for shape in ((7, 5), (5,), (3, 3))]
    sides = []
    betas = (options.beta1, options.beta2)
    rest = {"eps": options.eps, "weight_decay": options.weight_decay, "fused": True}
    for make in (options.build, lambda given: theirs(given, options.lr, betas, **rest)):
        given = [nn.Parameter(value.clone()) for value in start]
        optimizer = make(given)
        optimizer.param_groups[0]["lr"] = LR
        sides.append((given, optimizer))
    for step in range(6):
        fresh = [torch.randn(value.shape, generator=generator) for value in start]
        for given, optimizer in sides:
            for number, (parameter, gradient) in enumerate(zip(given, fresh, strict=True)):
                parameter.grad = gradient.clone() if (number + step) % 3 else None
            optimizer.step()
            if step == 3:
                optimizer.load_state_dict(optimizer.state_dict())
    for (mine, ours), (expected, torchs) in zip(*[[side] for side in sides], strict=True):
        for parameter, other in zip(mine, expected, strict=True):
            assert torch.equal(parameter, other)
            assert ours.state[parameter].keys() == torchs.state[other].keys()
            for name, value in ours.state[parameter].items():
                assert torch.equal(value, torchs.state[other][name]), name


def test_a_fused_adam_step_takes_a_closure_as_torchs_does():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = AdamOptions(lr=1.0).build([parameter])
    parameter.grad = torch.ones(2)
    assert optimizer.step(lambda: 2.5) == 2.5
    assert optimizer.step(lambda: 1.5) == 1.5


def test_centred_rmsprop_in_pieces_has_the_same_bits(monkeypatch):
    generator = torch.Generator().manual_seed(5)
    start, steps = torch.randn(23, 101, generator=generator), torch.randn(3, 23, 101, generator=generator)
    found = []
    for piece in (64, 640, 10**9):
        monkeypatch.setattr("dtp_dist.algorithm.optimizers.rmsprop.PIECE", piece)
        parameter = nn.Parameter(start.clone())
        optimizer = CentredRMSprop([parameter], lr=0.01, decay=0.95, momentum=0.9, eps=0.001)
        for gradient in steps:
            parameter.grad = gradient
            optimizer.step()
        found.append(parameter.detach())
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[2])
    assert not torch.equal(found[2], start)


# Of any class


def walk(options, dtype: torch.dtype) -> nn.Module:
    """Return a layer after ``STEPS`` steps of its group."""
    torch.manual_seed(4)
    module = nn.Linear(5, 3).to(dtype)
    learner = OptimizedMap(ModuleMap(module), options)
    group = OptimizerGroup([learner])
    for step in range(STEPS):
        learner.set_gradients(some_gradients(module, step))
        group.step(0, step)
    return module


def some_gradients(module: nn.Module, step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [
        torch.randn(each.shape, generator=generator, dtype=torch.float64).to(each.dtype)
        for each in module.parameters()
    ]


def torchs_walk(dtype: torch.dtype, *makes, clip=lambda parameters: None) -> nn.Module:
    """Return a layer after as many steps of torch's own optimizers, made of (weight, bias) each."""
    torch.manual_seed(4)
    module = nn.Linear(5, 3).to(dtype)
    optimizers = [make([module.weight, module.bias]) for make in makes]
    for step in range(STEPS):
        for parameter, gradient in zip(module.parameters(), some_gradients(module, step), strict=True):
            parameter.grad = gradient
        clip(module.parameters())
        for optimizer in optimizers:
            optimizer.step()
    return module


def assert_same(left: nn.Module, right: nn.Module) -> None:
    for one, other in zip(left.parameters(), right.parameters(), strict=True):
        assert torch.equal(one, other)


IMPORTED = {
    "NAdam": {"momentum_decay": 0.01, "betas": [0.8, 0.99]},
    "RAdam": {"weight_decay": 0.1, "decoupled_weight_decay": True},
    "Adamax": {"eps": 1e-3},
    "AdamW": {"amsgrad": True},
    "Adafactor": {"d": 2.0},
    "Adadelta": {"rho": 0.8},
    "Adagrad": {"lr_decay": 0.1, "initial_accumulator_value": 0.2},
    "ASGD": {"t0": 2},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Rprop": {"etas": [0.4, 1.3]},
    "SGD": {"momentum": 0.9, "dampening": 0.1},
}
BOTH = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def options_of(raw):
    return parse_options(LayerOptimizers, {"forward": {"lr": LR, **raw}}).forward


@BOTH
@pytest.mark.parametrize("name", IMPORTED)
def test_an_optimizer_by_its_import_path_is_torchs(name, dtype):
    options = options_of({"name": f"torch.optim:{name}", **IMPORTED[name]})
    settings = {key: tuple(each) if isinstance(each, list) else each for key, each in IMPORTED[name].items()}
    theirs = torchs_walk(dtype, lambda given: getattr(torch.optim, name)(given, lr=LR, **settings))
    assert_same(walk(options, dtype), theirs)
    assert parse_options(LayerOptimizers, {"forward": asdict(options)}).forward == options


MUON = {
    "momentum": 0.8,
    "nesterov": False,
    "weight_decay": 0.3,
    "adjust_lr_fn": "match_rms_adamw",
    "ns_steps": 3,
    "eps": 1e-5,
}
OTHERS = {"others": {"name": "sgd", "lr": 0.5, "momentum": 0.9}}


@BOTH
@pytest.mark.parametrize(
    ("raw", "muon", "others"),
    [
        ({}, {}, lambda given: torch.optim.AdamW(given, lr=LR)),
        ({**MUON, **OTHERS}, MUON, lambda given: torch.optim.SGD(given, lr=0.5, momentum=0.9)),
    ],
    ids=["as it is", "all set"],
)
def test_muon_moves_matrices_as_torchs_does_and_leaves_biases_to_others(raw, muon, others, dtype):
    theirs = torchs_walk(
        dtype, lambda given: torch.optim.Muon(given[:1], lr=LR, **muon), lambda given: others(given[1:])
    )
    mine = walk(options_of({"name": "muon", **raw}), dtype)
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert_near(one, other)


def test_numbers_that_an_optimizer_keeps_come_back_as_they_were():
    """Its own assertions look at their types; here, at their bits."""
    options = options_of({"name": "user_optimizers:Counting", "decay": 0.7})
    module = nn.Linear(5, 3)
    learner = OptimizedMap(ModuleMap(module), options)
    OptimizerGroup([learner])
    optimizer = learner.optimizers[0]
    assert len({id(each) for each in learner.optimizers}) == 1
    before = kept_tensors(learner.optimizers, learner.map.parameters())
    for step in range(4):
        learner.set_gradients(some_gradients(module, step))
        optimizer.step()
    kept = kept_tensors(learner.optimizers, learner.map.parameters())
    assert [name for name in kept if name.startswith("group")] == ["group.k:int", "group.warm:bool"]
    assert {"0.steps:int", "1.scale:float", "0.late:bool"} <= kept.keys()
    state, group = dict(optimizer.state[module.weight]), dict(optimizer.param_groups[0])
    load_kept(learner.optimizers, learner.map.parameters(), before)
    assert optimizer.param_groups[0]["k"] == 0
    assert "warm" not in optimizer.param_groups[0]
    assert optimizer.state[module.weight] == {}
    load_kept(learner.optimizers, learner.map.parameters(), kept)
    assert optimizer.param_groups[0] == group
    assert optimizer.state[module.weight] == {name: each for name, each in state.items() if each is not None}


REFUSED = [
    ({"name": "torch.optim:LBFGS"}, "forward.name: 'torch.optim:LBFGS' needs a closure that"),
    ({"name": "user_optimizers:Closing"}, "forward.name: 'user_optimizers:Closing' needs a closure that"),
    ({"name": "torch.optim:SparseAdam"}, "forward: torch.optim:SparseAdam raised RuntimeError: .*dense grad"),
    ({"name": "torch.optim:Nadam"}, "forward.name: 'torch.optim:Nadam' can't be imported .*no attribute"),
    ({"name": "torch.nn:Linear"}, "forward.name: 'torch.nn:Linear' is no class of torch.optim.Optimizer"),
    ({"name": "torch.optim:NAdam", "beta": 0.9}, "forward.beta: unknown key; did you mean betas"),
    ({"name": "torch.optim:NAdam", "eps": -1}, "forward: torch.optim:NAdam raised ValueError: Invalid eps"),
    ({"name": "torch.optim:NAdam", "betas": 0.9}, "forward: torch.optim:NAdam raised TypeError"),
    ({"name": "torch.optim:NAdam", "lr": -1.0}, "forward.lr: -1.0 is not allowed; it must be at least 0"),
    ({"name": "user_optimizers:Drawing"}, "forward.name: 'user_optimizers:Drawing' draws random numbers"),
    ({"name": "user_optimizers:Stubborn"}, "forward.name: .*Stubborn' does not take its learning rate"),
    ({"name": "user_optimizers:Forgetful"}, "forward.name: .*Forgetful' keeps something that no checkpoint"),
    ({"name": "user_optimizers:Listing"}, "forward.name: .*Listing' can't be kept .*0.steps is neither"),
    ({"name": "user_optimizers:Several"}, "forward: .*Several raised ValueError: it must have one parameter"),
    (
        {"name": "user_optimizers:Rateless"},
        "forward: .*Rateless raised ValueError: .* which holds its lear",
    ),
    ({"name": "user_optimizers:Vectors"}, "forward: .*Vectors raised ValueError: matrices are too much"),
    ({"name": "muon", "others": {"name": "muon", "lr": 1}}, "forward.others.name: 'muon' is not allowed"),
    ({"name": "muon", "others": {"name": "sgd", "lr": 1, "clip_norm": 1}}, "forward.others.clip_norm: clips"),
    ({"name": "muon", "others": {"name": "sgd", "lr": 1, "beta1": 1}}, "forward.others.beta1: unknown key"),
    ({"name": "muon", "ns_steps": 100}, "forward.ns_steps: 100 is not allowed; .* at least 1 and below 100"),
    ({"name": "sgd", "max_norm": 1.0}, "forward.max_norm: unknown key; .*clip_norm"),
    ({"name": "sgd", "clip_norm": 0}, "forward.clip_norm: 0 is not allowed; it must be above 0"),
]


@pytest.mark.parametrize(("raw", "words"), REFUSED)
def test_an_optimizer_that_no_stage_can_use_is_an_error_in_one_line(raw, words):
    state = torch.random.get_rng_state()
    with pytest.raises(ConfigError, match=f"^{words}") as caught:
        options_of(raw)
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("raw", "momentum", "longer"),
    [
        ({"name": "torch.optim:NAdam"}, True, {"betas": [0.95, 0.999]}),
        ({"name": "torch.optim:NAdam", "betas": [0.0, 0.9]}, False, {"betas": [0.5, 0.9]}),
        ({"name": "torch.optim:SGD", "momentum": 0.9}, True, {"momentum": 0.9}),
        ({"name": "torch.optim:SGD"}, False, {"momentum": 0}),
        ({"name": "torch.optim:Adagrad"}, False, {}),
        ({"name": "muon"}, True, {"momentum": 0.975}),
        ({"name": "muon", "momentum": 0.0}, False, {"momentum": 0.5}),
    ],
)
def test_the_remedies_of_delay_find_what_they_need(raw, momentum, longer):
    options = options_of(raw)
    assert options.has_momentum == momentum
    assert options.with_memory(1.0) == options
    found = options.with_memory(2.0)
    for name, value in longer.items():
        assert getattr(found, name) == pytest.approx(value)


def test_each_map_has_an_imported_optimizer_of_its_own_and_shares_one_of_ours():
    """What an unknown one does with parameters together must not depend on the partition."""
    for raw, count in [({"name": "torch.optim:NAdam"}, 3), ({"name": "adam"}, 1), ({"name": "muon"}, 2)]:
        learners = [OptimizedMap(ModuleMap(nn.Linear(2, 2)), options_of(raw)) for _ in range(3)]
        OptimizerGroup(learners)
        assert len({id(each) for learner in learners for each in learner.optimizers}) == count


# Clipping


@BOTH
@pytest.mark.parametrize(
    ("settings", "clip"),
    [
        ({"clip_norm": 0.5}, lambda given: nn.utils.clip_grad_norm_(list(given), 0.5)),
        ({"clip_norm": 1e9}, lambda given: nn.utils.clip_grad_norm_(list(given), 1e9)),
        ({"clip_value": 0.2}, lambda given: nn.utils.clip_grad_value_(list(given), 0.2)),
    ],
    ids=["norm", "long norm", "value"],
)
def test_clipping_is_torchs_on_each_layer_by_itself(settings, clip, dtype):
    theirs = torchs_walk(dtype, lambda given: torch.optim.SGD(given, lr=LR), clip=clip)
    assert_same(walk(options_of({"name": "sgd", **settings}), dtype), theirs)
    by_path = walk(options_of({"name": "torch.optim:SGD", **settings}), dtype)
    assert_same(by_path, theirs)


def test_a_value_is_clipped_before_the_norm_and_what_was_given_stays_as_it_is():
    given = [torch.tensor([3.0, -4.0]), torch.tensor([0.5])]
    options = options_of({"name": "sgd", "clip_value": 1.0, "clip_norm": 0.75})
    clipped = torch.cat(list(options.clipped(given)))
    assert_near(clipped, torch.tensor([1.0, -1.0, 0.5]) * 0.75 / 1.5)
    assert torch.equal(given[0], torch.tensor([3.0, -4.0]))
    assert options_of({"name": "sgd"}).clipped(given) is given
    assert list(options.clipped([])) == []


def test_a_clipped_side_leaves_the_other_as_it_is():
    plain = one_step(SGDOptions(lr=0.1), SGDOptions(lr=0.1))
    clipped = one_step(SGDOptions(lr=0.1, clip_norm=1e-3), SGDOptions(lr=0.1))
    layers = build(dense(), rule("dtp"))
    sides = [each for layer in layers for each in layer.modules() for _ in range(2)]
    for number, side in enumerate(sides):
        if side == "inverse":
            assert torch.equal(clipped[number], plain[number])
    moved = [each for each, side in zip(clipped, sides, strict=True) if side == "forward"]
    for weight, bias in zip(moved[::2], moved[1::2], strict=True):
        assert torch.cat([weight.flatten(), bias]).norm() == pytest.approx(1e-4, rel=0.01)


def test_what_has_no_gradient_is_not_stepped():
    """As inverses of fewer iterations than others of their stage, which have an optimizer of their own."""
    still, moving = (OptimizedMap(ModuleMap(nn.Linear(2, 2)), AdamOptions(lr=rate)) for rate in (0.1, 0.2))
    group = OptimizerGroup([still, moving])
    for step in range(3):
        for learner in (moving, still) if step == 0 else (moving,):
            learner.set_gradients([torch.ones_like(each) for each in learner.map.parameters()])
        group.step(0, step)
    counts = [learner.optimizers[0].state[learner.map.module.weight]["step"] for learner in (still, moving)]
    assert counts == [1, 3]
