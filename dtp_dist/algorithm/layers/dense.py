"""Dense layers: ``f(x) = a(x W^T + b)`` and an inverse of the same form, in closed form throughout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.activations import ACTIVATIONS
from dtp_dist.algorithm.layers.base import LayerOptions, Shape
from dtp_dist.algorithm.maps import DenseMap, Map
from dtp_dist.algorithm.options import RangeError, option
from dtp_dist.algorithm.transmission import REAL, TRANSMISSIONS

INITS = ("orthogonal", "xavier_uniform", "xavier_normal")


def initial_weight(fan_out: int, fan_in: int, init: str, generator: torch.Generator) -> Tensor:
    """Return a weight ``[fan_out, fan_in]``.

    ``xavier_uniform`` is U(-r, r), ``r = sqrt(6 / (fan_in + fan_out))``; ``orthogonal`` is the orthogonal
    factor U V^T of that matrix's SVD (Lee et al. 2015, published code); ``xavier_normal`` has the
    uniform one's variance.
    """
    weight = torch.empty(fan_out, fan_in)
    if init == "xavier_normal":
        return weight.normal_(0.0, math.sqrt(2.0 / (fan_in + fan_out)), generator=generator)
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    weight.uniform_(-bound, bound, generator=generator)
    if init == "orthogonal":
        u, _, vh = torch.linalg.svd(weight, full_matrices=False)
        weight = (u @ vh).contiguous()
    return weight


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
    bias: bool = option(True, doc="whether the maps add a bias (zero at first)")
    init: str = option("orthogonal", doc="initial weights of both maps", one_of=INITS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inverse.activation not in ACTIVATIONS:
            names = ", ".join(ACTIVATIONS)
            text = f"{self.inverse.activation!r} is not allowed; it must be one of {names}"
            raise RangeError("inverse.activation", text)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            flat = math.prod(input_shape)
            text = f"a dense layer needs flat input, not {list(input_shape)}; write model.input: [{flat}]"
            raise RangeError("kind", text)
        return (self.units,)

    @property
    def transmission(self) -> str:
        return REAL if self.noise else self.sees

    def _linear(self, fan_out: int, fan_in: int, generator: torch.Generator) -> nn.Linear:
        module = nn.Linear(fan_in, fan_out, bias=self.bias, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            module.weight.copy_(initial_weight(fan_out, fan_in, self.init, generator))
            if self.bias:
                module.bias.zero_()
        return module

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        width = input_shape[0]
        module = self._linear(self.units, width, generator)
        forward = DenseMap(module, self.activation, sees=self.sees, noise=self.noise)
        if not inverse:
            return forward, None
        module = self._linear(width, self.units, generator)
        return forward, DenseMap(module, self.inverse.activation, sees=self.inverse.sees)
