"""SOAP: Adam in the eigenbasis of the gradients' covariances, also called basis rotation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.algorithm.optimizers.eager import Eager
from dtp_dist.algorithm.options import Count, NonNegative, Positive, Share, option

Bases = list[Tensor | None]
"""Of each dimension, None where it is not rotated. Products are of contiguous tensors, so that no bit depends
on how a parameter lies in memory, or its state after it was put back."""


class SOAP(Eager):
    """Adam where the gradients of a matrix are nearly uncorrelated (Vyas et al. 2025, their published code).

    For a gradient ``G [m, n]``, ``L`` and ``R`` are averages of ``G G^T`` and ``G^T G``, and the columns of
    ``Q_L``, ``Q_R`` their eigenvectors, brought up to date every ``every`` steps by one product and a QR
    decomposition. With ``G' = Q_L^T G Q_R`` ::

        M = beta1 M + (1 - beta1) G';  V = beta2 V + (1 - beta2) G'^2
        W -= lr sqrt(1 - beta2^t) / (1 - beta1^t) Q_L (M / (sqrt(V) + eps)) Q_R^T;  W -= lr weight_decay W

    The first gradient makes the bases and moves nothing. Of a parameter of more dimensions each is rotated,
    of a vector none. A dimension longer than ``max_dim`` stays as it is.

    Jung et al. 2026 (arXiv 2602.03515) rotate Adam's basis against delayed gradients, by their code's example
    from both sides, with covariances of gradients, every 10 steps: that is this optimizer.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        *,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        covariance: float,
        every: int,
        max_dim: int,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "covariance": covariance, "every": every, "max_dim": max_dim})

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
                    self._step_one(parameter, parameter.grad.contiguous(), group)
        return loss

    def _step_one(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "step" not in state:
            _begin(state, gradient, group["max_dim"])
            _average(state, gradient, group["covariance"])
            for dim in _rotated_dims(state, gradient):
                state[f"basis{dim}"] = torch.linalg.eigh(state[f"factor{dim}"])[1].flip(1).contiguous()
            return
        state["step"] += 1
        self._move(parameter, gradient, state, group)
        _average(state, gradient, group["covariance"])
        if state["step"] % group["every"] == 0:
            _turn(state)

    def _move(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """Take Adam's step in the bases of now."""
        (beta1, beta2), bases = group["betas"], _bases(state, gradient)
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        rotated = _rotate(gradient, bases)
        mean.mul_(beta1).add_(rotated, alpha=1 - beta1)
        square.mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
        move = _rotate(mean / square.sqrt().add_(group["eps"]), bases, back=True)
        correction = (1 - beta2 ** state["step"]) ** 0.5 / (1 - beta1 ** state["step"])
        parameter.add_(move, alpha=-group["lr"] * correction)
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])


def _begin(state: dict[str, Any], gradient: Tensor, max_dim: int) -> None:
    """Make a parameter's state: moments in the rotated basis, a covariance of each dimension it rotates."""
    state["step"] = 0
    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    for dim, size in enumerate(gradient.shape if gradient.dim() > 1 else ()):
        if size <= max_dim:
            state[f"factor{dim}"] = gradient.new_zeros(size, size)


def _rotated_dims(state: dict[str, Any], gradient: Tensor) -> list[int]:
    return [dim for dim in range(gradient.dim()) if f"factor{dim}" in state]


def _bases(state: dict[str, Any], gradient: Tensor) -> Bases:
    found = (state.get(f"basis{dim}") for dim in range(gradient.dim()))
    return [None if basis is None else basis.contiguous() for basis in found]


def _average(state: dict[str, Any], gradient: Tensor, decay: float) -> None:
    """Average the covariance of each dimension over the gradients."""
    for dim in _rotated_dims(state, gradient):
        rows = gradient.movedim(dim, 0).flatten(1)
        state[f"factor{dim}"].lerp_(rows @ rows.T, 1 - decay)


def _turn(state: dict[str, Any]) -> None:
    """Bring the bases up to date: one power iteration, largest eigenvalue first; the mean moves along.

    The second moment keeps its place by rank and is else left as it is, as in the published code.
    """
    mean = _rotate(state["exp_avg"], _bases(state, state["exp_avg"]), back=True)
    for dim in _rotated_dims(state, mean):
        factor, basis = (state[f"{name}{dim}"].contiguous() for name in ("factor", "basis"))
        power = factor @ basis
        order = torch.argsort((basis * power).sum(0), descending=True, stable=True)
        state["exp_avg_sq"] = state["exp_avg_sq"].index_select(dim, order)
        state[f"basis{dim}"] = torch.linalg.qr(power[:, order])[0].contiguous()
    state["exp_avg"] = _rotate(mean, _bases(state, mean)).contiguous()


def _rotate(value: Tensor, bases: Bases, *, back: bool = False) -> Tensor:
    """Return a tensor in the bases of its dimensions, or from them ``back`` in the parameter's own."""
    value = value.contiguous()
    for basis in bases:
        value = (
            value.movedim(0, -1) if basis is None else torch.tensordot(value, basis, dims=([0], [int(back)]))
        )
    return value


@dataclass(frozen=True, kw_only=True)
class SOAPOptions(OptimizerOptions):
    """SOAP (Vyas et al. 2025): Adam in the eigenbasis of the gradients' covariances; plain for vectors."""

    name: str = option("soap", doc="soap")
    beta1: Share = option(0.95, doc="decay of the first moment")
    beta2: Share = option(0.95, doc="decay of the second moment")
    eps: Positive = option(1e-8, doc="added to the root of the second moment")
    weight_decay: NonNegative = option(0.01, doc="decoupled weight decay, times the learning rate")
    covariance: Share | None = option(None, doc="decay of the covariances; null for beta2")
    every: Count = option(10, doc="steps between two updates of the bases")
    max_dim: Count = option(10000, doc="a dimension longer than that is not rotated")

    @property
    def has_momentum(self) -> bool:
        """Whether ``beta1`` is above 0."""
        return self.beta1 > 0

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return ``SOAP``."""
        return SOAP(
            parameters,
            lr=0.0,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            weight_decay=self.weight_decay,
            covariance=self.beta2 if self.covariance is None else self.covariance,
            every=self.every,
            max_dim=self.max_dim,
        )

    def with_memory(self, factor: float) -> SOAPOptions:
        """Return these options with a memory ``1 / (1 - beta1)`` that is ``factor`` times as long."""
        return self if factor == 1.0 else replace(self, beta1=1.0 - (1.0 - self.beta1) / factor)
