"""Flattening: images to vectors, exactly undone by the inverse; no parameters, so nothing to learn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.layers.base import Shape, UnlearnedOptions
from dtp_dist.algorithm.maps.base import Call, Map, UnlearnedPullback
from dtp_dist.algorithm.options import option


class ReshapePullback(UnlearnedPullback):
    """``dx`` is the cotangent in x's shape."""

    def __init__(self, x: Tensor, output: Tensor) -> None:
        self._shape, self.output = x.shape, output

    def input(self, cotangent: Tensor) -> Tensor:
        return cotangent.reshape(self._shape)


class ReshapeMap(Map):
    """The same numbers in ``shape``; y shares x's memory."""

    def __init__(self, module: nn.Module, shape: Shape) -> None:
        super().__init__(module)
        self.shape = shape

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        del call
        return x.reshape(len(x), *self.shape)

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> ReshapePullback:
        return ReshapePullback(x, self(x, call) if output is None else output)

    def torch_modules(self) -> list[nn.Module]:
        return [self.module]


@dataclass(frozen=True, kw_only=True)
class FlattenOptions(UnlearnedOptions):
    """``[C, H, W] -> [C * H * W]``; its inverse is exact, so how inverses learn does not matter."""

    kind: str = option("flatten", doc="flatten")

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        del generator
        forward = ReshapeMap(nn.Flatten(), self.output_shape(input_shape))
        back = ReshapeMap(nn.Unflatten(1, input_shape), input_shape) if inverse else None
        return forward, back
