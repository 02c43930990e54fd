"""Backpropagation as a rule, so that the same pipeline can be compared with it.

Reduction: the loss is a mean over the minibatch, so every displacement carries 1/B and no loss divides again.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.losses.base import Loss
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.options import option
from dtp_dist.algorithm.rules.base import LocalStep, Rule, RuleOptions, mean_square, pull_forward
from dtp_dist.phase import Phase


class Backpropagation(Rule):
    """``delta_L = -d(mean Loss)/dh_L``; Jacobians at today's weights and the stored input."""

    def inverses(self) -> range:
        """None at all."""
        return range(0)

    def exact(self, layers: int) -> range:
        """All layers."""
        return range(1, layers + 1)

    def reads_input(self, layer: int, phase: Phase) -> bool:
        """Nothing but f_l does."""
        del layer, phase
        return False

    def output(self, outputs: Tensor, labels: Tensor, loss: Loss) -> Tensor:
        """``delta_L = -d(mean Loss)/dh_L``."""
        return loss.gap(outputs, labels) / len(outputs)

    def propagate(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """``delta_{l-1} = (df_l/dh)^T delta_l``."""
        return pull_forward(layer, h_in, h_out, call, stored=False).input(delta)

    def forward_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> LocalStep:
        """Lower ``-sum(f_l(h_{l-1}) * delta_l)``: exactly the gradient step."""
        pullback = pull_forward(layer, h_in, h_out, call, stored=False)
        return LocalStep(mean_square(delta), pullback.parameters(-delta))

    def update_scale(self, layer: Layer, examples: int) -> float:
        """1: it is the gradient."""
        del layer, examples
        return 1.0

    def inverse_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, sigma: float, call: Call) -> LocalStep:
        """Never called: there are no inverses."""
        raise AssertionError("backpropagation has no inverses")


@dataclass(frozen=True, kw_only=True)
class BackpropOptions(RuleOptions):
    """Backpropagation."""

    name: str = option("backprop", doc="backprop")

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        del layers
        return Backpropagation()
