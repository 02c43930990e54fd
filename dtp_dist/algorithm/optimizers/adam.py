"""torch's Adam and AdamW, in their fused form with less around its kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.algorithm.optimizers.eager import EagerAdam
from dtp_dist.algorithm.options import NonNegative, Positive, Share, option


class FusedAdam(EagerAdam):
    """torch's Adam: the same state, the same kernel, the same bits.

    What torch's own ``step`` does around the kernel (profiler records, sorting tensors by device and type) is
    made for many parameter groups on many devices. A stage has one of each, and with small layers that work
    took as long as the kernel; twice a minibatch in every stage, it was most of what cutting a network into
    stages cost. The first step, which makes the state, is torch's own.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Apply one step to every parameter that has a gradient; all are on one device, of one type."""
        loss = None if closure is None else closure()
        [group] = self.param_groups
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        states = [self.state[parameter] for parameter in parameters]
        if not all(states):
            super().step()
            return loss
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1.0)
        kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        kernel(
            parameters,
            [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
        return loss

    step.hooked = True  # type: ignore[attr-defined]  # torch wraps no step that says so in a profiler's record


class FusedAdamW(FusedAdam, torch.optim.AdamW):
    """torch's AdamW, as ``FusedAdam`` is torch's Adam."""


@dataclass(frozen=True, kw_only=True)
class AdamOptions(OptimizerOptions):
    """torch's Adam."""

    name: str = option("adam", doc="adam")
    beta1: Share = option(0.9, doc="decay of the first moment")
    beta2: Share = option(0.999, doc="decay of the second moment")
    eps: Positive = option(1e-8, doc="added to the root of the second moment")
    weight_decay: NonNegative = option(0.0, doc="L2 penalty, per step")

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
    weight_decay: NonNegative = option(0.01, doc="decoupled weight decay, times the learning rate")

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return torch's AdamW, in its fused form."""
        return FusedAdamW(parameters, **self._settings())
