"""Target propagation with the local difference reconstruction loss (Ernoult et al. 2022, arXiv 2201.13415).

The inverse loss makes the Jacobian of g_l the transpose of the Jacobian of f_l, so targets follow gradients.

Where a layer pools by maximum, its inverse puts each value back to the place of a maximum. Each of the three
values of g takes the places that its own forward pass found, as in the authors' code: g(f(h+eps)) those of
the pass with noise, g(y) and g(y+eta) those of F. With ``places: clean`` all take F's, which is another loss.
Neither is lowest at the transpose exactly. With clean places it comes to be as sigma goes to 0; a large sigma
makes g short and turns it away. With own places the jumps of maxima from place to place, whose share does not
fall with sigma, make g long; a large sigma, as the published ones are, averages over them.

Reduction: squared errors are summed over units and averaged over the minibatch; the forward loss has the
paper's 1/2, the inverse loss has none; the output target is per example, without 1/B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.maps.base import Affine, Call, Context, Map
from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.algorithm.options import OneOf, Positive, option
from dtp_dist.algorithm.rules.base import (
    LocalStep,
    Rule,
    TargetRuleOptions,
    mean_product,
    mean_square,
    pull_forward,
)
from dtp_dist.algorithm.rules.targets.closed_form import (
    EXPECTED,
    MIRRORED,
    READS_FORWARD,
    SAMPLED,
    SOLVED,
    check_closed_form,
    cosine,
    expected_step,
    mirrored_step,
)
from dtp_dist.algorithm.rules.targets.difference import DifferenceTargetRule


class LocalDifferenceReconstruction(DifferenceTargetRule):
    """Difference targets in every layer, the output's included, through inverses that learn transposes."""

    factor = 0.5
    joins_minibatches = True
    measures_inverses = True

    def __init__(self, options: LDRLOptions, layers: int) -> None:
        super().__init__(options, layers)
        self._inverse_loss = options.inverse_loss
        self.asks_of_inverses = options.inverse_loss != SAMPLED
        self._own_places = options.places == "own"

    def check_inverse(self, index: int, f: Map, g: Map, optimizer: OptimizerOptions) -> None:
        """Closed forms need inverses whose Jacobian they know."""
        if self.asks_of_inverses and g.parameters():
            check_closed_form(self._inverse_loss, index, f, g, optimizer)

    def inverse_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, sigma: float, call: Call) -> LocalStep:
        """Lower ``-2 <eps, g(f(h+eps)) - r> + || g(y+eta) - r ||^2``, ``r = g(y)``; eps, eta ~ N(0, sigma^2).

        h and y are the stored h_{l-1} and h_l; the gradient flows through all three values of g. f has
        F's random numbers (samples, noise, dropout) in every iteration, so that it differs from y by eps.
        """
        if self._inverse_loss in READS_FORWARD:
            return expected_step(layer, h_out, sigma, call, solved=self._inverse_loss == SOLVED)
        if self._inverse_loss == MIRRORED:
            return mirrored_step(layer, h_in, h_out, sigma, call, own_places=self._own_places)
        eps = call.randomness.normal(h_in, sigma, "noise", call.iteration)
        eta = call.randomness.normal(h_out, sigma, "output_noise", call.iteration)
        moved, places = layer.f.with_places(h_in + eps, call.forward())
        there = places if self._own_places else call.context
        affine = layer.g.affine()
        if affine is not None:
            return _by_differences(affine, h_out, moved, there, eps, eta, call)
        return _by_values(layer, h_out, moved, there, eps, eta, call)

    def through_inverse(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """As in dtp; through f's own transpose where an inverse that learns nothing is another map."""
        if layer.g.fixed:
            pullback = pull_forward(layer, h_in, h_out, call.forward(), stored=self._stored)
            return pullback.input(delta)
        return super().through_inverse(layer, h_in, h_out, delta, call)

    def inverse_work(self, f: float, g: float, *, affine: bool) -> float:
        """f once; g at three points, forth and back, or of differences at one forth and two back.

        Mirrored: f once, and g back once. Nothing over the minibatch where no noise is drawn.
        """
        if self._inverse_loss != SAMPLED:
            return f + g if self._inverse_loss == MIRRORED else 0.0
        return f + (3 if affine else 6) * g


def _by_values(
    layer: Layer, y: Tensor, moved: Tensor, there: Context, eps: Tensor, eta: Tensor, call: Call
) -> LocalStep:
    """Return the loss and its gradients from g at its three points, taken as one minibatch of 3 B.

    ``there`` is the context of g at ``moved = f(h+eps)``.
    """
    here = call.context
    pullback = layer.g.linearize(torch.cat([moved, y + eta, y]), call.in_context(there, here, here))
    ahead, around, at = pullback.output.chunk(3)
    spread = around - at
    cotangent = torch.cat([-eps, spread, eps - spread]).mul_(2.0 / len(eps))
    common, length = mean_product(eps, ahead - at), mean_square(spread)
    loss = length - 2.0 * common
    return LocalStep(loss, pullback.parameters(cotangent), cosine(common, length, mean_square(moved - y)))


def _by_differences(
    g: Affine, y: Tensor, moved: Tensor, there: Context, eps: Tensor, eta: Tensor, call: Call
) -> LocalStep:
    """Return the same for ``g(y) = W phi(y) + b``, where r and b drop out: four products instead of seven.

    phi undoes pooling, in the context of each value. With ``a = phi(y) - phi(f(h+eps))`` and
    ``e = phi(y+eta) - phi(y)`` the loss is ``2 <eps, W a> + ||W e||^2``; each part is homogeneous in W, so
    the loss is ``<W, gradient> - ||W e||^2`` and ``W a`` is never needed.
    """
    base = g.features(y, call)
    behind, around = base - g.features(moved, call.in_context(there)), g.features(y + eta, call) - base
    spread = g.product(around)
    cotangent = torch.cat([eps, spread]).mul_(2.0 / len(eps))
    gradients = g.product_gradients(torch.cat([behind, around]), cotangent)
    length = mean_square(spread)
    loss = torch.dot(g.weight.detach().flatten(), gradients[0].flatten()) - length
    return LocalStep(loss, gradients, cosine((length - loss) / 2.0, length, mean_square(moved - y)))


@dataclass(frozen=True, kw_only=True)
class LDRLOptions(TargetRuleOptions):
    """The local difference reconstruction loss."""

    name: str = option("ldrl", doc="ldrl")
    target_step: Positive = option(
        0.5, doc="beta, length of the output target's step along the gradient: from softmax towards the label"
    )
    places: Annotated[str, OneOf("own", "clean")] = option(
        "own",
        doc="where the inverse loss undoes pooling by maximum: each value of g at the places that its own "
        "forward pass found (the authors' loss), or all at those of F",
    )
    inverse_loss: Annotated[str, OneOf(SAMPLED, MIRRORED, EXPECTED, SOLVED)] = option(
        SAMPLED,
        doc="how the inverse loss averages over its noise: sampled, as published; mirrored, that at the "
        "output in closed form; expected, all of it; solved, its minimum, reached at once with an inverse "
        "rate of 1; the last two read the forward weights (docs/concepts.md)",
    )

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        return LocalDifferenceReconstruction(self, layers)
