"""Direct feedback alignment: the outputs' error goes to every layer through a fixed random map of its own.

Nøkland 2016, arXiv 1609.01596. The error is one signal for all: T hands it on as it came, and each layer
makes its own displacement of it in U. Reduction: as in backprop, the loss is a mean over the minibatch, so
every displacement carries 1/B and no loss divides again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer, Shape
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.maps.feedback import Feedback
from dtp_dist.algorithm.options import option
from dtp_dist.algorithm.rules.backprop import Backpropagation
from dtp_dist.algorithm.rules.base import Rule, RuleOptions


class DirectFeedbackAlignment(Backpropagation):
    """Losses, reductions and the output's displacement are backpropagation's."""

    feedback = Feedback.DIRECT

    def __init__(self, layers: int) -> None:
        self.layers = layers

    def inverses(self) -> range:
        """B_1 .. B_{L-1}: the output layer has the error itself."""
        return range(1, self.layers)

    def learned_inverses(self) -> range:
        """None: the maps are fixed."""
        return range(0)

    def exact(self, layers: int) -> range:
        """The output layer."""
        return range(layers, layers + 1)

    def signal_shape(self, layer: int, shapes: Sequence[Shape]) -> Shape:
        """The outputs', in every layer."""
        return shapes[-1]

    def propagate(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """The signal goes on unchanged."""
        return delta

    def displacement(self, layer: Layer, h_out: Tensor, signal: Tensor, call: Call) -> Tensor:
        """``delta_l = B_l delta_L``, of h_l's shape; zero in a layer that has nothing to learn."""
        if layer.is_output:
            return signal
        return torch.zeros_like(h_out) if layer.inverse is None else layer.g(signal, call.inverse())


@dataclass(frozen=True, kw_only=True)
class DFAOptions(RuleOptions):
    """Direct feedback alignment; ``inverse.init`` and ``inverse.scale`` of a layer say how its B is drawn."""

    name: str = option("dfa", doc="dfa")

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        return DirectFeedbackAlignment(layers)
