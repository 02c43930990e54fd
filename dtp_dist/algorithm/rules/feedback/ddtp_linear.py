"""Direct DTP with linear feedback and the difference reconstruction loss (Meulemans et al. 2020).

Meulemans, Carzaniga, Suykens, Sacramento, Grewe 2020, arXiv 2006.14331, DDTP-linear, as in the authors' code.
Each layer but the last has a linear map Q_l from the outputs straight to it. The outputs' displacement is one
signal for all, which T hands on as it came. Q_l learns in U, from what noise at h_l does to the outputs: it
becomes a pseudo-inverse of all the layers above, so that targets are those of a Gauss-Newton step.

Reduction: ``Loss`` is a mean over the minibatch, so displacements carry 1/B; squared errors of forward losses
are summed over units and averaged over the minibatch, without 1/2; those of inverse losses are averaged over
units, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer, Shape
from dtp_dist.algorithm.losses.base import Loss
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.maps.feedback import Feedback
from dtp_dist.algorithm.options import Positive, option
from dtp_dist.algorithm.rules.base import LocalStep, Rule, Seen, TargetRuleOptions, mean_square
from dtp_dist.algorithm.rules.feedback.probes import probe_noise
from dtp_dist.algorithm.rules.targets.difference import DifferenceTargetRule
from dtp_dist.flow import Flow
from dtp_dist.phase import Phase


class DirectLinearDTP(DifferenceTargetRule):
    """Targets straight from the outputs, in every layer."""

    feedback, probes = Feedback.DIRECT, True

    def flow(self) -> Flow:
        """Inverses learn in U."""
        return Flow(inverse_in="U")

    def inverses(self) -> range:
        """Q_1 .. Q_{L-1}."""
        return range(1, self.layers)

    def reads_input(self, layer: int, phase: Phase) -> bool:
        """Probes pass a layer as numbers; in the phase without them nothing but f_l reads its input."""
        return phase is not Phase.FORWARD

    def signal_shape(self, layer: int, shapes: Sequence[Shape]) -> Shape:
        """The outputs', in every layer."""
        return shapes[-1]

    def output(self, outputs: Tensor, labels: Tensor, loss: Loss) -> Tensor:
        """``delta_L = -target_step dLoss/dh_L``, Loss the mean of the minibatch."""
        return loss.gap(outputs, labels) * (self.options.target_step / len(outputs))

    def propagate(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """The signal goes on unchanged."""
        return delta

    def displacement(self, layer: Layer, h_out: Tensor, signal: Tensor, call: Call) -> Tensor:
        """``delta_l = Q_l (h_L + delta_L) - Q_l h_L = Q_l delta_L``; zero where nothing has to learn."""
        if layer.is_output:
            return signal
        return torch.zeros_like(h_out) if layer.inverse is None else layer.g(signal, call.inverse())

    def update_scale(self, layer: Layer, examples: int) -> float:
        """``2 target_step / B``, 2 from the square; in f_L, too."""
        del layer
        return 2.0 * self.options.target_step / examples

    def inverse_update(self, layer: Layer, seen: Seen, call: Call) -> LocalStep:
        """Lower ``sigma^-2 mean || Q_l fbar(h_l + e) + h_l - Q_l h_L - (h_l + e) ||^2``, e ~ N(0, sigma^2).

        fbar are the layers above, constant here; with the answer ``d = fbar(h_l + e) - h_L`` it is
        ``sigma^-2 mean || Q_l d - e ||^2``.
        """
        assert seen.answer is not None, "a layer whose inverse learns has a probe"
        sigma = layer.sigma(call.epoch, call.randomness.minibatch)
        pullback = layer.g.linearize(seen.answer, call)
        residual = pullback.output - probe_noise(seen.h_out, sigma, call)
        scale = 1.0 / (sigma**2 * residual[0].numel())
        cotangent = residual * (2.0 * scale / len(residual))
        return LocalStep(mean_square(residual) * scale, pullback.parameters(cotangent))

    def inverse_work(self, f: float, g: float, *, affine: bool) -> float:
        """g forth and back; the probes' way up is in F."""
        return 2 * g

    def inverse_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, sigma: float, call: Call) -> LocalStep:
        """Never called: there is no I."""
        raise AssertionError("inverses of ddtp_linear learn in inverse_update")


@dataclass(frozen=True, kw_only=True)
class DDTPLinearOptions(TargetRuleOptions):
    """DDTP-linear; ``inverse.sigma`` is the deviation of a layer's probe."""

    name: str = option("ddtp_linear", doc="ddtp_linear")
    target_step: Positive = option(
        0.06, doc="stepsize, length of the output target's step along the mean loss's gradient"
    )

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        return DirectLinearDTP(self, layers)
