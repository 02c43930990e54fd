"""Dense layers: ``f(x) = a(x W^T + b)`` and an inverse of the same form, in closed form throughout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.activations import ACTIVATIONS
from dtp_dist.algorithm.layers.base import LayerOptions, Shape
from dtp_dist.algorithm.maps import DenseMap, Map
from dtp_dist.algorithm.normalized import NormalizedMap
from dtp_dist.algorithm.options import RangeError, option

INITS = ("orthogonal", "xavier_uniform", "xavier_normal")
INVERSE_INITS = (*INITS, "uniform")


def initial_weight(
    fan_out: int, fan_in: int, init: str, generator: torch.Generator, scale: float | None = None
) -> Tensor:
    """Return a weight ``[fan_out, fan_in]``.

    ``xavier_uniform`` is U(-r, r), ``r = sqrt(6 / (fan_in + fan_out))``; ``orthogonal`` is the orthogonal
    factor U V^T of that matrix's SVD (Lee et al. 2015, published code); ``xavier_normal`` has the
    uniform one's variance; ``uniform`` is U(-scale, scale).
    """
    weight = torch.empty(fan_out, fan_in)
    if scale is not None:
        return weight.uniform_(-scale, scale, generator=generator)
    if init == "xavier_normal":
        return weight.normal_(0.0, math.sqrt(2.0 / (fan_in + fan_out)), generator=generator)
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    weight.uniform_(-bound, bound, generator=generator)
    if init == "orthogonal":
        u, _, vh = torch.linalg.svd(weight, full_matrices=False)
        weight = (u @ vh).contiguous()
    return weight


def _linear(weight: Tensor, bias: bool) -> nn.Linear:
    """Return a linear module of this weight, its bias zero."""
    fan_out, fan_in = weight.shape
    module = nn.Linear(fan_in, fan_out, bias=bias, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias:
            module.bias.zero_()
    return module


def _check_one_of(key: str, value: str, names: tuple[str, ...]) -> None:
    if value not in names:
        raise RangeError(key, f"{value!r} is not allowed; it must be one of {', '.join(names)}")


@dataclass(frozen=True, kw_only=True)
class DenseOptions(LayerOptions):
    """A dense layer of ``units`` units."""

    kind: str = option("dense", doc="dense")
    units: int = option(doc="width of the layer, units", at_least=1)
    activation: str = option("tanh", doc="activation of the forward map", one_of=tuple(ACTIVATIONS))
    bias: bool = option(True, doc="whether the maps add a bias (zero at first)")
    init: str = option(
        "orthogonal", doc="initial weights of both maps; the inverse may have its own", one_of=INITS
    )
    norm: str = option(
        "none",
        doc="batch normalisation after the activation, without learned scale; the statistics and the "
        "derivative are always taken at today's weights",
        one_of=("none", "batch"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_one_of("inverse.activation", self.inverse.activation, tuple(ACTIVATIONS))
        if self.inverse.init is not None:
            _check_one_of("inverse.init", self.inverse.init, INVERSE_INITS)

    @property
    def needs_several_examples(self) -> bool:
        return self.norm == "batch"

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            flat = math.prod(input_shape)
            text = f"a dense layer needs flat input, not {list(input_shape)}; write model.input: [{flat}]"
            raise RangeError("kind", text)
        return (self.units,)

    def _forward(self, fan_in: int, generator: torch.Generator) -> Map:
        weight = initial_weight(self.units, fan_in, self.init, generator)
        dense = DenseMap(_linear(weight, self.bias), self.activation)
        return NormalizedMap(dense, self.units) if self.norm == "batch" else dense

    def _inverse(self, fan_out: int, generator: torch.Generator) -> Map:
        own = self.inverse
        weight = initial_weight(fan_out, self.units, own.init or self.init, generator, own.scale)
        return DenseMap(_linear(weight, self.bias if own.bias is None else own.bias), own.activation)

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        forward = self._forward(input_shape[0], generator)
        return forward, self._inverse(input_shape[0], generator) if inverse else None
