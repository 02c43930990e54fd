"""Inverses with the forward activation's derivative from F, against autograd and against themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from closeness import tolerance
from torch import Tensor
from torch.func import vjp

from dtp_dist.algorithm.layers import (
    ConvOptions,
    DenseOptions,
    InverseOptions,
    LayerOptions,
    LocalOptions,
    ModuleOptions,
    ResidualOptions,
)
from dtp_dist.algorithm.maps.base import Call, Map, Mode
from dtp_dist.algorithm.options import RangeError
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.phase import Phase

IMAGE, FLAT = (3, 6, 6), (6,)
LEARNED = InverseOptions(activation="derivative", iterations=2, sigma=0.1)
CONV: dict[str, Any] = {"padding": 1, "bias": False, "inverse": LEARNED}
INSIDE = {**CONV, "inverse": InverseOptions(activation="derivative")}
BODY = [ConvOptions(channels=4, stride=2, **INSIDE), ConvOptions(channels=4, activation="linear", **INSIDE)]
LAYERS: dict[str, tuple[LayerOptions, tuple[int, ...]]] = {
    "dense": (DenseOptions(units=5, activation="sigmoid", bias=False, inverse=LEARNED), FLAT),
    "linear": (DenseOptions(units=5, activation="linear", bias=False, inverse=LEARNED), FLAT),
    "conv": (ConvOptions(channels=4, stride=2, **CONV), IMAGE),
    "pooled": (ConvOptions(channels=4, pool="max", pool_kernel=3, pool_stride=2, **CONV), IMAGE),
    "local": (LocalOptions(channels=4, activation="tanh", **CONV), IMAGE),
    "residual": (ResidualOptions(body=BODY, activation="selu", inverse=LEARNED), IMAGE),
    "shortcut": (ResidualOptions(body=[ConvOptions(channels=3, **INSIDE)], inverse=LEARNED), IMAGE),
}
EVERY = pytest.mark.parametrize("name", LAYERS)


def transposed(name: str) -> tuple[Map, Map, Tensor, Call]:
    """Return f, a g with f's own weights, an input and the inverse's call after F."""
    options, shape = LAYERS[name]
    generator = torch.Generator().manual_seed(3)
    f, g = options.maps(shape, generator, inverse=True)
    assert g is not None
    for module in (f.module, g.module):
        module.to(torch.float64)
    for mine, theirs in zip(sorted_weights(g), sorted_weights(f), strict=True):
        with torch.no_grad():
            mine.copy_(theirs if mine.shape == theirs.shape else theirs.T)
    x = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    call = Call(Randomness(0, 1, 0, Phase.BOTH), Mode.FORWARD)
    return f, g, x, replace(call, context=f.with_context(x, call)[1]).inverse()


def sorted_weights(of: Map) -> list[Tensor]:
    """Return its weights by their names: those of a residual layer's parts have the same in both maps."""
    named = dict(of.module.named_parameters())
    if "body.0.weight" in named and len(named) > 2:  # the parts of g's body are f's in reverse
        ends = ["body.1", "body.0"] if is_inverse(of) else ["body.0", "body.1"]
        return [named[f"{each}.weight"] for each in ends] + [named["shortcut.0.weight"]]
    return list(named.values())


def is_inverse(of: Map) -> bool:
    return any(isinstance(each, torch.nn.ConvTranspose2d) for each in of.module.modules())


@EVERY
def test_with_transposed_weights_its_jacobian_is_the_transpose(name):
    f, g, x, call = transposed(name)
    y, pull = vjp(torch.nn.Sequential(*f.torch_modules()), x)
    delta = torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    moved = g(y + delta, call) - g(y, call)
    torch.testing.assert_close(moved, pull(delta)[0], **tolerance_of())


def tolerance_of() -> dict[str, float]:
    return {"rtol": 0.0, "atol": 1e3 * tolerance(torch.float64)}


@EVERY
def test_its_pullback_is_the_transpose_of_itself(name):
    """It is affine: ``<c, g(y) - g(0)> = <pull(c), y>``, and in its weights likewise."""
    _, g, _, call = transposed(name)
    y = g_input(name)
    pullback = g.linearize(y, call)
    c = torch.randn(pullback.output.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    torch.testing.assert_close(pullback.output, g(y, call), **tolerance_of())
    through = (c * (g(y, call) - g(torch.zeros_like(y), call))).sum()
    torch.testing.assert_close((pullback.input(c) * y).sum(), through, **tolerance_of())
    step, before = 1e-6, (c * g(y, call)).sum()
    for weight, gradient in zip(g.parameters(), pullback.parameters(c), strict=True):
        with torch.no_grad():
            weight.add_(step * gradient)
        moved = (c * g(y, call)).sum() - before
        with torch.no_grad():
            weight.sub_(step * gradient)
        torch.testing.assert_close(moved / step, gradient.square().sum(), rtol=1e-4, atol=1e-4)


def g_input(name: str) -> Tensor:
    options, shape = LAYERS[name]
    generator = torch.Generator().manual_seed(5)
    return torch.randn(4, *options.output_shape(shape), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ConvOptions(channels=2, activation="gelu", inverse=LEARNED), "next to activation gelu"),
        (lambda: ResidualOptions(body=BODY, activation="silu", inverse=LEARNED), "next to activation silu"),
        (lambda: DenseOptions(units=2, norm="batch", inverse=LEARNED), "write norm_place: before_activation"),
        (
            lambda: ModuleOptions(kind="user_layers:tied", inverse=replace(LEARNED, auto=True)),
            "of a module of yours",
        ),
    ],
    ids=["gelu", "residual", "norm", "module"],
)
def test_a_derivative_that_f_does_not_show_is_refused(make, words):
    with pytest.raises(RangeError, match=words) as caught:
        make()
    assert caught.value.key == "inverse.activation"
