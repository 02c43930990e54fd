"""What a layer sees of the layer below: its output, the output's sign, or a binary sample of it.

Lee et al. 2015, sections 3.2 (discrete transmission) and 3.3 (stochastic networks). Nothing here has a
derivative: pullbacks take it as 1 (the straight-through estimator, Bengio et al. 2013). Each applied twice is
the same as applied once, so either end of a link may apply it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.plain import Sample, Sign

REAL, SIGN, SAMPLE = "real", "sign", "sample"
TRANSMISSIONS = (REAL, SIGN, SAMPLE)
PURPOSE = "sample"  # of the random numbers that choose a sample


def sign(h: Tensor) -> Tensor:
    """Return +1 where ``h`` is above 0, else -1, in h's shape and type; the sign of 0 is -1."""
    return (h > 0).to(h.dtype).mul_(2.0).sub_(1.0)


def sample(h: Tensor, uniform: Tensor) -> Tensor:
    """Return 1 with probability ``h`` (taken as 0 below 0 and 1 above 1), else 0, in h's shape and type.

    ``uniform``: numbers in [0, 1), of h's shape.
    """
    return (uniform < h).to(h.dtype)


def transmitted(kind: str, h: Tensor, generator: Callable[[], torch.Generator]) -> Tensor:
    """Return what a link of this ``kind`` lets through of ``h``: ``h`` itself where it is real.

    ``generator`` makes the generator of a sample's uniform numbers, float32 on h's device.
    """
    if kind == SIGN:
        return sign(h)
    if kind == SAMPLE:
        return sample(h, torch.rand(h.shape, generator=generator(), device=h.device))
    return h


MODULES: dict[str, type[nn.Module]] = {SIGN: Sign, SAMPLE: Sample}
