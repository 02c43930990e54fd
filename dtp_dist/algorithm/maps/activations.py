"""Elementwise activations, each with its derivative written in what is kept of it.

For most that is the *output* y, so a stored activation is enough to take a derivative. ``gelu`` and ``silu``
give one y for two z, so they need the pre-activation z: maps compute it again, at today's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAK = 0.01
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, as torch has them
aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """One activation: ``apply(z) = y``, ``pull(c, kept) = c * dy/dz``, and the torch module that equals it.

    Attributes:
        of_output: whether ``kept`` is y; else it is z.
    """

    apply: Callable[[Tensor], Tensor]
    pull: Callable[[Tensor, Tensor], Tensor]
    module: Callable[[], nn.Module] | None
    of_output: bool = True

    def kept(self, z: Tensor, y: Tensor) -> Tensor:
        """Return which of the two ``pull`` needs."""
        return y if self.of_output else z

    def slopes(self, z: Tensor) -> Tensor:
        """Return the derivative at z, of its shape."""
        return self.pull(torch.ones_like(z), self.kept(z, self.apply(z)))

    def slopes_of_output(self, y: Tensor) -> Tensor:
        """Return the derivative where the output is y; that of ``of_output`` alone has one."""
        return self.pull(torch.ones_like(y), y)

    def modules(self) -> list[nn.Module]:
        """Return the torch module in a list, which is empty for the identity."""
        return [] if self.module is None else [self.module()]


def _pull_elu(cotangent: Tensor, y: Tensor) -> Tensor:
    return torch.where(y > 0, cotangent, cotangent * (y + 1))


def _pull_selu(cotangent: Tensor, y: Tensor) -> Tensor:
    pulled: Tensor = aten.elu_backward(cotangent, SELU_ALPHA, SELU_SCALE, 1.0, True, y)
    return pulled


def _pull_leaky_relu(cotangent: Tensor, y: Tensor) -> Tensor:
    pulled: Tensor = aten.leaky_relu_backward(cotangent, y, LEAK, True)
    return pulled


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(torch.tanh, aten.tanh_backward, nn.Tanh),
    "sigmoid": Activation(torch.sigmoid, aten.sigmoid_backward, nn.Sigmoid),
    "relu": Activation(torch.relu, lambda c, y: c * (y > 0), nn.ReLU),
    "elu": Activation(functional.elu, _pull_elu, nn.ELU),
    "leaky_relu": Activation(functional.leaky_relu, _pull_leaky_relu, nn.LeakyReLU),
    "selu": Activation(torch.selu, _pull_selu, nn.SELU),
    "gelu": Activation(functional.gelu, aten.gelu_backward, nn.GELU, of_output=False),
    "silu": Activation(functional.silu, aten.silu_backward, nn.SiLU, of_output=False),
    "linear": Activation(lambda z: z, lambda c, y: c, None),
}
