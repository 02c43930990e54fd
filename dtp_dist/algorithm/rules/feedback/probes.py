"""Probes: what noise at a layer does to the network's outputs, for inverses that lead from there.

In F a layer adds noise to its output and sends it up beside it, through every layer above. At the top the
difference to the outputs is the layer's *answer*, which comes back down with T. There are as many as layers
that ask, so a layer computes its f once more for each of those below it.

Shapes: a probe is ``[B, ...]`` like h of the layer that it has reached, an answer ``[B, K]`` like the
outputs. In messages those of P layers, the lowest first, are one tensor ``[P B, ...]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.maps.base import Call


def probe_noise(h: Tensor, sigma: float, call: Call) -> Tensor:
    """Return N(0, sigma^2) noise of h's shape: the same in a minibatch's F and U."""
    return call.randomness.normal(h, sigma, "noise")


@dataclass
class Probes:
    """A minibatch's probes in one stage, in the order of the layers that they are for, the lowest first.

    Attributes:
        going: on their way up.
        below: how many of them came from stages below.
        own: the layers of this stage that have one.
        answers: what came of all of them.
    """

    going: list[Tensor]
    below: int
    own: list[int] = field(default_factory=list)
    answers: list[Tensor] = field(default_factory=list)

    @classmethod
    def received(cls, probes: Tensor | None, examples: int) -> Probes:
        """Return those that came with the activation of so many examples, if there are any."""
        going = [] if probes is None else list(probes.chunk(len(probes) // examples))
        return cls(going, len(going))

    def through(self, layer: Layer, call: Call) -> None:
        """Take them through a layer, with the random numbers of its F; no statistics change."""
        self.going = [layer.f(probe, call) for probe in self.going]

    def begin(self, layer: Layer, h: Tensor, sigma: float, call: Call) -> None:
        """Add that of a layer whose output is ``h``."""
        self.going.append(h + probe_noise(h, sigma, call))
        self.own.append(layer.index)

    def arrived(self, outputs: Tensor) -> None:
        """Take their answers, in the last stage."""
        self.answers = [probe - outputs for probe in self.going]

    def answered(self, answers: Tensor | None, examples: int) -> None:
        """Take the answers that came with T for so many examples."""
        if answers is not None:
            self.answers = list(answers.chunk(len(answers) // examples))

    def up(self) -> list[Tensor]:
        """Return what goes to the stage above, one tensor or none."""
        return _joined(self.going)

    def down(self) -> list[Tensor]:
        """Return the answers for the stages below, one tensor or none."""
        return _joined(self.answers[: self.below])

    def answer(self, layer: int) -> Tensor | None:
        """Return the answer to a layer's probe, None for a layer that has none."""
        return self.answers[self.below + self.own.index(layer)] if layer in self.own else None


def _joined(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cat(list(tensors))] if tensors else []
