"""Feedback alignment: backpropagation whose transposes have fixed random weights (Lillicrap et al. 2016).

Lillicrap, Cownden, Tweed, Akerman 2016, Nature Communications 7, 13276. Reduction: as in backprop, the loss
is a mean over the minibatch, so every displacement carries 1/B and no loss divides again.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.maps.feedback import Feedback, FeedbackWeights
from dtp_dist.algorithm.options import option
from dtp_dist.algorithm.rules.backprop import Backpropagation
from dtp_dist.algorithm.rules.base import Rule, RuleOptions, pull_forward


class FeedbackAlignment(Backpropagation):
    """Losses, reductions and the output's displacement are backpropagation's."""

    feedback = Feedback.WEIGHTS

    def __init__(self, layers: int) -> None:
        self.layers = layers

    def inverses(self) -> range:
        """B_2 .. B_L: layer 1 has nothing below it that learns."""
        return range(2, self.layers + 1)

    def learned_inverses(self) -> range:
        """None: the weights are fixed."""
        return range(0)

    def exact(self, layers: int) -> range:
        """The output layer."""
        return range(layers, layers + 1)

    def propagate(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """``delta_{l-1} = B_l (a'(z_l) * delta_l)``: f_l's transpose with B_l in place of its weights.

        Whatever else f_l does (pooling, normalisation, a mask) is transposed as it is.
        """
        pullback = pull_forward(layer, h_in, h_out, call, stored=False)
        weights = layer.g
        assert isinstance(weights, FeedbackWeights)
        with weights.in_place_of(layer.f):
            return pullback.input(delta)


@dataclass(frozen=True, kw_only=True)
class FeedbackAlignmentOptions(RuleOptions):
    """Feedback alignment; ``inverse.init`` and ``inverse.scale`` of a layer say how its B is drawn."""

    name: str = option("feedback_alignment", doc="feedback_alignment")

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        return FeedbackAlignment(layers)
