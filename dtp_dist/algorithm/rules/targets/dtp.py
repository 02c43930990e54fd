"""Difference Target Propagation (Lee, Zhang, Fischer, Bengio 2015, arXiv 1412.7525).

Reduction: squared errors are summed over units and averaged over the minibatch, without 1/2; ``Loss``
is a mean over the minibatch, so the output displacement carries 1/B.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.losses.base import Loss
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.options import option
from dtp_dist.algorithm.rules.base import (
    LocalStep,
    Rule,
    TargetRuleOptions,
    mean_square,
    pull_forward,
)
from dtp_dist.algorithm.rules.targets.difference import DifferenceTargetRule


class DifferenceTargetPropagation(DifferenceTargetRule):
    """Learned inverses below an output layer that follows its loss's own gradient."""

    def inverses(self) -> range:
        """g_2 .. g_{L-1}: layer 1 needs no target for the data, layer L has the loss's own gradient."""
        return range(2, self.layers)

    def exact(self, layers: int) -> range:
        """The output layer and the one below it, which get the gradient itself."""
        return range(layers - 1, layers + 1)

    def exact_updates(self, layers: int) -> range:
        """Those of ``exact``; with a stale anchor the output layer, which learns by its loss."""
        return range(layers, layers + 1) if self.options.anchor == "stale" else self.exact(layers)

    def output(self, outputs: Tensor, labels: Tensor, loss: Loss) -> Tensor:
        """``delta_L = -dLoss/dh_L``, Loss the mean of the minibatch."""
        return loss.gap(outputs, labels) / len(outputs)

    def propagate(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """``delta_{L-1} = -eta dLoss/dh_{L-1}``; below, ``delta_{l-1} = g_l(h_l + delta_l) - g_l(h_l)``."""
        if layer.is_output:
            pullback = pull_forward(layer, h_in, h_out, call, stored=self._stored)
            return pullback.input(delta) * self.options.target_step
        return super().propagate(layer, h_in, h_out, delta, call)

    def forward_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> LocalStep:
        """Lower ``|| f_l(h_{l-1}) - (anchor + delta_l) ||^2``, the bracket constant; f_L by its loss."""
        if layer.is_output:
            pullback = pull_forward(layer, h_in, h_out, call, stored=self._stored)
            return LocalStep(mean_square(delta), pullback.parameters(-delta))
        return super().forward_step(layer, h_in, h_out, delta, call)

    def update_scale(self, layer: Layer, examples: int) -> float | None:
        """``2 eta / B``, 2 from the square; 1 in f_L, which follows the gradient."""
        return 1.0 if layer.is_output else 2.0 * self.options.target_step / examples

    def inverse_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, sigma: float, call: Call) -> LocalStep:
        """Lower ``|| g_l(f_l(h + eps)) - (h + eps) ||^2``, eps ~ N(0, sigma^2), f_l constant (eq. 13).

        f_l draws its own random numbers (samples, noise, dropout) afresh in each iteration, as the authors do
        their samples; so g_l undoes the pass that it is given, in that pass's context.
        """
        del h_out
        noisy = call.randomness.normal(h_in, sigma, "noise", call.iteration).add_(h_in)
        output, context = layer.f.with_context(noisy, call.forward(call.iteration))
        pullback = layer.g.linearize(output, call.in_context(context))
        residual = pullback.output - noisy
        return LocalStep(mean_square(residual), pullback.parameters(residual * (2.0 / len(residual))))


@dataclass(frozen=True, kw_only=True)
class DTPOptions(TargetRuleOptions):
    """Difference Target Propagation."""

    name: str = option("dtp", doc="dtp")

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        return DifferenceTargetPropagation(self, layers)
