"""Optimizers: torch's own, and the centred RMSprop of Lee et al. 2015.

Adding one is an options class, which builds it, and its line in ``OPTIMIZERS``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, overload

import torch
from torch import nn
from torch.optim import Optimizer

from dtp_dist.algorithm.fused_adam import FusedAdam, FusedAdamW
from dtp_dist.algorithm.numbers import Number, check_number
from dtp_dist.algorithm.options import Options, RangeError, option

PIECE = 32768  # elements worked on at once by an optimizer of many elementwise operations


class CentredRMSprop(Optimizer):
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
class OptimizerOptions(Options):
    """What every optimizer has."""

    name: str = option(doc="which optimizer")
    lr: Number = option(doc="learning rate: a number or a schedule")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("lr", self.lr)

    @abstractmethod
    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return the optimizer of ``parameters``; its learning rate is set before every step."""

    @property
    @abstractmethod
    def has_momentum(self) -> bool:
        """Whether a step keeps a part of the one before, and so foretells the next."""

    def with_memory(self, factor: float) -> OptimizerOptions:
        """Return these options with a first moment that averages over ``factor`` times as many gradients.

        An optimizer without such an average stays as it is: a momentum adds its steps up, so a longer one
        would also raise the rate.
        """
        del factor
        return self


@dataclass(frozen=True, kw_only=True)
class SGDOptions(OptimizerOptions):
    """torch's SGD."""

    name: str = option("sgd", doc="sgd")
    momentum: float = option(0.0, doc="share of the last step kept", at_least=0, below=1)
    nesterov: bool = option(False, doc="look ahead (Nesterov); needs a momentum")
    weight_decay: float = option(0.0, doc="L2 penalty, per step", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise RangeError("nesterov", "needs a momentum above 0")

    @property
    def has_momentum(self) -> bool:
        """Whether ``momentum`` is above 0."""
        return self.momentum > 0

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return torch's SGD."""
        return torch.optim.SGD(
            parameters,
            lr=0.0,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=True,
        )


@dataclass(frozen=True, kw_only=True)
class AdamOptions(OptimizerOptions):
    """torch's Adam."""

    name: str = option("adam", doc="adam")
    beta1: float = option(0.9, doc="decay of the first moment", at_least=0, below=1)
    beta2: float = option(0.999, doc="decay of the second moment", at_least=0, below=1)
    eps: float = option(1e-8, doc="added to the root of the second moment", above=0)
    weight_decay: float = option(0.0, doc="L2 penalty, per step", at_least=0)

    @property
    def has_momentum(self) -> bool:
        """Whether ``beta1`` is above 0."""
        return self.beta1 > 0

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return torch's Adam, in its fused form (half the time on a CPU)."""
        return FusedAdam(parameters, **self._settings())

    def with_memory(self, factor: float) -> AdamOptions:
        """Return these options with a memory ``1 / (1 - beta1)`` that is ``factor`` times as long."""
        return self if factor == 1.0 else replace(self, beta1=1.0 - (1.0 - self.beta1) / factor)

    def _settings(self) -> dict[str, Any]:
        betas = (self.beta1, self.beta2)
        return {"lr": 0.0, "betas": betas, "eps": self.eps, "weight_decay": self.weight_decay, "fused": True}


@dataclass(frozen=True, kw_only=True)
class AdamWOptions(AdamOptions):
    """torch's AdamW: Adam with decoupled weight decay."""

    name: str = option("adamw", doc="adamw")
    weight_decay: float = option(0.01, doc="decoupled weight decay, times the learning rate", at_least=0)

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return torch's AdamW, in its fused form."""
        return FusedAdamW(parameters, **self._settings())


@dataclass(frozen=True, kw_only=True)
class RMSpropOptions(OptimizerOptions):
    """torch's RMSprop."""

    name: str = option("rmsprop", doc="rmsprop")
    alpha: float = option(0.99, doc="decay of the second moment", at_least=0, below=1)
    eps: float = option(1e-8, doc="added to the root of the second moment", above=0)
    momentum: float = option(0.0, doc="share of the last step kept", at_least=0, below=1)
    centered: bool = option(False, doc="subtract the squared mean gradient")
    weight_decay: float = option(0.0, doc="L2 penalty, per step", at_least=0)

    @property
    def has_momentum(self) -> bool:
        """Whether ``momentum`` is above 0."""
        return self.momentum > 0

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return torch's RMSprop."""
        return torch.optim.RMSprop(
            parameters,
            lr=0.0,
            alpha=self.alpha,
            eps=self.eps,
            momentum=self.momentum,
            centered=self.centered,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True, kw_only=True)
class CentredRMSpropOptions(OptimizerOptions):
    """The centred RMSprop of Lee et al. 2015."""

    name: str = option("centred_rmsprop", doc="centred_rmsprop")
    decay: float = option(0.95, doc="decay of both moments", at_least=0, below=1)
    momentum: float = option(0.9, doc="share of the last step kept", at_least=0, below=1)
    eps: float = option(0.001, doc="added inside the root", above=0)

    @property
    def has_momentum(self) -> bool:
        """Whether ``momentum`` is above 0."""
        return self.momentum > 0

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return ``CentredRMSprop``."""
        return CentredRMSprop(parameters, lr=0.0, decay=self.decay, momentum=self.momentum, eps=self.eps)


OPTIMIZERS: dict[str, type[OptimizerOptions]] = {
    "sgd": SGDOptions,
    "adam": AdamOptions,
    "adamw": AdamWOptions,
    "rmsprop": RMSpropOptions,
    "centred_rmsprop": CentredRMSpropOptions,
}
