"""torch's RMSprop, and the centred one of Lee et al. 2015."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import nn
from torch.optim import Optimizer

from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.algorithm.optimizers.eager import Eager, EagerRMSprop
from dtp_dist.algorithm.options import NonNegative, Positive, Share, option

PIECE = 32768  # elements worked on at once by an optimizer of many elementwise operations


class CentredRMSprop(Eager):
    """RMSprop on the centred second moment, epsilon inside the root (Lee et al. 2015, published code).

    ``m = a m + (1-a) g; v = a v + (1-a) g^2; s = momentum s - lr g / sqrt(v - m^2 + eps); w += s``.
    torch's ``RMSprop(centered=True)`` adds its epsilon outside the root, which is another algorithm.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, decay: float, momentum: float, eps: float
    ) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Apply one step to every parameter that has a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, parameter.grad, group)
        return loss

    def _step_one(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            for name in ("mean", "square", "velocity"):
                state[name] = torch.zeros_like(parameter)
        decay = group["decay"]
        for value, grad, mean, square, velocity in _pieces(
            parameter, gradient, state["mean"], state["square"], state["velocity"]
        ):
            mean.lerp_(grad, 1 - decay)
            square.mul_(decay).addcmul_(grad, grad, value=1 - decay)
            root = torch.addcmul(square, mean, mean, value=-1).add_(group["eps"]).sqrt_()
            velocity.mul_(group["momentum"]).addcdiv_(grad, root, value=-group["lr"])
            value.add_(velocity)


def _pieces(*tensors: torch.Tensor) -> Iterable[tuple[torch.Tensor, ...]]:
    """Return large tensors of one shape in pieces that stay in a core's cache from one operation to the next.

    Measured on 500 x 784 weights on the CPU: 3.5 times as fast. No bit changes, as all is elementwise.
    """
    whole = tensors[0].numel() <= PIECE or tensors[0].is_cuda
    if whole or not all(tensor.is_contiguous() for tensor in tensors):
        return [tensors]
    return zip(*(torch.split(tensor.view(-1), PIECE) for tensor in tensors), strict=True)


@dataclass(frozen=True, kw_only=True)
class CentredRMSpropOptions(OptimizerOptions):
    """The centred RMSprop of Lee et al. 2015."""

    name: str = option("centred_rmsprop", doc="centred_rmsprop")
    decay: Share = option(0.95, doc="decay of both moments")
    momentum: Share = option(0.9, doc="share of the last step kept")
    eps: Positive = option(0.001, doc="added inside the root")

    @property
    def has_momentum(self) -> bool:
        """Whether ``momentum`` is above 0."""
        return self.momentum > 0

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return ``CentredRMSprop``."""
        return CentredRMSprop(parameters, lr=0.0, decay=self.decay, momentum=self.momentum, eps=self.eps)


@dataclass(frozen=True, kw_only=True)
class RMSpropOptions(OptimizerOptions):
    """torch's RMSprop."""

    name: str = option("rmsprop", doc="rmsprop")
    alpha: Share = option(0.99, doc="decay of the second moment")
    eps: Positive = option(1e-8, doc="added to the root of the second moment")
    momentum: Share = option(0.0, doc="share of the last step kept")
    centered: bool = option(False, doc="subtract the squared mean gradient")
    weight_decay: NonNegative = option(0.0, doc="L2 penalty, per step")

    @property
    def has_momentum(self) -> bool:
        """Whether ``momentum`` is above 0."""
        return self.momentum > 0

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return torch's RMSprop."""
        return EagerRMSprop(
            parameters,
            lr=0.0,
            alpha=self.alpha,
            eps=self.eps,
            momentum=self.momentum,
            centered=self.centered,
            weight_decay=self.weight_decay,
        )
