"""Locally connected layers: convolutions that do not share their kernel between places."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dtp_dist.algorithm.layers.base import Shape
from dtp_dist.algorithm.layers.conv import KernelOptions
from dtp_dist.algorithm.layers.initial import initial_bias, initial_weight
from dtp_dist.algorithm.layers.products import Product
from dtp_dist.algorithm.maps.base import Map
from dtp_dist.algorithm.maps.local import LocalMap, Module, TransposedLocal, TransposedLocalMap
from dtp_dist.algorithm.options import option
from dtp_dist.algorithm.plain import Local


@dataclass(frozen=True, kw_only=True)
class LocalOptions(KernelOptions):
    """A kernel of its own, and a bias, for each place of an image; a pool layer may follow."""

    kind: str = option("local", doc="local")

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = (self.channels, *self.image(input_shape))
        self.check_norm(shape)
        return shape

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        channels, image = (input_shape[0], self.channels), (input_shape[1], input_shape[2])
        local = Local(channels, image, self.kernel, self.stride, self.padding, self.bias)
        self._fill(local, self.init, generator)
        first = LocalMap(local, self.inner_activation(self.activation))
        forward = self.normalized(first, self.activation, self.output_shape(input_shape))
        if not inverse:
            return forward, None
        return self.inverse.paired(forward, self._inverse(local, generator), self.activation)

    def _inverse(self, forward: Local, generator: torch.Generator) -> Map:
        own = self.inverse
        local = TransposedLocal(forward, bias=self.bias if own.bias is None else own.bias)
        self._fill(local, own.init or self.init, generator, own.scale)
        after, before = own.activations
        return self.normalized_inverse(TransposedLocalMap(local, after, before))

    def _fill(
        self, module: Module, init: str, generator: torch.Generator, scale: float | None = None
    ) -> None:
        """Fill in the initial weights, drawn at each place as those of a convolution."""
        below, receptive = module.channels[0], self.kernel**2
        with torch.no_grad():
            for kernel in module.weight:
                kernel.copy_(initial_weight(self.channels, below, init, generator, receptive, scale))
            if module.bias is not None:
                bias = initial_bias(module.bias.numel(), below * receptive, init, generator)
                module.bias.copy_(bias.view(module.bias.shape))

    def products(self, input_shape: Shape) -> list[Product]:
        fans, places = (self.channels, input_shape[0]), math.prod(self.image(input_shape))
        init, scale, receptive = self.inverse.init or self.init, self.inverse.scale, self.kernel**2
        shape = places, self.channels, input_shape[0] * receptive
        return [Product(shape, *fans, init, scale, receptive, places)]

    def parameters(self, input_shape: Shape) -> int:
        shape = self.output_shape(input_shape)
        inputs = input_shape[0] * self.kernel**2
        return math.prod(shape) * (inputs + self.bias) + self.norm_parameters(shape)
