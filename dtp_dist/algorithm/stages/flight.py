"""What a stage keeps of one minibatch until its U."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.losses.base import Loss
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.rules.base import Rule, Seen
from dtp_dist.algorithm.rules.feedback.probes import Probes


@dataclass
class Flight:
    """One minibatch in one stage.

    Attributes:
        activations: h_in of the first layer, then each layer's h_out.
        contexts: what each layer's map keeps of F.
        targets: what T sends down (None from layer 1), then the signal that it brought to each layer.
        probes: where the rule probes.
    """

    activations: list[Tensor] = field(default_factory=list)
    contexts: list[Tensor | None] = field(default_factory=list)
    labels: Tensor | None = None
    targets: list[Tensor | None] = field(default_factory=list)
    probes: Probes | None = None

    def seen(self, position: int, layer: Layer, rule: Rule, loss: Loss, call: Call) -> Seen:
        """Return what F and T left in the layer at a place of the stage, and its displacement."""
        signal = self.targets[position + 1]
        assert signal is not None, "T comes first"
        assert self.labels is not None, "F comes first"
        h_in, h_out = self.activations[position : position + 2]
        above = rule.displacement(layer, h_out, signal, call)
        answer = None if self.probes is None else self.probes.answer(layer.index)
        return Seen(h_in, h_out, above, self.targets[position], self.labels, loss, answer)
