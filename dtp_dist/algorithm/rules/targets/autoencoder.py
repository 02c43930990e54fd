"""Denoising autoencoders trained by difference targets, with an output layer on their code.

After the auto-encoders of Lee, Zhang, Fischer, Bengio 2015 (arXiv 1412.7525). Seen as a network whose output
``z = g(h)`` has the input x for its target, an autoencoder gives its code ``h = f(x)`` the difference target
``h + f(x) - f(z)``, for its encoder inverts its decoder: ``delta_h = h - f(g(h))``. Here each hidden layer is
the code of one on what the layer below gives it, so nothing need come from above. A layer's own ``noise`` on
its input makes it denoise: h is the code of the noisy input then, x the clean one.

Reduction: squared errors are summed over units and averaged over the minibatch, without 1/2; ``Loss`` is a
mean over the minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.losses.base import Loss
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.optimizers.schedules import Number, scheduled
from dtp_dist.algorithm.options import option
from dtp_dist.algorithm.precision import widened
from dtp_dist.algorithm.rules.base import (
    LocalStep,
    Rule,
    RuleOptions,
    difference_target,
    mean_square,
    pull_forward,
    toward_target,
)
from dtp_dist.phase import Phase


class Autoencoder(Rule):
    """Every hidden layer learns to be inverted; labels reach it only as far as ``target_step`` says."""

    def __init__(self, options: AutoencoderOptions, layers: int) -> None:
        self.layers = layers
        self._step = scheduled(options.target_step)

    def inverses(self) -> range:
        """g_1 .. g_{L-1}, the decoders: layer 1's reconstructs the data."""
        return range(1, self.layers)

    def reads_input(self, layer: int, phase: Phase) -> bool:
        """The decoder's loss alone does."""
        return layer in self.inverses() and phase is not Phase.FORWARD

    def exact(self, layers: int) -> range:
        """The output layer and the one below it, which get the gradient itself."""
        return range(layers - 1, layers + 1)

    def exact_updates(self, layers: int) -> range:
        """The output layer: all others learn to be inverted, too."""
        return range(layers, layers + 1)

    def output(self, outputs: Tensor, labels: Tensor, loss: Loss) -> Tensor:
        """``delta_L = -dLoss/dh_L``, Loss the mean of the minibatch."""
        return loss.gap(outputs, labels) / len(outputs)

    def propagate(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """What the labels say, as in dtp: ``delta_{L-1} = -eta dLoss/dh_{L-1}``, then through the decoders.

        Zero while eta, the output step of now, is zero.
        """
        step = self._step(call.epoch, call.randomness.minibatch)
        if not step:
            return torch.zeros_like(h_in)
        if layer.is_output:
            return pull_forward(layer, h_in, h_out, call, stored=True).input(delta) * step
        return difference_target(layer, h_out, delta, call.inverse())

    def forward_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> LocalStep:
        """Lower ``|| f_l - (h_l + gap_l + delta_l) ||^2``, the bracket constant; f_L by its loss.

        f_l is taken at the noisy input of F, h_l is its value there, and gap_l that of the reconstruction.
        """
        pullback = pull_forward(layer, h_in, h_out, call, stored=True)
        if layer.is_output:
            return LocalStep(mean_square(delta), pullback.parameters(-delta))
        ahead = (reconstruction_gap(layer, h_in, h_out, call) + widened(delta)).to(delta.dtype)
        return toward_target(pullback, h_out, ahead, "current", 1.0)

    def update_scale(self, layer: Layer, examples: int) -> float | None:
        """1 in f_L, which follows the gradient; codes do not."""
        del examples
        return 1.0 if layer.is_output else None

    def inverse_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, sigma: float, call: Call) -> LocalStep:
        """Lower ``|| g_l(h_l) - h_{l-1} ||^2``, h_l the code that went out with F.

        With ``sigma > 0`` of ``|| g_l(f_l(h_{l-1} + eps)) - h_{l-1} ||^2``, eps ~ N(0, sigma^2), f_l
        constant; eps and the layer's own noise are fresh in each iteration, and g_l undoes that pass.
        """
        code, context = h_out, call.context
        if sigma:
            noisy = call.randomness.normal(h_in, sigma, "noise", call.iteration).add_(h_in)
            code, context = layer.f.with_context(noisy, call.forward(call.iteration))
        pullback = layer.g.linearize(code, call.in_context(context))
        residual = pullback.output - h_in
        return LocalStep(mean_square(residual), pullback.parameters(residual * (2.0 / len(residual))))


def reconstruction_gap(layer: Layer, h_in: Tensor, h_out: Tensor, call: Call) -> Tensor:
    """Return ``f_l(h_{l-1}) - f_l(g_l(h_l))``, of h_out's shape, float32 at least; f_l without its noise.

    Without noise it is ``h_l - f_l(g_l(h_l))``.
    """
    clean = call.evaluation()
    reconstruction = layer.g(widened(h_out), call.inverse())
    return layer.f(widened(h_in), clean) - layer.f(reconstruction, clean)


@dataclass(frozen=True, kw_only=True)
class AutoencoderOptions(RuleOptions):
    """Denoising autoencoders with a softmax layer on the code."""

    name: str = option("autoencoder", doc="autoencoder")
    target_step: Number = option(
        0.0,
        doc="eta, length of the labels' step in the target of the last code: a number or a schedule; 0 for "
        "codes learned without labels",
    )

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        return Autoencoder(self, layers)
