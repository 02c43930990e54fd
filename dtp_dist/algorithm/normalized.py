"""Batch normalisation after a map, without learned scale (as in Shibuya et al. 2023, arXiv 2212.10352).

The statistics are those of the minibatch in training, running ones in evaluation (torch's
``BatchNorm1d`` with ``affine=False``). The running ones are buffers; they change in F in training alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.maps import Call, Map, Mode, Pullback


class NormalizedPullback(Pullback):
    """The pullback of ``y = (a - mean(a)) / sqrt(var(a) + eps)``, then that of the inner map a(x).

    ``c' = (c - mean(c) - y mean(c y)) / sqrt(var(a) + eps)``, means over the minibatch, one for each unit.
    """

    def __init__(self, inner: Pullback, eps: float) -> None:
        self._inner, self._eps = inner, eps
        a = inner.output
        self.output, self._mean, self._inverse_deviation = torch.native_batch_norm(
            a, None, None, None, None, training=True, momentum=0.0, eps=eps
        )

    def _pull(self, cotangent: Tensor) -> Tensor:
        found: Any = torch.ops.aten.native_batch_norm_backward(
            cotangent.contiguous(),
            self._inner.output,
            None,
            None,
            None,
            self._mean,
            self._inverse_deviation,
            True,
            self._eps,
            [True, False, False],
        )
        pulled: Tensor = found[0]
        return pulled

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        return self._inner.parameters(self._pull(cotangent))

    def input(self, cotangent: Tensor) -> Tensor:
        return self._inner.input(self._pull(cotangent))


class NormalizedMap(Map):
    """A map of ``units`` units with batch normalisation after it.

    It is no ``closed_form``: the output does not hold the statistics, so ``linearize`` takes today's, at
    today's weights, whatever is stored.
    """

    def __init__(self, inner: Map, units: int) -> None:
        self.norm = nn.BatchNorm1d(units, affine=False)
        super().__init__(nn.Sequential(*inner.torch_modules(), self.norm))
        self.inner = inner

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        a, norm = self.inner(x, call), self.norm
        mean, variance, momentum = norm.running_mean, norm.running_var, 0.0
        if call.mode is Mode.FORWARD:
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            momentum = norm.momentum or momentum
        elif call.mode is Mode.LOCAL:
            mean = variance = None
        training = call.mode is not Mode.EVALUATE
        return torch.native_batch_norm(a, None, None, mean, variance, training, momentum, norm.eps)[0]

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> NormalizedPullback:
        del output
        return NormalizedPullback(self.inner.linearize(x, call), self.norm.eps)

    def torch_modules(self) -> list[nn.Module]:
        return [*self.inner.torch_modules(), self.norm]
