"""Fixed-Weight Difference Target Propagation (Shibuya et al. 2023, arXiv 2212.10352).

Reduction: ``Loss`` is summed over the minibatch, so the output displacement is one per
example and carries no 1/B; squared errors are summed over units and averaged over the minibatch, without
1/2, in every layer, the last one too.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.options import Positive, option
from dtp_dist.algorithm.rules.base import LocalStep, Rule, TargetRuleOptions
from dtp_dist.algorithm.rules.difference import DifferenceTargetRule


class FixedWeightDTP(DifferenceTargetRule):
    """Difference targets in every layer, through inverses that stay as they were made."""

    def learned_inverses(self) -> range:
        """None: the inverses are fixed."""
        return range(0)

    def inverse_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, sigma: float, call: Call) -> LocalStep:
        """Never called: the inverses are fixed."""
        raise AssertionError("the inverses of fw_dtp do not learn")


@dataclass(frozen=True, kw_only=True)
class FixedWeightOptions(TargetRuleOptions):
    """Fixed-Weight DTP; ``target_step`` is the paper's stepsize."""

    name: str = option("fw_dtp", doc="fw_dtp")
    target_step: Positive = option(
        0.04, doc="stepsize, length of the output target's step along the gradient"
    )

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        return FixedWeightDTP(self, layers)
