"""Fixed-Weight Difference Target Propagation (Shibuya et al. 2023, arXiv 2212.10352).

Reduction: ``Loss`` is the cross-entropy summed over the minibatch, so the output displacement is one per
example and carries no 1/B; squared errors are summed over units and averaged over the minibatch, without
1/2, in every layer, the last one too.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.maps import Call
from dtp_dist.algorithm.options import option
from dtp_dist.algorithm.rules.base import (
    LocalStep,
    Rule,
    TargetRuleOptions,
    one_hot_gap,
    pull_forward,
    toward_target,
)
from dtp_dist.algorithm.rules.dtp import DifferenceTargetPropagation


class FixedWeightDTP(DifferenceTargetPropagation):
    """Difference targets through inverses that stay as they were made: there are no inverse updates."""

    def inverses(self) -> range:
        """g_2 .. g_L: the output's target travels through an inverse too."""
        return range(2, self.layers + 1)

    def learned_inverses(self) -> range:
        """None: the inverses are fixed."""
        return range(0)

    def output(self, logits: Tensor, labels: Tensor) -> Tensor:
        """``delta_L = -stepsize dLoss/dlogits``, Loss the cross-entropy summed over the minibatch."""
        return one_hot_gap(logits, labels) * self.options.output_step

    def propagate(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """``delta_{l-1} = g_l(h_l + delta_l) - g_l(h_l)`` in every layer, the last one too."""
        return self.through_inverse(layer, h_in, h_out, delta, call.inverse())

    def forward_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> LocalStep:
        """Lower ``|| f_l(h_{l-1}) - (anchor + delta_l) ||^2``, the bracket constant, in every layer."""
        pullback = pull_forward(layer, h_in, h_out, call, stored=self._stored)
        return toward_target(pullback, h_out, delta, self.options.anchor, 1.0)

    def inverse_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, sigma: float, call: Call) -> LocalStep:
        """Never called: the inverses are fixed."""
        raise AssertionError("the inverses of fw_dtp do not learn")


@dataclass(frozen=True, kw_only=True)
class FixedWeightOptions(TargetRuleOptions):
    """Fixed-Weight DTP; ``output_step`` is the paper's stepsize."""

    name: str = option("fw_dtp", doc="fw_dtp")
    output_step: float = option(
        0.04, doc="stepsize, length of the output target's step along the gradient", above=0
    )

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        return FixedWeightDTP(self, layers)
