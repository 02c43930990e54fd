"""The matrix products in forward maps: what feedback alignment needs weights of its own for."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dtp_dist.algorithm.layers.initial import initial_weight


class Product(NamedTuple):
    """One product, and how a weight like its own is drawn (``initial_weight``).

    Attributes:
        shape: of its weight.
        receptive: places of a convolution's kernel, 1 of a dense product.
        places: how many weights of ``fan_out`` by ``fan_in * receptive`` it holds, each drawn by itself.
    """

    shape: tuple[int, ...]
    fan_out: int
    fan_in: int
    init: str
    scale: float | None = None
    receptive: int = 1
    places: int = 1

    @property
    def numel(self) -> int:
        """How many numbers its weight has."""
        return math.prod(self.shape)

    def drawn(self, generator: torch.Generator) -> Tensor:
        """Return a fresh weight, float32 on the CPU."""
        size = self.fan_out, self.fan_in, self.init, generator, self.receptive, self.scale
        return torch.stack([initial_weight(*size) for _ in range(self.places)]).view(self.shape)
