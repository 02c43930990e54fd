"""Difference Target Propagation (Lee, Zhang, Fischer, Bengio 2015, arXiv 1412.7525).

Reduction: squared errors are summed over units and averaged over the minibatch, without 1/2; ``Loss``
is the mean cross-entropy, so the output displacement carries 1/B.
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
    difference_target,
    mean_square,
    one_hot_gap,
    pull_forward,
    toward_target,
)


class DifferenceTargetPropagation(Rule):
    """Targets through learned inverses, corrected by their reconstruction (Lee et al. 2015, eq. 15)."""

    def __init__(self, options: TargetRuleOptions, layers: int) -> None:
        self.options, self.layers = options, layers
        self._stored = options.stores_jacobian

    def inverses(self) -> range:
        """g_2 .. g_{L-1}: layer 1 needs no target for the data, layer L has the loss's own gradient."""
        return range(2, self.layers)

    def reads_input(self, layer: int, phase: str) -> bool:
        """The inverse loss alone does."""
        return layer in self.learned_inverses() and phase != "forward"

    def output(self, logits: Tensor, labels: Tensor) -> Tensor:
        """``delta_L = -dLoss/dlogits``, Loss the mean cross-entropy of the minibatch."""
        return one_hot_gap(logits, labels) / len(logits)

    def propagate(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """``delta_{L-1} = -eta dLoss/dh_{L-1}``; below, ``delta_{l-1} = g_l(h_l + delta_l) - g_l(h_l)``."""
        if layer.is_output:
            pullback = pull_forward(layer, h_in, h_out, call, stored=self._stored)
            return pullback.input(delta) * self.options.output_step
        return self.through_inverse(layer, h_in, h_out, delta, call.inverse())

    def through_inverse(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """Return the displacement below a hidden layer, of h_in's shape."""
        del h_in
        return difference_target(layer, h_out, delta, call)

    def forward_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> LocalStep:
        """Lower ``|| f_l(h_{l-1}) - (anchor + delta_l) ||^2``, the bracket constant; f_L by its loss."""
        pullback = pull_forward(layer, h_in, h_out, call, stored=self._stored)
        if layer.is_output:
            return LocalStep(mean_square(delta), pullback.parameters(-delta))
        return toward_target(pullback, h_out, delta, self.options.anchor, 1.0)

    def inverse_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, sigma: float, call: Call) -> LocalStep:
        """Lower ``|| g_l(f_l(h + eps)) - (h + eps) ||^2``, eps ~ N(0, sigma^2), f_l constant (eq. 13)."""
        del h_out
        noisy = call.randomness.normal(h_in, sigma, "noise", call.iteration).add_(h_in)
        pullback = layer.g.linearize(layer.f(noisy, call.forward()), call)
        residual = pullback.output - noisy
        return LocalStep(mean_square(residual), pullback.parameters(residual * (2.0 / len(residual))))


@dataclass(frozen=True, kw_only=True)
class DTPOptions(TargetRuleOptions):
    """Difference Target Propagation."""

    name: str = option("dtp", doc="dtp")

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        return DifferenceTargetPropagation(self, layers)
