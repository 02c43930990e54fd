"""Inverses that read what the outputs predict: ``g(y) = inner(p(y))``, p what a loss makes of outputs.

Shapes: y and p(y) ``[B, K]``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.maps.base import Call, Map, Pullback


class PredictionPullback(Pullback):
    """``dy = (dp/dy)^T dp``, ``dp`` the input's cotangent of the map inside."""

    def __init__(self, of: PredictionInverse, y: Tensor, call: Call) -> None:
        self._leaf = y.detach().requires_grad_()
        with torch.enable_grad():
            self._predicted = of.predicted(self._leaf)
        self._inner = of.inner.linearize(self._predicted.detach(), call)
        self.output = self._inner.output

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        return self._inner.parameters(cotangent)

    def input(self, cotangent: Tensor) -> Tensor:
        pulled = torch.autograd.grad(self._predicted, self._leaf, self._inner.input(cotangent))
        return pulled[0].contiguous()


class PredictionInverse(Map):
    """The inverse of an output layer whose ``inner`` map reads probabilities where the layer gives logits.

    Args:
        predicted: p, differentiable.
    """

    def __init__(self, inner: Map, predicted: Callable[[Tensor], Tensor]) -> None:
        super().__init__(inner.module)
        self.inner, self.predicted = inner, predicted
        self.transmission, self.fixed = inner.transmission, inner.fixed

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self.inner(self.predicted(x), call)

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> PredictionPullback:
        del output
        return PredictionPullback(self, x, call)

    def torch_modules(self) -> list[nn.Module]:
        raise TypeError("an inverse that reads predictions needs its loss, which no torch module has")
