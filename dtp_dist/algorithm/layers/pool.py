"""Pooling as a layer of its own, of windows or of whole images; no parameters, so nothing to learn.

Its inverse follows from f: a mean is repeated over its window, a maximum is put back to its place (the map's
context), so that side by side windows get what is asked of them, ``f(g(y)) = y``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.layers.base import Shape, UnlearnedOptions
from dtp_dist.algorithm.maps.base import Call, Map, UnlearnedPullback
from dtp_dist.algorithm.maps.pooling import GLOBAL_POOLINGS, POOLINGS, Pooling
from dtp_dist.algorithm.options import Count, OneOf, RangeError, Whole, option


class PoolPullback(UnlearnedPullback):
    """``dx`` is the transpose of the pooling, in the context of its x."""

    def __init__(self, pool: PoolMap, output: Tensor, context: Tensor | None) -> None:
        self._pool, self.output, self._context = pool, output, context

    def input(self, cotangent: Tensor) -> Tensor:
        pool = self._pool
        return pool.pooling.transpose(cotangent.reshape(-1, *pool.pooled), self._context, pool.image)


class PoolMap(Map):
    """Images ``[B, C, *image]`` to ``[B, *shape]``; ``pooled`` is the shape [C, H', W'] before flattening."""

    def __init__(self, pooling: Pooling, image: Shape, pooled: Shape, shape: Shape) -> None:
        module = pooling.module()
        assert module is not None
        super().__init__(module)
        self.pooling, self.image, self.pooled, self.shape = pooling, image, pooled, shape

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self.with_context(x, call)[0]

    def with_context(self, x: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
        del call
        y, context = self.pooling(x)
        return y.reshape(len(x), *self.shape), context

    with_places = with_context

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> PoolPullback:
        y, context = self.with_context(x, call) if output is None else (output, call.context)
        return PoolPullback(self, y, context)

    def torch_modules(self) -> list[nn.Module]:
        return [self.module, *([nn.Flatten()] if self.shape != self.pooled else [])]


class RestoringPullback(UnlearnedPullback):
    """``dy`` is the transpose of the restoring, which is linear in its context."""

    def __init__(self, inverse: RestoringMap, y: Tensor, call: Call) -> None:
        self._inverse, self._y, self._call = inverse, y, call
        self.output = inverse(y, call)

    def input(self, cotangent: Tensor) -> Tensor:
        pool = self._inverse.pool
        like = self._y.reshape(-1, *pool.pooled)
        found = pool.pooling.restore_transpose(cotangent, self._call.context, pool.image, like)
        return found.view(self._y.shape)


class RestoringMap(Map):
    """The inverse of a ``PoolMap``, in the context that F left for the minibatch."""

    fixed = True

    def __init__(self, pool: PoolMap) -> None:
        super().__init__(nn.Module())
        self.pool = pool

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self.pool.pooling.restore(x.reshape(-1, *self.pool.pooled), call.context, self.pool.image)

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> RestoringPullback:
        del output
        return RestoringPullback(self, x, call)

    def torch_modules(self) -> list[nn.Module]:
        raise TypeError("an inverse needs its pooling's context, which no sequence of torch modules has")


@dataclass(frozen=True, kw_only=True)
class PoolOptions(UnlearnedOptions):
    """The maximum or the mean of windows of an image, or of each channel's whole image."""

    kind: str = option("pool", doc="pool")
    pool: Annotated[str, OneOf(*GLOBAL_POOLINGS)] = option(doc="what is taken of a window")
    kernel: Count | Literal["global"] = option(
        2, doc="height and width of a window, pixels; global for the whole image, which gives flat output [C]"
    )
    stride: Count | None = option(None, doc="pixels between two windows; null for kernel, side by side")
    padding: Whole = option(0, doc="padding around the image, pixels on each side (zeros count in a mean)")

    def __post_init__(self) -> None:
        if self.kernel == "global":
            for key, value in (("stride", self.stride), ("padding", self.padding)):
                if value:
                    raise RangeError(key, f"{value} is not allowed with kernel: global; leave it out")
        elif 2 * self.padding > self.kernel:
            text = f"{self.padding} is not allowed; it must be at most half of kernel"
            raise RangeError("padding", text)

    @property
    def pooling(self) -> Pooling:
        """What is done to an image."""
        if self.kernel == "global":
            return GLOBAL_POOLINGS[self.pool]()
        return POOLINGS[self.pool](self.kernel, self.stride or self.kernel, self.padding)

    def _pooled(self, input_shape: Shape) -> Shape:
        """Return the shape [C, H', W'] of one pooled example."""
        if len(input_shape) != 3:
            text = f"a pool layer needs images [C, H, W], not {list(input_shape)}; "
            raise RangeError("kind", f"{text}write model.input as [C, H, W], and no flatten before it")
        image, pooling = input_shape[1:], self.pooling
        if self.kernel != "global" and min(image) + 2 * pooling.padding < pooling.kernel:
            text = f"{pooling.kernel} is more than the image of {list(image)} with its padding"
            raise RangeError("kernel", f"{text}; write a smaller kernel, or kernel: global")
        return (input_shape[0], *(pooling.size(side) for side in image))

    def inverse_reads_forward(self, input_shape: Shape) -> bool:
        del input_shape
        return self.pool == "max"

    def output_shape(self, input_shape: Shape) -> Shape:
        pooled = self._pooled(input_shape)
        return pooled[:1] if self.kernel == "global" else pooled

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        del generator
        shapes = (input_shape[1:], self._pooled(input_shape), self.output_shape(input_shape))
        forward = PoolMap(self.pooling, *shapes)
        return forward, RestoringMap(forward) if inverse else None
