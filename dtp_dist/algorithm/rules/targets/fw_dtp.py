"""Fixed-Weight Difference Target Propagation (Shibuya et al. 2023, arXiv 2212.10352).

Reduction: ``Loss`` is summed over the minibatch, so the output displacement is one per
example and carries no 1/B; squared errors are summed over units and averaged over the minibatch, without
1/2, in every layer, the last one too.

With batch normalisation (their code's FWDTP-BN) f_l and g_l end in a norm over the minibatch, and so do
targets: ``t_{l-1} = BN(h_{l-1} + g_l(t_l) - g_l(h_l))``, ``delta_{l-1} = t_{l-1} - h_{l-1}``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.maps.norms.minibatch_norm import minibatch_normalized
from dtp_dist.algorithm.options import Positive, option
from dtp_dist.algorithm.precision import widened
from dtp_dist.algorithm.rules.base import LocalStep, Rule, TargetRuleOptions
from dtp_dist.algorithm.rules.targets.difference import DifferenceTargetRule
from dtp_dist.phase import Phase


class FixedWeightDTP(DifferenceTargetRule):
    """Difference targets in every layer, through inverses that stay as they were made."""

    def __init__(self, options: FixedWeightOptions, layers: int) -> None:
        super().__init__(options, layers)
        self.normalizes_targets = options.normalize_targets

    def reads_input(self, layer: int, phase: Phase) -> bool:
        """A target that is normalised is one of h_{l-1} itself."""
        return self.normalizes_targets and layer > 1

    def through_inverse(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """As in dtp; if targets are normalised, ``BN(h_{l-1} + g_l(h_l + delta_l) - g_l(h_l)) - h_{l-1}``."""
        below = super().through_inverse(layer, h_in, h_out, delta, call)
        if not self.normalizes_targets:
            return below
        wide = widened(h_in)
        return minibatch_normalized(wide + widened(below)).sub_(wide).to(delta.dtype)

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

    normalize_targets: bool = option(
        False,
        doc="whether a target is normalised over the minibatch, as the outputs are that it is of: below the "
        "last, every layer must have norm: minibatch after its activation",
    )

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        return FixedWeightDTP(self, layers)
