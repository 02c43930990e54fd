"""torch's SGD."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.algorithm.optimizers.eager import EagerSGD
from dtp_dist.algorithm.options import NonNegative, RangeError, Share, option


@dataclass(frozen=True, kw_only=True)
class SGDOptions(OptimizerOptions):
    """torch's SGD."""

    name: str = option("sgd", doc="sgd")
    momentum: Share = option(0.0, doc="share of the last step kept")
    nesterov: bool = option(False, doc="look ahead (Nesterov); needs a momentum")
    weight_decay: NonNegative = option(0.0, doc="L2 penalty, per step")

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise RangeError("nesterov", "needs a momentum above 0")

    @property
    def has_momentum(self) -> bool:
        """Whether ``momentum`` is above 0."""
        return self.momentum > 0

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return torch's SGD."""
        return EagerSGD(
            parameters,
            lr=0.0,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=True,
        )
