"""What rules of difference targets share (Lee, Zhang, Fischer, Bengio 2015, arXiv 1412.7525, eq. 15).

A rule of its own adds how its inverses learn, and whatever it does otherwise in the output layer.
"""

from __future__ import annotations

from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.losses.base import Loss
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.rules.base import (
    LocalStep,
    Rule,
    TargetRuleOptions,
    difference_target,
    pull_forward,
    toward_target,
)
from dtp_dist.phase import Phase


class DifferenceTargetRule(Rule):
    """A target for every layer, through inverses, each corrected by what it misses of its own layer.

    Reduction: squared errors are summed over units and averaged over the minibatch, times ``factor``; the
    output target is per example, without 1/B.
    """

    factor = 1.0
    """Of every layer's squared error: 0.5 where a paper's loss has its 1/2."""

    def __init__(self, options: TargetRuleOptions, layers: int) -> None:
        self.options, self.layers = options, layers
        self._stored = options.stores_jacobian

    def inverses(self) -> range:
        """g_2 .. g_L: layer 1 needs no target for the data."""
        return range(2, self.layers + 1)

    def exact_updates(self, layers: int) -> range:
        """Those of ``exact``; a stale anchor turns an update away from its displacement."""
        return range(0) if self.options.anchor == "stale" else self.exact(layers)

    def reads_input(self, layer: int, phase: Phase) -> bool:
        """The inverse loss alone does."""
        return layer in self.learned_inverses() and phase is not Phase.FORWARD

    def output(self, outputs: Tensor, labels: Tensor, loss: Loss) -> Tensor:
        """``delta_L = -target_step dLoss/dh_L``, a step down each example's loss.

        For cross-entropy ``target_step (onehot - softmax)``.
        """
        return loss.gap(outputs, labels) * self.options.target_step

    def propagate(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """``delta_{l-1} = g_l(h_l + delta_l) - g_l(h_l)``, from the output layer on."""
        return self.through_inverse(layer, h_in, h_out, delta, call.inverse())

    def through_inverse(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """Return the displacement below a layer that has an inverse, of h_in's shape."""
        del h_in
        return difference_target(layer, h_out, delta, call)

    def forward_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> LocalStep:
        """Lower ``factor || f_l(h_{l-1}) - (anchor + delta_l) ||^2``, the bracket constant."""
        pullback = pull_forward(layer, h_in, h_out, call, stored=self._stored)
        return toward_target(pullback, h_out, delta, self.options.anchor, self.factor)

    def update_scale(self, layer: Layer, examples: int) -> float | None:
        """``2 factor target_step``: 2 from the square."""
        del layer, examples
        return 2.0 * self.factor * self.options.target_step
