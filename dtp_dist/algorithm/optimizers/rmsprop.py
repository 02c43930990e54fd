"""torch's RMSprop."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.algorithm.optimizers.eager import EagerRMSprop
from dtp_dist.algorithm.options import NonNegative, Positive, Share, option


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
