"""Small inverses for modules that bring none: one product, from the shape that they give to the one they get.

Between vectors it is a dense map, between images a transposed convolution as that of a ``conv`` layer, where
one of 3x3 fits; else a convolution of the nearest pixels, or a linear module along the last dimension or all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from dtp_dist.algorithm.layers.base import InverseOptions, Shape
from dtp_dist.algorithm.layers.conv import ConvOptions
from dtp_dist.algorithm.layers.dense import DenseOptions
from dtp_dist.algorithm.layers.initial import initial_bias, initial_weight, with_memory
from dtp_dist.algorithm.maps.activations import ACTIVATIONS
from dtp_dist.algorithm.maps.base import Map, ModuleMap
from dtp_dist.algorithm.options import RangeError
from dtp_dist.algorithm.randomness import derive_seed

CONVOLUTIONS: dict[int, Callable[..., nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    2: nn.Conv1d,
    3: nn.Conv2d,
    4: nn.Conv3d,
}
"""By the number of an example's dimensions, channels included."""

INIT = "uniform"
"""Initial weights where the inverse's options name none: torch's own."""


def automatic_inverse(options: InverseOptions, shape: Shape, back: Shape, seed: int) -> Map:
    """Return an inverse with fresh weights from ``shape`` to ``back``, the shapes of one example.

    Its activation, initial weights and bias are those of ``options``; ``seed`` is the layer's weights'.

    Raises:
        RangeError: one of the shapes has no dimension at all.
    """
    if not shape or not back:
        text = "auto makes no inverse of a module that gives a single number for an example; let it give [1]"
        raise RangeError("inverse.auto", text)
    generator = torch.Generator().manual_seed(derive_seed(seed, "inverse"))
    init = options.init or INIT
    if len(shape) == len(back) == 1:
        dense = DenseOptions(units=shape[0], init=init, inverse=options)
        return dense.inverse_map(back, generator)
    stride = _stride(back, shape)
    if stride is not None and options.activations[1] != "sigmoid":  # conv layers have what is 0 at 0 alone
        conv = ConvOptions(channels=shape[0], stride=stride, padding=1, init=init, inverse=options)
        return conv.inverse_map(back, generator)
    return ModuleMap(_sequence(options, shape, back, init, generator))


def _stride(back: Shape, shape: Shape) -> int | None:
    """Return the stride of a padded 3x3 convolution that makes images of ``shape`` of those of ``back``."""
    if len(back) != 3 or len(shape) != 3:
        return None
    sides = list(zip(back[1:], shape[1:], strict=True))
    return next((n for n in range(1, max(back[1:]) + 1) if all(-(-a // n) == b for a, b in sides)), None)


def _sequence(
    options: InverseOptions, shape: Shape, back: Shape, init: str, generator: torch.Generator
) -> nn.Sequential:
    """Return torch modules from one shape to the other, their activation first or last."""
    before, product, after = _product(shape, back, options.bias is not False)
    _fill(product, init, options.scale, generator)
    last, first = (_activation(name) for name in options.activations)
    return nn.Sequential(*first, *before, product, *after, *last)


def _product(
    shape: Shape, back: Shape, bias: bool
) -> tuple[list[nn.Module], nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d, list[nn.Module]]:
    """Return the module with the weights, made on ``meta``, and those without before and after it."""
    alike = len(shape) == len(back)
    if alike and len(shape) == 2 and shape[0] == back[0]:  # a sequence of vectors
        return [], nn.Linear(shape[1], back[1], bias=bias, device="meta"), []
    if alike and len(shape) in CONVOLUTIONS:
        size = [] if shape[1:] == back[1:] else [nn.Upsample(back[1:])]
        conv = CONVOLUTIONS[len(shape)](shape[0], back[0], 3, padding=1, bias=bias, device="meta")
        return [*size], conv, []
    linear = nn.Linear(math.prod(shape), math.prod(back), bias=bias, device="meta")
    return [nn.Flatten()], linear, [nn.Unflatten(1, back)]


def _fill(module: nn.Module, init: str, scale: float | None, generator: torch.Generator) -> None:
    """Give a module its initial weights."""
    weight = with_memory(module).weight
    assert isinstance(weight, nn.Parameter)
    fan_out, fan_in, receptive = weight.shape[0], weight.shape[1], math.prod(weight.shape[2:])
    with torch.no_grad():
        weight.copy_(initial_weight(fan_out, fan_in, init, generator, receptive, scale).view(weight.shape))
        if isinstance(module.bias, nn.Parameter):
            module.bias.copy_(initial_bias(fan_out, fan_in * receptive, init, generator))


def _activation(name: str) -> list[nn.Module]:
    module = ACTIVATIONS[name].module
    return [] if module is None else [module()]
