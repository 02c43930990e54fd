"""Convolutional layers: ``f(x) = a(pool(w * x + b))`` and a transposed convolution back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from dtp_dist.algorithm.activations import ACTIVATIONS
from dtp_dist.algorithm.conv_maps import ConvMap, Convolution, TransposedConvMap
from dtp_dist.algorithm.layers.base import LayerOptions, Shape
from dtp_dist.algorithm.layers.initial import INITS, initial_bias, initial_weight
from dtp_dist.algorithm.maps import Map
from dtp_dist.algorithm.options import RangeError, option
from dtp_dist.algorithm.pooling import POOLINGS, Pooling


@dataclass(frozen=True, kw_only=True)
class ConvOptions(LayerOptions):
    """A convolution of ``channels`` channels, then pooling, then the activation."""

    kind: str = option("conv", doc="conv")
    channels: int = option(doc="channels of the output", at_least=1)
    kernel: int = option(3, doc="height and width of the kernel, pixels", at_least=1)
    stride: int = option(1, doc="pixels between two places of the kernel", at_least=1)
    padding: int = option(0, doc="zeros around the image, pixels on each side", at_least=0)
    pool: str = option("none", doc="pooling after the convolution", one_of=tuple(POOLINGS))
    pool_kernel: int = option(2, doc="height and width of a pooling window, pixels", at_least=1)
    pool_stride: int | None = option(
        None, doc="pixels between two pooling windows; null for pool_kernel, side by side", at_least=1
    )
    pool_padding: int = option(0, doc="padding around the image before pooling, pixels", at_least=0)
    activation: str = option("elu", doc="activation of the forward map", one_of=tuple(ACTIVATIONS))
    bias: bool = option(True, doc="whether the maps add a bias")
    init: str = option(
        "uniform",
        doc="initial weights of both maps, though the inverse may have its own; uniform is torch's own",
        one_of=INITS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.inverse.check_names()
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

    def _image(self, input_shape: Shape) -> Shape:
        """Return the (H, W) behind the convolution, before pooling."""
        if len(input_shape) != 3:
            text = f"a conv layer needs images [C, H, W], not {list(input_shape)}; "
            raise RangeError("kind", f"{text}write model.input as [C, H, W], or a dense layer")
        if min(input_shape[1:]) + 2 * self.padding < self.kernel:
            text = f"{self.kernel} is more than the image of {list(input_shape[1:])} with its padding"
            raise RangeError("kernel", f"{text}; write a smaller kernel or more padding")
        return tuple((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in input_shape[1:])

    def output_shape(self, input_shape: Shape) -> Shape:
        image, pooling = self._image(input_shape), self.pooling
        if min(image) + 2 * pooling.padding < pooling.kernel:
            text = f"{pooling.kernel} is more than the image of {list(image)} before pooling"
            raise RangeError("pool_kernel", f"{text}; write a smaller one, or pool: none")
        return (self.channels, *(pooling.size(side) for side in image))

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

    @property
    def affine_inverse(self) -> bool:
        return self.inverse.activations[0] == "linear"

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        below, image, pooling = input_shape[0], self._image(input_shape), self.pooling
        conv = nn.Conv2d(
            below, self.channels, self.kernel, self.stride, self.padding, bias=self.bias, device="meta"
        ).to_empty(device="cpu")
        self._fill(conv, below, self.init, generator)
        forward = ConvMap(conv, pooling, self.activation, image)
        return forward, self._inverse(input_shape, generator) if inverse else None

    def _inverse(self, input_shape: Shape, generator: torch.Generator) -> Map:
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
        ).to_empty(device="cpu")
        self._fill(conv, below, own.init or self.init, generator, own.scale)
        after, before = own.activations
        return TransposedConvMap(conv, self.pooling, after, self._image(input_shape), before)

    def parameters(self, input_shape: Shape) -> int:
        return self.channels * input_shape[0] * self.kernel**2 + self.channels * self.bias

    def work(self, input_shape: Shape) -> tuple[float, float]:
        products = 2.0 * math.prod(self._image(input_shape)) * self.channels * input_shape[0] * self.kernel**2
        return products, products
