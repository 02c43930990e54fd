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
    init: str = option("uniform", doc="initial weights of both maps; uniform is torch's own", one_of=INITS)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.inverse.check_activation()
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

    def _weighted(
        self, module: Convolution, input_channels: int, generator: torch.Generator, scale: float = 1.0
    ) -> None:
        """Fill in the initial weights of a map between ``input_channels`` and ``channels``."""
        receptive = self.kernel**2
        weight = initial_weight(self.channels, input_channels, self.init, generator, receptive)
        with torch.no_grad():
            module.weight.copy_(weight.view(module.weight.shape)).mul_(scale)
            if module.bias is not None:
                fan_in = input_channels * receptive
                bias = initial_bias(len(module.bias), fan_in, self.init, generator)
                module.bias.copy_(bias).mul_(scale)

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
        self._weighted(conv, below, generator)
        forward = ConvMap(conv, pooling, self.activation, image)
        if not inverse:
            return forward, None
        rest = tuple((side + 2 * self.padding - self.kernel) % self.stride for side in input_shape[1:])
        back = nn.ConvTranspose2d(
            self.channels,
            below,
            self.kernel,
            self.stride,
            self.padding,
            output_padding=rest,  # type: ignore[arg-type]
            bias=self.bias,
            device="meta",
        ).to_empty(device="cpu")
        self._weighted(back, below, generator, self.inverse.init_scale)
        after, before = self.inverse.activations
        return forward, TransposedConvMap(back, pooling, after, image, before)

    def parameters(self, input_shape: Shape) -> int:
        return self.channels * input_shape[0] * self.kernel**2 + self.channels * self.bias

    def work(self, input_shape: Shape) -> tuple[float, float]:
        products = 2.0 * math.prod(self._image(input_shape)) * self.channels * input_shape[0] * self.kernel**2
        return products, products
