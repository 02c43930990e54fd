"""Dense layers: ``f(x) = a(x W^T + b)`` and an inverse of the same form, in closed form throughout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from dtp_dist.algorithm.layers.base import Shape
from dtp_dist.algorithm.layers.initial import INITS, initial_bias, initial_weight, with_memory
from dtp_dist.algorithm.layers.norms import NormalizedOptions
from dtp_dist.algorithm.layers.products import Product
from dtp_dist.algorithm.maps.activations import ACTIVATIONS
from dtp_dist.algorithm.maps.base import Map
from dtp_dist.algorithm.maps.dense import DenseMap
from dtp_dist.algorithm.options import Count, NonNegative, OneOf, RangeError, option
from dtp_dist.algorithm.transmission import REAL, SAMPLE, TRANSMISSIONS


def _linear(
    fan_out: int,
    fan_in: int,
    init: str,
    bias: bool,
    generator: torch.Generator,
    scale: float | None = None,
) -> nn.Linear:
    """Return a linear module with fresh weights."""
    module = with_memory(nn.Linear(fan_in, fan_out, bias=bias, device="meta"))
    with torch.no_grad():
        module.weight.copy_(initial_weight(fan_out, fan_in, init, generator, scale=scale))
        if bias:
            module.bias.copy_(initial_bias(fan_out, fan_in, init, generator))
    return module


@dataclass(frozen=True, kw_only=True)
class DenseOptions(NormalizedOptions):
    """A dense layer of ``units`` units."""

    kind: str = option("dense", doc="dense")
    units: Count = option(doc="width of the layer, units")
    activation: Annotated[str, OneOf(*ACTIVATIONS)] = option(
        "tanh",
        doc="activation of the forward map (gelu and silu: with the derivative at today's weights whatever "
        "rule.jacobian)",
    )
    input_transmission: Annotated[str, OneOf(*TRANSMISSIONS)] = option(
        REAL,
        doc="what it sees of the layer below: real numbers, their sign, or a binary sample of probabilities",
    )
    noise: NonNegative = option(
        0.0, doc="deviation of Gaussian noise on its input in training, before what it sees"
    )
    bias: bool = option(True, doc="whether the maps add a bias (zero at first, unless init is uniform)")
    init: Annotated[str, OneOf(*INITS)] = option(
        "orthogonal",
        doc="initial weights of both maps, though the inverse may have its own, and with zeros must; uniform "
        "is torch's own",
    )

    def __post_init__(self) -> None:
        self.check_inverse(self.activation)
        if self.inverse.samples != 1.0 and (self.noise or self.input_transmission == SAMPLE):
            text = "must be 1 in a layer that draws noise or samples of its own, which are those of F"
            raise RangeError("inverse.samples", text)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            flat = math.prod(input_shape)
            text = f"a dense layer needs flat input, not {list(input_shape)}; write model.input: [{flat}]"
            raise RangeError("kind", f"{text}, or a layer {{kind: flatten}} before it")
        self.check_norm((self.units,))
        return (self.units,)

    @property
    def transmission(self) -> str:
        return REAL if self.noise else self.input_transmission

    def _forward(self, fan_in: int, generator: torch.Generator) -> Map:
        module = _linear(self.units, fan_in, self.init, self.bias, generator)
        first = self.inner_activation(self.activation)
        dense = DenseMap(module, first, transmission=self.input_transmission, noise=self.noise)
        return self.normalized(dense, self.activation, (self.units,))

    def inverse_map(self, input_shape: Shape, generator: torch.Generator) -> Map:
        """Return g_l alone, with fresh weights: from ``units`` units back to ``input_shape``."""
        own = self.inverse
        bias = self.bias if own.bias is None else own.bias
        module = _linear(input_shape[0], self.units, own.init or self.init, bias, generator, own.scale)
        after, before = own.activations
        inverse = DenseMap(module, after, before, transmission=own.input_transmission)
        return self.normalized_inverse(inverse)

    def products(self, input_shape: Shape) -> list[Product]:
        fan_in, init = input_shape[0], self.inverse.init or self.init
        return [Product((self.units, fan_in), self.units, fan_in, init, self.inverse.scale)]

    @property
    def affine_inverse(self) -> bool:
        return self.inverse.affine

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        forward = self._forward(input_shape[0], generator)
        if not inverse:
            return forward, None
        return self.inverse.paired(forward, self.inverse_map(input_shape, generator), self.activation)

    def parameters(self, input_shape: Shape) -> int:
        return super().parameters(input_shape) + self.norm_parameters((self.units,))
