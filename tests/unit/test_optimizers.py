"""Optimizers: the paper's centred RMSprop by hand, torch's by comparison, and the learning rate they get."""

import numpy as np
import pytest
import torch
from torch import nn

from dtp_dist.algorithm.layers import ModuleOptions
from dtp_dist.algorithm.optimizers import (
    OPTIMIZERS,
    AdamOptions,
    AdamWOptions,
    CentredRMSprop,
    CentredRMSpropOptions,
    RMSpropOptions,
    SGDOptions,
)
from dtp_dist.algorithm.options import RangeError
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
        np.testing.assert_allclose(mine.numpy(), w, rtol=1e-11, atol=1e-12)


def test_centred_rmsprop_takes_its_own_constants():
    w, m, v, step = (np.zeros((3, 4)) for _ in range(4))
    options = CentredRMSpropOptions(lr=1.0, decay=0.8, momentum=0.5, eps=0.2)
    for gradient, mine in zip(gradients(), trajectory(options.build), strict=True):
        g = gradient.numpy()
        m, v = 0.8 * m + 0.2 * g, 0.8 * v + 0.2 * g * g
        step = 0.5 * step - LR * g / np.sqrt(v - m * m + 0.2)
        w = w + step
        np.testing.assert_allclose(mine.numpy(), 1 + w, rtol=1e-11, atol=1e-12)


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
        torch.testing.assert_close(left, right, rtol=1e-11 if dtype is torch.float64 else 2e-5, atol=1e-7)


def test_every_option_is_among_the_optimizers():
    assert set(OPTIMIZERS) == {"sgd", "adam", "adamw", "rmsprop", "centred_rmsprop"}


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: SGDOptions(lr=-0.1), "lr"),
        (lambda: SGDOptions(lr=0.1, momentum=1.0), "momentum"),
        (lambda: SGDOptions(lr=0.1, nesterov=True), "nesterov"),
        (lambda: AdamOptions(lr=0.1, beta2=1.5), "beta2"),
        (lambda: CentredRMSpropOptions(lr=0.1, eps=0.0), "eps"),
        (lambda: SGDOptions(lr={"schedule": "cosin", "start": 1.0}), "lr.schedule"),
    ],
)
def test_wrong_options_name_their_key(make, key):
    with pytest.raises(RangeError) as error:
        make()
    assert error.value.key == key


# In a network


def changes(layers, before) -> list[torch.Tensor]:
    return [new - old for new, old in zip(values(layers), before, strict=True)]


def one_step(forward, inverse, *, epoch: int = 0, k: int = 0) -> list[torch.Tensor]:
    layers = build(dense(), rule("dtp"), forward=forward, inverse=inverse)
    (stage,) = stages(layers, rule("dtp"))
    stage.begin("both", epoch)
    before = values(layers)
    x, labels = minibatch()
    exact_step([stage], k, x, labels)
    return changes(layers, before)


@pytest.mark.parametrize(
    ("number", "epoch", "k", "factor"),
    [
        ({"schedule": "step", "start": 0.4, "factor": 0.5, "every": 2}, 3, 0, 0.2),
        ({"schedule": "step", "start": 0.4, "factor": 0.5, "every": 2, "unit": "minibatch"}, 0, 5, 0.1),
        ({"schedule": "constant", "start": 0.3, "warmup": 4}, 1, 0, 0.15),
    ],
)
def test_a_scheduled_rate_is_that_of_the_epoch_or_minibatch(number, epoch, k, factor):
    still = SGDOptions(lr=0.0)
    unit = one_step(SGDOptions(lr=1.0), still, k=k)
    scheduled = one_step(SGDOptions(lr=number), still, epoch=epoch, k=k)
    for one, other in zip(unit, scheduled, strict=True):
        torch.testing.assert_close(other, factor * one, rtol=1e-9, atol=1e-14)


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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_whose_memory_is_transposed_learns_as_any_other(name):
    """An optimizer that walks parameter and gradient as flat memory must find them laid out alike."""
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
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)


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
    for make in (options.build, lambda given: theirs(given, **options._settings())):
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
        monkeypatch.setattr("dtp_dist.algorithm.optimizers.PIECE", piece)
        parameter = nn.Parameter(start.clone())
        optimizer = CentredRMSprop([parameter], lr=0.01, decay=0.95, momentum=0.9, eps=0.001)
        for gradient in steps:
            parameter.grad = gradient
            optimizer.step()
        found.append(parameter.detach())
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[2])
    assert not torch.equal(found[2], start)
