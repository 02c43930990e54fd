"""Normalisation after a map, over a minibatch (batch) or over an example (layer), then an activation.

Batch statistics are those of the minibatch in training, running ones in evaluation (torch's ``BatchNorm1d``
and ``BatchNorm2d``). The running ones are buffers; they change in F in training alone. A norm that keeps none
is in ``minibatch_norm.py``.

Shapes: a, y and cotangents ``[B, C]`` or ``[B, C, H, W]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.maps.activations import ACTIVATIONS, Activation
from dtp_dist.algorithm.maps.base import Call, Context, Map, Mode, Pullback

aten = torch.ops.aten
Shape = tuple[int, ...]
Pull = Callable[[Tensor, bool], tuple[Tensor, list[Tensor]]]
"""From a cotangent to that of the input and, if wanted, the gradients of scale and shift (none without)."""


class Normalized(NamedTuple):
    """A normalised tensor, its pull, and the statistics (mean, 1 / deviation) that it was made with."""

    output: Tensor
    pull: Pull
    mean: Tensor
    inverse_deviation: Tensor


class Norm(ABC):
    """A normalisation with a learned scale and shift, or without."""

    module: nn.Module

    def _affine(self) -> tuple[Tensor | None, Tensor | None]:
        """Return scale and shift, None for each that there is not."""
        weight, bias = (self.module._parameters[name] for name in ("weight", "bias"))
        return None if weight is None else weight.detach(), None if bias is None else bias.detach()

    def _found(self, pulled: Any, wanted: bool) -> tuple[Tensor, list[Tensor]]:
        """Return what a backward kernel gave as a pull does, gradients in the parameters' types."""
        below, *own = pulled
        learned = list(self.module.parameters()) if wanted else []
        return below, [
            gradient.to(each.dtype) for gradient, each in zip(own[: len(learned)], learned, strict=True)
        ]

    @abstractmethod
    def __call__(self, a: Tensor, mode: Mode) -> Tensor:
        """Return the normalised ``a``, contiguous; statistics that last change in ``FORWARD`` alone."""

    @abstractmethod
    def linearize(self, a: Tensor) -> Normalized:
        """Return the same as in training, with its pull; no statistics change."""


class BatchNorm(Norm):
    """Over the minibatch, and over places where there are such, for each of ``units`` units (channels).

    ``dx = w (c - mean(c) - z mean(c z)) / sqrt(var(a) + eps)``, ``z`` the normalised a.
    """

    module: nn.BatchNorm1d | nn.BatchNorm2d

    def __init__(self, units: int, *, images: bool = False, affine: bool = False) -> None:
        self.module = (nn.BatchNorm2d if images else nn.BatchNorm1d)(units, affine=affine)

    def __call__(self, a: Tensor, mode: Mode) -> Tensor:
        norm = self.module
        mean, variance, momentum = norm.running_mean, norm.running_var, 0.0
        if mode is Mode.FORWARD:
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            momentum = norm.momentum or momentum
        elif mode is Mode.LOCAL:
            mean = variance = None
        training = mode is not Mode.EVALUATE
        return torch.native_batch_norm(a, *self._affine(), mean, variance, training, momentum, norm.eps)[0]

    def linearize(self, a: Tensor) -> Normalized:
        (weight, bias), eps = self._affine(), self.module.eps
        found = torch.native_batch_norm(a, weight, bias, None, None, training=True, momentum=0.0, eps=eps)
        output, mean, inverse_deviation = found

        def pull(cotangent: Tensor, wanted: bool) -> tuple[Tensor, list[Tensor]]:
            statistics = (None, None, mean, inverse_deviation, True, eps)
            mask = [True, wanted and weight is not None, wanted and weight is not None]
            pulled = aten.native_batch_norm_backward(cotangent.contiguous(), a, weight, *statistics, mask)
            return self._found(pulled, wanted)

        return Normalized(output, pull, mean, inverse_deviation)


class LayerNorm(Norm):
    """Over all numbers of an example, the same in training and in evaluation."""

    module: nn.LayerNorm

    def __init__(self, shape: Shape, *, affine: bool = True, eps: float = 1e-5) -> None:
        self.module = nn.LayerNorm(shape, eps=eps, elementwise_affine=affine)

    def __call__(self, a: Tensor, mode: Mode) -> Tensor:
        del mode
        return self.linearize(a).output

    def linearize(self, a: Tensor) -> Normalized:
        (weight, bias), shape = self._affine(), list(self.module.normalized_shape)
        output, mean, inverse_deviation = torch.native_layer_norm(a, shape, weight, bias, self.module.eps)

        def pull(cotangent: Tensor, wanted: bool) -> tuple[Tensor, list[Tensor]]:
            mask = [True, wanted and weight is not None, wanted and weight is not None]
            pulled = aten.native_layer_norm_backward(
                cotangent.contiguous(), a, shape, mean, inverse_deviation, weight, bias, mask
            )
            return self._found(pulled, wanted)

        return Normalized(output, pull, mean, inverse_deviation)


class NormalizedPullback(Pullback):
    """The pullback of ``y = activation(norm(a))``, then that of the inner map a(x)."""

    def __init__(self, inner: Pullback, norm: Norm, activation: Activation) -> None:
        self._inner, self._activation = inner, activation
        normalized = norm.linearize(inner.output)
        self._pull, z = normalized.pull, normalized.output
        self.output = activation.apply(z)
        self._kept = activation.kept(z, self.output)

    def _below(self, cotangent: Tensor, wanted: bool) -> tuple[Tensor, list[Tensor]]:
        return self._pull(self._activation.pull(cotangent, self._kept), wanted)

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        below, own = self._below(cotangent, True)
        return [*self._inner.parameters(below), *own]

    def input(self, cotangent: Tensor) -> Tensor:
        return self._inner.input(self._below(cotangent, False)[0])


class NormalizedMap(Map):
    """A map with a normalisation after it, and an activation after that.

    The output does not hold the statistics, so ``linearize`` takes today's, at today's weights, whatever is
    stored. The context is the inner map's. ``module`` holds the state of all, by default torch's own modules.
    """

    def __init__(
        self, inner: Map, norm: Norm, activation: str = "linear", *, module: nn.Module | None = None
    ) -> None:
        self.inner, self._norm, self.norm = inner, norm, norm.module
        self.activation, self.transmission = ACTIVATIONS[activation], inner.transmission
        super().__init__(nn.Sequential(*self.torch_modules()) if module is None else module)

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self.with_context(x, call)[0]

    def with_context(self, x: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
        a, context = self.inner.with_context(x, call)
        return self.activation.apply(self._norm(a, call.mode)), context

    def with_places(self, x: Tensor, call: Call) -> tuple[Tensor, Context]:
        a, context = self.inner.with_places(x, call)
        return self.activation.apply(self._norm(a, call.mode)), context

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> NormalizedPullback:
        del output
        return NormalizedPullback(self.inner.linearize(x, call), self._norm, self.activation)

    def products(self) -> list[Tensor]:
        return self.inner.products()

    def torch_modules(self) -> list[nn.Module]:
        return [*self.inner.torch_modules(), self.norm, *self.activation.modules()]
