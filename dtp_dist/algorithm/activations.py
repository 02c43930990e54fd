"""Elementwise activations, each with its derivative written in its *output* y.

So a stored activation is enough to take a derivative: no pre-activation is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Activation:
    """One activation: ``apply(z) = y``, ``pull(c, y) = c * dy/dz``, and the torch module that equals it."""

    apply: Callable[[Tensor], Tensor]
    pull: Callable[[Tensor, Tensor], Tensor]
    module: Callable[[], nn.Module] | None


def _pull_elu(cotangent: Tensor, y: Tensor) -> Tensor:
    return torch.where(y > 0, cotangent, cotangent * (y + 1))


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(torch.tanh, torch.ops.aten.tanh_backward, nn.Tanh),
    "sigmoid": Activation(torch.sigmoid, torch.ops.aten.sigmoid_backward, nn.Sigmoid),
    "relu": Activation(torch.relu, lambda c, y: c * (y > 0), nn.ReLU),
    "elu": Activation(torch.nn.functional.elu, _pull_elu, nn.ELU),
    "linear": Activation(lambda z: z, lambda c, y: c, None),
}
