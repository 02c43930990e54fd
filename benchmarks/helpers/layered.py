"""Optimizers that step all layers of a kind at once, each layer with its own rate and memory.

Weights ``[layers, rows, inputs]``, or without the first dimension for one layer; rates, memories broadcast.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
BETA2, EPS = 0.999, 1e-8
SOAP_BETA2, SOAP_EVERY, SOAP_MOST = 0.95, 10, 512
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Mover(Protocol):
    """Moves one parameter, in place."""

    def __init__(self, parameter: Tensor, beta1: Tensor) -> None: ...

    def step(self, gradient: Tensor, rate: Tensor | float) -> None:
        """Take one step."""


def columns(values: Tensor) -> Tensor:
    """Return one value a layer so that it goes with ``[layers, rows, inputs]``."""
    return values.view(-1, 1, 1)


class Adam:
    """Adam."""

    def __init__(self, parameter: Tensor, beta1: Tensor) -> None:
        self.parameter, self.beta1, self.t = parameter, beta1, 0
        self.mean, self.square = torch.zeros_like(parameter), torch.zeros_like(parameter)

    def step(self, gradient: Tensor, rate: Tensor | float) -> None:
        """Take one step."""
        self.t += 1
        self.mean.mul_(self.beta1).add_(gradient * (1 - self.beta1))
        self.square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        root = (self.square / (1 - BETA2**self.t)).sqrt_().add_(EPS)
        self.parameter.sub_(self.mean / (1 - self.beta1**self.t) * rate / root)


class Muon:
    """Muon without Nesterov and weight decay, at a rate that suits AdamW, in float32."""

    def __init__(self, parameter: Tensor, beta1: Tensor) -> None:
        self.parameter, self.beta1 = parameter, beta1
        self.mean = torch.zeros_like(parameter)

    def step(self, gradient: Tensor, rate: Tensor | float) -> None:
        """Take one step."""
        self.mean.mul_(self.beta1).add_(gradient * (1 - self.beta1))
        factor = 0.2 * max(self.parameter.shape[-2:]) ** 0.5
        self.parameter.sub_(_orthogonal(self.mean) * (rate * factor))


def _orthogonal(value: Tensor) -> Tensor:
    """Return matrices with all singular values near 1, by five Newton-Schulz iterations."""
    tall = value.shape[-2] > value.shape[-1]
    x = value.transpose(-1, -2) if tall else value
    x = x / x.flatten(-2).norm(dim=-1).view(*x.shape[:-2], 1, 1).clamp_min(1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(-1, -2) if tall else x


class Soap:
    """SOAP without weight decay; a side longer than ``SOAP_MOST`` is not rotated."""

    def __init__(self, parameter: Tensor, beta1: Tensor) -> None:
        self.parameter = parameter if parameter.dim() == 3 else parameter.unsqueeze(0)
        self.beta1, self.t = beta1, -1
        self.mean, self.square = torch.zeros_like(self.parameter), torch.zeros_like(self.parameter)
        self.factors: dict[int, Tensor] = {}
        self.bases: dict[int, Tensor] = {}

    def step(self, gradient: Tensor, rate: Tensor | float) -> None:
        """Take one step; the first gradient makes the bases alone."""
        gradient, self.t = gradient.view_as(self.parameter), self.t + 1
        if self.t:
            rotated = self._rotated(gradient)
            self.mean = self.mean * self.beta1 + rotated * (1 - self.beta1)
            self.square.mul_(SOAP_BETA2).addcmul_(rotated, rotated, value=1 - SOAP_BETA2)
            correction = (1 - SOAP_BETA2**self.t) ** 0.5 / (1 - self.beta1**self.t)
            self.parameter.sub_(
                self._rotated(self.mean / (self.square.sqrt() + EPS), back=True) * rate * correction
            )
        for side, size in enumerate(self.parameter.shape[1:]):
            if size <= SOAP_MOST:
                rows = gradient if side == 0 else gradient.transpose(1, 2)
                factor = self.factors.setdefault(side, gradient.new_zeros(len(gradient), size, size))
                factor.lerp_(rows @ rows.transpose(1, 2), 1 - SOAP_BETA2)
        if self.t == 0:
            self.bases = {side: torch.linalg.eigh(each)[1].flip(-1) for side, each in self.factors.items()}
        elif self.t % SOAP_EVERY == 0:
            self._turn()

    def _turn(self) -> None:
        mean = self._rotated(self.mean, back=True)
        for side, factor in self.factors.items():
            power = factor @ self.bases[side]
            order = (self.bases[side] * power).sum(-2).argsort(-1, descending=True)
            places = order.unsqueeze(2 if side == 0 else 1).expand_as(self.square)
            self.square = self.square.gather(side + 1, places)
            self.bases[side] = torch.linalg.qr(power.gather(2, order.unsqueeze(1).expand_as(power)))[0]
        self.mean = self._rotated(mean)

    def _rotated(self, value: Tensor, *, back: bool = False) -> Tensor:
        for side, basis in self.bases.items():
            turn = basis if back else basis.transpose(1, 2)
            value = turn @ value if side == 0 else value @ turn.transpose(1, 2)
        return value


MOVERS: dict[str, type[Mover]] = {"adam": Adam, "muon": Muon, "soap": Soap}
BIASES = ("first bias", "middle bias", "last bias")
"""What Adam moves whatever moves the weights."""
