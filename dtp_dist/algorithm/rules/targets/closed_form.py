"""Inverse updates of L-DRL with their noise averaged in closed form, wholly or in part: each costs less.

Given an inverse ``g(y) = V phi(y) + c`` whose weight is made of columns (``Columns``), let E and D be the
sums of ``phi'^2`` and ``phi' a'`` over a column's units, averaged over the minibatch, and W the weight of f
in V's layout. The paper's loss (Ernoult et al. 2022, arXiv 2201.13415) expects of small noise

    sigma^2 (||J_g||^2 - 2 <J_g, J_f^T>) = sigma^2 (sum E V^2 - 2 sum D V W).

- *mirrored*: the first part so, which needs g's own weights alone; the second by noise drawn at f's input.
  Noise that meets its own response, next to a decay, is the weight mirror of Akrout et al. 2019 (arXiv
  1904.05391). f's weights are not read.
- *expected*: both parts so: no noise, and no product over the minibatch. It reads f's weights, which neither
  the sampled nor the mirrored form does.
- *solved*: V goes to the minimum ``W D / E``, by the share that the learning rate says: 1 is all the way. Bao
  et al. 2024 (AAAI) minimize such a loss, of Jacobians that should match, analytically. It reads f's weights.

Exact for small noise, but for the part of a kernel that meets the padding of an image. Reduction: ldrl's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.maps.base import Call, Map
from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.algorithm.optimizers.sgd import SGDOptions
from dtp_dist.algorithm.options import RangeError
from dtp_dist.algorithm.precision import widened
from dtp_dist.algorithm.rules.base import LocalStep, mean_square

SAMPLED, MIRRORED, EXPECTED, SOLVED = "sampled", "mirrored", "expected", "solved"
READS_FORWARD = (EXPECTED, SOLVED)
_TINY = 1e-30
_UNCHECKED = "check_closed_form has not been asked"


def mirrored_step(
    layer: Layer, h_in: Tensor, y: Tensor, sigma: float, call: Call, *, own_places: bool
) -> LocalStep:
    """Return the step of ``-2 <eps, g(f(h+eps)) - g(y)> + sigma^2 ||J_g||^2``: two products, f's included."""
    g = layer.g.columns()
    assert g is not None, _UNCHECKED
    eps = call.randomness.normal(h_in, sigma, "noise", call.iteration)
    moved, places = layer.f.with_places(h_in + eps, call.forward())
    there = call.in_context(places) if own_places else call
    behind = g.features(y, call) - g.features(moved, there)
    gradients = g.product_gradients(behind, eps.mul_(2.0 / len(eps)))
    weight = g.weight.detach()
    decay = g.of_columns(widened(g.slopes(y, call)).square_()).mul_(sigma**2) * weight
    length, common = _dot(weight, decay), -0.5 * _dot(weight, gradients[0])
    gradients[0].add_(decay, alpha=2.0)
    return LocalStep(length - 2.0 * common, gradients, cosine(common, length, mean_square(moved - y)))


def expected_step(layer: Layer, y: Tensor, sigma: float, call: Call, *, solved: bool) -> LocalStep:
    """Return the step of ``sigma^2 (||J_g||^2 - 2 <J_g, J_f^T>)``, with no product over the minibatch.

    If ``solved`` its gradient is ``V - W D / E`` instead.
    """
    g, f = layer.g.columns(), layer.f.product_part()
    assert g is not None, _UNCHECKED
    assert f is not None, _UNCHECKED
    weight, mirrored = g.weight.detach(), f.weight
    ours, theirs = widened(g.slopes(y, call)), widened(f.slopes(y))
    energy, shared = g.of_columns(ours.square()), g.of_columns(ours * theirs)
    own, other = energy * weight, shared * mirrored
    length, common = _dot(weight, own), _dot(weight, other)
    forward = _dot(mirrored, g.of_columns(theirs.square_()) * mirrored)
    gradient = weight - other / energy.clamp_min(_TINY) if solved else (own - other) * (2.0 * sigma**2)
    rest = [torch.zeros_like(each) for each in layer.g.parameters()[1:]]
    loss = (length - 2.0 * common) * sigma**2
    return LocalStep(loss, [gradient.to(weight.dtype), *rest], cosine(common, length, forward))


def check_closed_form(form: str, index: int, f: Map, g: Map, optimizer: OptimizerOptions) -> None:
    """Check that layer ``index`` and its inverse's optimizer have the form that ``rule.inverse_loss`` needs.

    Raises:
        RangeError: they have not.
    """
    if g.columns() is None:
        text = f"{form} needs inverses that read real numbers, without an activation of their output and "
        text += f"without average pooling, and layer {index} has another"
        raise RangeError(
            "inverse_loss", f"{text}; write inverse.activation_of: input, or inverse_loss: {SAMPLED}"
        )
    if form in READS_FORWARD and f.product_part() is None:
        text = f"{form} needs layers of one product and an activation, and layer {index} is not"
        raise RangeError("inverse_loss", f"{text}; write {MIRRORED} or {SAMPLED}")
    if form == SOLVED and not (isinstance(optimizer, SGDOptions) and not optimizer.momentum):
        text = f"{SOLVED} moves an inverse by the share of the way that a plain sgd's rate says"
        raise RangeError("inverse_loss", f"{text}; write optimizer.inverse={{name: sgd, lr: 1.0}}")


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten().to(a.dtype))


def cosine(common: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    """Return ``<J_g, J_f^T> / (||J_g|| ||J_f||)`` from the product and the squared lengths; 0 if one is 0."""
    return common / (ours * theirs).sqrt().clamp_min(_TINY)
