"""Normalisation over the minibatch by its own statistics, always (Shibuya et al. 2023, arXiv 2212.10352).

As in their code: ``z = (a - mean) / d``, ``d = s + 1e-12``, s the unbiased deviation; without scale and
shift, and in evaluation by the statistics of the minibatch that is evaluated. Nothing is kept of one
minibatch for another, so what an example gives depends on those that it comes with.

Shapes: a and cotangents ``[B, C]`` or ``[B, C, H, W]``; statistics over all but C.
"""

from __future__ import annotations

from torch import Tensor

from dtp_dist.algorithm import plain
from dtp_dist.algorithm.maps.base import Mode
from dtp_dist.algorithm.maps.norms.normalized import Norm, Normalized
from dtp_dist.algorithm.precision import widened

EPS = 1e-12
"""Added to the deviation."""


class MinibatchNorm(Norm):
    """``da = (c - mean(c)) / d - (a - mean) sum(c z) / (d s (n - 1))``, n the numbers of each unit."""

    module: plain.MinibatchNorm

    def __init__(self) -> None:
        self.module = plain.MinibatchNorm()

    def __call__(self, a: Tensor, mode: Mode) -> Tensor:
        del mode
        return minibatch_normalized(a)

    def linearize(self, a: Tensor) -> Normalized:
        wide = widened(a)
        mean, deviation = self.module.moments(wide)
        centred, scale = wide - mean, deviation + EPS
        z, over, others = centred / scale, [0, *range(2, a.dim())], a.numel() // a.shape[1] - 1

        def pull(cotangent: Tensor, wanted: bool) -> tuple[Tensor, list[Tensor]]:
            del wanted
            c = widened(cotangent)
            along = (c * z).sum(over, keepdim=True) / (scale * deviation * others)
            along = along.where(deviation > 0, 0.0)  # where all are the same, autograd takes 0 as well
            below = (c - c.mean(over, keepdim=True)) / scale - centred * along
            return below.to(cotangent.dtype).contiguous(), []

        return Normalized(z.to(a.dtype), pull, mean, scale.reciprocal())


def minibatch_normalized(a: Tensor) -> Tensor:
    """Return ``(a - mean) / (s + 1e-12)`` of each unit or channel, of the shape and the type of ``a``."""
    normalized: Tensor = plain.MinibatchNorm()(a)
    return normalized
