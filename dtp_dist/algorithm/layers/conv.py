"""Convolutional layers: ``f(x) = a(pool(w * x + b))`` and a transposed convolution back."""

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
from dtp_dist.algorithm.maps.conv import ConvMap, Convolution, TransposedConvMap
from dtp_dist.algorithm.maps.pooling import POOLINGS, Pooling
from dtp_dist.algorithm.options import Count, OneOf, RangeError, Whole, option


@dataclass(frozen=True, kw_only=True)
class KernelOptions(NormalizedOptions):
    """What layers have whose units see a window of an image each."""

    channels: Count = option(doc="channels of the output")
    kernel: Count = option(3, doc="height and width of the kernel, pixels")
    stride: Count = option(1, doc="pixels between two places of the kernel")
    padding: Whole = option(0, doc="zeros around the image, pixels on each side")
    activation: Annotated[str, OneOf(*ACTIVATIONS)] = option("elu", doc="activation of the forward map")
    bias: bool = option(True, doc="whether the maps add a bias")
    init: Annotated[str, OneOf(*INITS)] = option(
        "uniform",
        doc="initial weights of both maps, though the inverse may have its own, and with zeros must; uniform "
        "is torch's own",
    )

    def __post_init__(self) -> None:
        self.check_inverse(self.activation)

    @property
    def affine_inverse(self) -> bool:
        return self.inverse.affine

    def image(self, input_shape: Shape) -> Shape:
        """Return the (H, W) of the kernel's places.

        Raises:
            RangeError: the input is no image, or smaller than the kernel.
        """
        if len(input_shape) != 3:
            text = f"a {self.kind} layer needs images [C, H, W], not {list(input_shape)}; "
            raise RangeError("kind", f"{text}write model.input as [C, H, W], or a dense layer")
        if min(input_shape[1:]) + 2 * self.padding < self.kernel:
            text = f"{self.kernel} is more than the image of {list(input_shape[1:])} with its padding"
            raise RangeError("kernel", f"{text}; write a smaller kernel or more padding")
        return tuple((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in input_shape[1:])

    def work(self, input_shape: Shape) -> tuple[float, float]:
        products = 2.0 * math.prod(self.image(input_shape)) * self.channels * input_shape[0] * self.kernel**2
        return products, products


@dataclass(frozen=True, kw_only=True)
class ConvOptions(KernelOptions):
    """A convolution of ``channels`` channels, then pooling, then the activation."""

    kind: str = option("conv", doc="conv")
    pool: Annotated[str, OneOf(*POOLINGS)] = option("none", doc="pooling after the convolution")
    pool_kernel: Count = option(2, doc="height and width of a pooling window, pixels")
    pool_stride: Count | None = option(
        None, doc="pixels between two pooling windows; null for pool_kernel, side by side"
    )
    pool_padding: Whole = option(0, doc="padding around the image before pooling, pixels")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inverse.activation_of == "input" and self.inverse.activation == "sigmoid":
            text = "'sigmoid' is not allowed of an input that pooling is undone of; it must be 0 at 0"
            raise RangeError("inverse.activation", text)
        if 2 * self.pool_padding > self.pool_kernel:
            text = f"{self.pool_padding} is not allowed; it must be at most half of pool_kernel"
            raise RangeError("pool_padding", text)

    @property
    def pooling(self) -> Pooling:
        """The layer's pooling."""
        if self.pool == "none":
            return POOLINGS["none"]()
        return POOLINGS[self.pool](self.pool_kernel, self.pool_stride or self.pool_kernel, self.pool_padding)

    def inverse_reads_forward(self, input_shape: Shape) -> bool:
        return self.pool == "max" or super().inverse_reads_forward(input_shape)

    def output_shape(self, input_shape: Shape) -> Shape:
        image, pooling = self.image(input_shape), self.pooling
        if min(image) + 2 * pooling.padding < pooling.kernel:
            text = f"{pooling.kernel} is more than the image of {list(image)} before pooling"
            raise RangeError("pool_kernel", f"{text}; write a smaller one, or pool: none")
        shape = (self.channels, *(pooling.size(side) for side in image))
        self.check_norm(shape)
        return shape

    def _fill(
        self,
        module: Convolution,
        below: int,
        init: str,
        generator: torch.Generator,
        scale: float | None = None,
    ) -> None:
        """Fill in the initial weights of a map between ``below`` and ``channels`` channels."""
        receptive = self.kernel**2
        weight = initial_weight(self.channels, below, init, generator, receptive, scale)
        with torch.no_grad():
            module.weight.copy_(weight.view(module.weight.shape))
            if module.bias is not None:
                module.bias.copy_(initial_bias(len(module.bias), below * receptive, init, generator))

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        below, image, pooling = input_shape[0], self.image(input_shape), self.pooling
        size = (self.channels, self.kernel, self.stride, self.padding)
        conv = with_memory(nn.Conv2d(below, *size, bias=self.bias, device="meta"))
        self._fill(conv, below, self.init, generator)
        first = ConvMap(conv, pooling, self.inner_activation(self.activation), image)
        forward = self.normalized(first, self.activation, self.output_shape(input_shape))
        if not inverse:
            return forward, None
        return self.inverse.paired(forward, self.inverse_map(input_shape, generator), self.activation)

    def products(self, input_shape: Shape) -> list[Product]:
        fans = self.channels, input_shape[0]
        init, scale = self.inverse.init or self.init, self.inverse.scale
        return [Product((*fans, self.kernel, self.kernel), *fans, init, scale, receptive=self.kernel**2)]

    def inverse_map(self, input_shape: Shape, generator: torch.Generator) -> Map:
        """Return g_l alone, with fresh weights: from the output's shape back to ``input_shape``."""
        below, own = input_shape[0], self.inverse
        rest = tuple((side + 2 * self.padding - self.kernel) % self.stride for side in input_shape[1:])
        conv = nn.ConvTranspose2d(
            self.channels,
            below,
            self.kernel,
            self.stride,
            self.padding,
            output_padding=rest,  # type: ignore[arg-type]
            bias=self.bias if own.bias is None else own.bias,
            device="meta",
        )
        self._fill(with_memory(conv), below, own.init or self.init, generator, own.scale)
        after, before = own.activations
        inverse = TransposedConvMap(conv, self.pooling, after, self.image(input_shape), before)
        return self.normalized_inverse(inverse)

    def parameters(self, input_shape: Shape) -> int:
        own = self.channels * input_shape[0] * self.kernel**2 + self.channels * self.bias
        return own + self.norm_parameters(self.output_shape(input_shape))
