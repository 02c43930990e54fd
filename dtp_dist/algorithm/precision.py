"""Types of the arithmetic where a layer's own is too narrow."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    """Return a tensor in float32 at least: a short displacement is lost in a bfloat16 sum."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
