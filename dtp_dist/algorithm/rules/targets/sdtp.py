"""Simplified Difference Target Propagation: no gradient comes from any other layer (Bartunov et al. 2018).

Bartunov, Santoro, Richards, Marris, Hinton, Lillicrap 2018, arXiv 1807.04587, section 2.1.2, algorithm 1 and
appendix 5.1. Differs from dtp in its inverses, g_L among them, which learn to take noise away, and in the
output's target, which is the label itself: ``h_L`` is the predicted distribution there, the softmax of what
f_L gives.

Reduction: squared errors are summed over units and averaged over the minibatch, without 1/2; the output
target is per example; ``Loss`` is a mean over the minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.losses.base import Loss
from dtp_dist.algorithm.maps.base import Call, Map
from dtp_dist.algorithm.maps.prediction import PredictionInverse
from dtp_dist.algorithm.options import Positive, option
from dtp_dist.algorithm.precision import widened
from dtp_dist.algorithm.rules.base import LocalStep, Rule, TargetRuleOptions, mean_square, pull_forward
from dtp_dist.algorithm.rules.targets.difference import DifferenceTargetRule


class SimplifiedDTP(DifferenceTargetRule):
    """Difference targets in every layer, from the label on; the output layer learns by its own loss."""

    def adapted(self, layer: int, inverse: Map) -> Map:
        """``g_L(softmax(z))`` of the logits z (of another loss: what they predict); others as they are."""
        if layer < self.layers:
            return inverse
        return PredictionInverse(inverse, lambda outputs: self.loss.shown(self.loss.predicted(outputs)))

    def exact_updates(self, layers: int) -> range:
        """The output layer."""
        return range(layers, layers + 1)

    def output(self, outputs: Tensor, labels: Tensor, loss: Loss) -> Tensor:
        """``delta_L = target_step (onehot - softmax)``: from what is predicted to the label."""
        return loss.gap(outputs, labels) * (self.options.target_step / loss.slope)

    def through_inverse(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """As in dtp; of the output layer ``delta_{L-1} = g_L(p + delta_L) - g_L(p)``, p what is predicted."""
        inverse = layer.g
        if not isinstance(inverse, PredictionInverse):
            return super().through_inverse(layer, h_in, h_out, delta, call)
        predicted = inverse.predicted(widened(h_out))
        ahead = inverse.inner(predicted + widened(delta), call)
        return ahead.sub_(inverse.inner(predicted, call)).to(delta.dtype)

    def forward_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> LocalStep:
        """Lower ``|| f_l(h_{l-1}) - (anchor + delta_l) ||^2``, the bracket constant; f_L by its loss."""
        if not layer.is_output:
            return super().forward_step(layer, h_in, h_out, delta, call)
        pullback = pull_forward(layer, h_in, h_out, call, stored=self._stored)
        share = self.loss.slope / (self.options.target_step * len(delta))
        return LocalStep(mean_square(delta), pullback.parameters(delta * -share))

    def update_scale(self, layer: Layer, examples: int) -> float | None:
        """1 in f_L, which follows the gradient; other targets begin at what is predicted, not at logits."""
        del examples
        return 1.0 if layer.is_output else None

    def inverse_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, sigma: float, call: Call) -> LocalStep:
        """Lower ``|| g_l(f_l(h + eps)) - h ||^2``, eps ~ N(0, sigma^2), f_l constant: noise is taken away."""
        del h_out
        noisy = call.randomness.normal(h_in, sigma, "noise", call.iteration).add_(h_in)
        pullback = layer.g.linearize(layer.f(noisy, call.forward()), call)
        residual = pullback.output - h_in
        return LocalStep(mean_square(residual), pullback.parameters(residual * (2.0 / len(residual))))


@dataclass(frozen=True, kw_only=True)
class SDTPOptions(TargetRuleOptions):
    """Simplified Difference Target Propagation."""

    name: str = option("sdtp", doc="sdtp")
    target_step: Positive = option(
        1.0, doc="share of the way from what is predicted to the label that the output's target goes"
    )

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        return SimplifiedDTP(self, layers)
