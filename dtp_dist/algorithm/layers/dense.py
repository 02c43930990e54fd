"""Dense layers: ``f(x) = a(x W^T + b)`` and an inverse of the same form, in closed form throughout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from dtp_dist.algorithm.activations import ACTIVATIONS
from dtp_dist.algorithm.dense_map import DenseMap
from dtp_dist.algorithm.layers.base import LayerOptions, Shape
from dtp_dist.algorithm.layers.initial import INITS, initial_bias, initial_weight
from dtp_dist.algorithm.maps import Map
from dtp_dist.algorithm.normalized import NormalizedMap
from dtp_dist.algorithm.options import RangeError, option
from dtp_dist.algorithm.transmission import REAL, TRANSMISSIONS


def _linear(
    fan_out: int,
    fan_in: int,
    init: str,
    bias: bool,
    generator: torch.Generator,
    scale: float | None = None,
) -> nn.Linear:
    """Return a linear module with fresh weights."""
    module = nn.Linear(fan_in, fan_out, bias=bias, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        module.weight.copy_(initial_weight(fan_out, fan_in, init, generator, scale=scale))
        if bias:
            module.bias.copy_(initial_bias(fan_out, fan_in, init, generator))
    return module


@dataclass(frozen=True, kw_only=True)
class DenseOptions(LayerOptions):
    """A dense layer of ``units`` units."""

    kind: str = option("dense", doc="dense")
    units: int = option(doc="width of the layer, units", at_least=1)
    activation: str = option("tanh", doc="activation of the forward map", one_of=tuple(ACTIVATIONS))
    sees: str = option(
        REAL,
        doc="what it sees of the layer below: real numbers, their sign, or a binary sample of probabilities",
        one_of=TRANSMISSIONS,
    )
    noise: float = option(
        0.0, doc="deviation of Gaussian noise on its input in training, before what it sees", at_least=0
    )
    bias: bool = option(True, doc="whether the maps add a bias (zero at first, unless init is uniform)")
    init: str = option(
        "orthogonal",
        doc="initial weights of both maps, though the inverse may have its own; uniform is torch's own",
        one_of=INITS,
    )
    norm: str = option(
        "none",
        doc="batch normalisation after the activation, without learned scale; the statistics and the "
        "derivative are always taken at today's weights",
        one_of=("none", "batch"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.inverse.check_names()

    @property
    def needs_several_examples(self) -> bool:
        return self.norm == "batch"

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            flat = math.prod(input_shape)
            text = f"a dense layer needs flat input, not {list(input_shape)}; write model.input: [{flat}]"
            raise RangeError("kind", f"{text}, or a layer {{kind: flatten}} before it")
        return (self.units,)

    @property
    def transmission(self) -> str:
        return REAL if self.noise else self.sees

    def _forward(self, fan_in: int, generator: torch.Generator) -> Map:
        module = _linear(self.units, fan_in, self.init, self.bias, generator)
        dense = DenseMap(module, self.activation, sees=self.sees, noise=self.noise)
        return NormalizedMap(dense, self.units) if self.norm == "batch" else dense

    def _inverse(self, fan_out: int, generator: torch.Generator) -> Map:
        own = self.inverse
        bias = self.bias if own.bias is None else own.bias
        module = _linear(fan_out, self.units, own.init or self.init, bias, generator, own.scale)
        after, before = own.activations
        return DenseMap(module, after, before, sees=own.sees)

    @property
    def affine_inverse(self) -> bool:
        return self.inverse.activations[0] == "linear"

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        forward = self._forward(input_shape[0], generator)
        return forward, self._inverse(input_shape[0], generator) if inverse else None
