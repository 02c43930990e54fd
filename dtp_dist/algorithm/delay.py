"""What a stage does about its delay: the updates between a minibatch's F and its U."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from dtp_dist.algorithm.options import NonNegative, Options, option


@dataclass(frozen=True, kw_only=True)
class DelayOptions(Options):
    """Three remedies, all without effect where the delay is 0.

    A target answers activations of weights that have moved since. The first two make the weights move less
    and more steadily within a delay, the third lets F predict where they will be:

    - a lower rate (PipeMare, Yang et al. 2021, arXiv 1910.05124);
    - a longer memory of Adam's first moment, so that no single gradient moves the weights far, while in
      the end each counts as much as before;
    - F computes with ``w + lookahead * n * (w's last step)``, n the updates that will come before its U
      (SpecTrain, Chen et al. 2018, arXiv 1809.02839; with the step of any optimizer: PipeOptim, Guan et
      al. 2023, arXiv 2312.00839). Without momentum a step is one gradient and foretells little: F then
      computes with today's weights.
    """

    delay_power: NonNegative = option(
        0.3, doc="p: a stage's forward learning rate is multiplied by (1 + delay)^-p"
    )
    delay_memory: NonNegative = option(
        0.5,
        doc="q: the memory 1 / (1 - beta1) of a stage's forward Adam is multiplied by (1 + delay)^q",
    )
    lookahead: NonNegative = option(
        1.0,
        doc="F computes with the forward weights of that many times the updates before its U ahead, each "
        "taken to be like the last; 0, two in flight, or an optimizer without momentum: today's weights",
    )

    def at_depth(self, in_flight: int) -> Self:
        """Return the remedies of a run with that many minibatches in flight.

        With two, a single update comes between any F and its U, so there is little to look ahead to, and
        its copy and interpolation of all weights cost a tenth of the speed of two small stages.
        """
        return replace(self, lookahead=0.0) if in_flight <= 2 else self

    def rate(self, delay: int) -> float:
        """Return the factor of a stage's forward learning rate."""
        return float((1.0 + delay) ** -self.delay_power)

    def memory(self, delay: int) -> float:
        """Return the factor of the memory of a stage's forward optimizer."""
        return float((1.0 + delay) ** self.delay_memory)
