"""Dense layers: ``f(x) = a(x W^T + b)`` and an inverse of the same form, in closed form throughout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from dtp_dist.algorithm.activations import ACTIVATIONS
from dtp_dist.algorithm.layers.base import LayerOptions, Shape
from dtp_dist.algorithm.layers.initial import INITS, initial_bias, initial_weight
from dtp_dist.algorithm.maps import DenseMap, Map
from dtp_dist.algorithm.options import RangeError, option


@dataclass(frozen=True, kw_only=True)
class DenseOptions(LayerOptions):
    """A dense layer of ``units`` units."""

    kind: str = option("dense", doc="dense")
    units: int = option(doc="width of the layer, units", at_least=1)
    activation: str = option("tanh", doc="activation of the forward map", one_of=tuple(ACTIVATIONS))
    bias: bool = option(True, doc="whether the maps add a bias (zero at first, unless init is uniform)")
    init: str = option("orthogonal", doc="initial weights of both maps; uniform is torch's own", one_of=INITS)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.inverse.check_activation()

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            flat = math.prod(input_shape)
            text = f"a dense layer needs flat input, not {list(input_shape)}; write model.input: [{flat}]"
            raise RangeError("kind", f"{text}, or a layer {{kind: flatten}} before it")
        return (self.units,)

    def _linear(self, fan_out: int, fan_in: int, generator: torch.Generator, scale: float = 1.0) -> nn.Linear:
        module = nn.Linear(fan_in, fan_out, bias=self.bias, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            module.weight.copy_(initial_weight(fan_out, fan_in, self.init, generator)).mul_(scale)
            if self.bias:
                module.bias.copy_(initial_bias(fan_out, fan_in, self.init, generator)).mul_(scale)
        return module

    @property
    def affine_inverse(self) -> bool:
        return self.inverse.activations[0] == "linear"

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        forward = DenseMap(self._linear(self.units, input_shape[0], generator), self.activation)
        if not inverse:
            return forward, None
        back = self._linear(input_shape[0], self.units, generator, self.inverse.init_scale)
        return forward, DenseMap(back, *self.inverse.activations)
