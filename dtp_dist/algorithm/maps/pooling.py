"""Pooling and its transpose, without parameters: what convolutional layers do after their product.

A pooling is linear once its *context* is known: the place in each window that a maximum was taken from.
So ``transpose`` is the exact transpose of ``select``, for overlapping windows too.

Shapes: z ``[B, C, H, W]``, y and the context (int64, places within H * W) ``[B, C, H', W']``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Pooling(ABC):
    """Windows of ``kernel`` by ``kernel``, ``stride`` apart, over an image padded by ``padding``."""

    kernel: int = 1
    stride: int = 1
    padding: int = 0

    places_one = True
    """Whether the transpose puts each number of y at a single place of z."""

    def size(self, size: int) -> int:
        """Return the height (width) of y for one of z."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1

    @abstractmethod
    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return y and its context."""

    @abstractmethod
    def select(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Return the y that ``z`` gives in the context of another z."""

    @abstractmethod
    def transpose(self, y: Tensor, context: Tensor | None, image: Shape) -> Tensor:
        """Return the transpose of ``select`` applied to y: ``[B, C, *image]``, image (H, W)."""

    def restore(self, y: Tensor, context: Tensor | None, image: Shape) -> Tensor:
        """Return images ``[B, C, *image]``: at each place the mean of all y it had part in, 0 where none.

        With side by side windows it is the pseudo-inverse of ``select``.
        """
        return self.transpose(y, context, image) / self._parts(y, context, image)

    def restore_transpose(self, z: Tensor, context: Tensor | None, image: Shape, like: Tensor) -> Tensor:
        """Return the transpose of ``restore`` applied to z; ``like`` is a y."""
        return self.select(z / self._parts(like, context, image), context)

    def _parts(self, like: Tensor, context: Tensor | None, image: Shape) -> Tensor:
        """Return how much of all y together each place has part in, 1 where it has none."""
        parts = self.transpose(torch.ones_like(like), context, image)
        return parts.masked_fill_(parts == 0, 1.0)

    @abstractmethod
    def module(self) -> nn.Module | None:
        """Return the torch module that equals it, None for none at all."""


class NoPooling(Pooling):
    """The identity."""

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        return z, None

    def select(self, z: Tensor, context: Tensor | None) -> Tensor:
        del context
        return z

    def transpose(self, y: Tensor, context: Tensor | None, image: Shape) -> Tensor:
        del context, image
        return y

    def module(self) -> nn.Module | None:
        return None


class MaxPooling(Pooling):
    """The maximum of each window; its context is where it was found."""

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        # torch's kernel for images stored channel by channel takes ten times as long as the copy and this
        z = z.to(memory_format=torch.channels_last)
        y, context = max_pool2d(z, self.kernel, self.stride, self.padding, return_indices=True)
        return y.contiguous(), context.contiguous()

    def select(self, z: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None, "a maximum's places are in its context"
        return z.flatten(2).gather(2, context.flatten(2)).view(context.shape)

    def transpose(self, y: Tensor, context: Tensor | None, image: Shape) -> Tensor:
        assert context is not None, "a maximum's places are in its context"
        height, width = image
        z = y.new_zeros(*y.shape[:2], height * width)
        return z.scatter_add_(2, context.flatten(2), y.flatten(2)).view(*y.shape[:2], height, width)

    def module(self) -> nn.Module | None:
        return nn.MaxPool2d(self.kernel, self.stride, self.padding)


class AveragePooling(Pooling):
    """The mean of each window, its padding's zeros included."""

    places_one = False

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.select(z, None), None

    def select(self, z: Tensor, context: Tensor | None) -> Tensor:
        del context
        return avg_pool2d(z, self.kernel, self.stride, self.padding).contiguous()

    def transpose(self, y: Tensor, context: Tensor | None, image: Shape) -> Tensor:
        del context
        like = y.new_empty(*y.shape[:2], *image)
        size, stride, padding = ([number] * 2 for number in (self.kernel, self.stride, self.padding))
        z: Tensor = torch.ops.aten.avg_pool2d_backward(y, like, size, stride, padding, False, True, None)
        return z.contiguous()

    def module(self) -> nn.Module | None:
        return nn.AvgPool2d(self.kernel, self.stride, self.padding)


class GlobalMaxPooling(MaxPooling):
    """The maximum of the whole image."""

    def size(self, size: int) -> int:
        del size
        return 1

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        y, context = z.flatten(2).max(2)
        return y[:, :, None, None], context[:, :, None, None]

    def module(self) -> nn.Module:
        return nn.AdaptiveMaxPool2d(1)


class GlobalAveragePooling(Pooling):
    """The mean of the whole image."""

    places_one = False

    def size(self, size: int) -> int:
        del size
        return 1

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.select(z, None), None

    def select(self, z: Tensor, context: Tensor | None) -> Tensor:
        del context
        return z.mean((-2, -1), keepdim=True)

    def transpose(self, y: Tensor, context: Tensor | None, image: Shape) -> Tensor:
        del context
        return (y / math.prod(image)).expand(*y.shape[:2], *image).contiguous()

    def module(self) -> nn.Module:
        return nn.AdaptiveAvgPool2d(1)


GLOBAL_POOLINGS: dict[str, Callable[[], Pooling]] = {
    "max": GlobalMaxPooling,
    "average": GlobalAveragePooling,
}
POOLINGS: dict[str, Callable[..., Pooling]] = {
    "none": NoPooling,
    "max": MaxPooling,
    "average": AveragePooling,
}
