"""Diagnostics: how near a rule's updates come to backpropagation's, and inverses to inverses; nothing learns.

The backward signal is the displacement that backpropagation as a rule would send, ``descent_l = -dLoss/dh_l``
with Loss the mean over the minibatch, at today's weights and the stored inputs.

Shapes: h_in ``[B, *input_shape]``, h_out, delta, descent ``[B, *output_shape]``. Angles are in degrees; one
with a vector of zeros is 90. Every value is 0-dimensional float64 on the layer's device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.maps.base import Call, Map
from dtp_dist.algorithm.precision import widened
from dtp_dist.algorithm.rules.backprop import Backpropagation
from dtp_dist.algorithm.rules.base import Rule, Seen, pull_forward
from dtp_dist.algorithm.rules.one_wave import OneWaveRule
from dtp_dist.algorithm.transmission import REAL

BACKPROPAGATION = Backpropagation()


@dataclass(frozen=True)
class Passage:
    """One minibatch in one layer: what F and T left there (``seen``), and what backpropagation would bring.

    ``knows_input``: whether h_in is what the layer below gave, not the bits alone that were sent of it.
    """

    layer: Layer
    seen: Seen
    descent: Tensor
    call: Call
    knows_input: bool = True

    @property
    def h_in(self) -> Tensor:
        """What went in with F."""
        return self.seen.h_in

    @property
    def h_out(self) -> Tensor:
        """What came out with F."""
        return self.seen.h_out

    @property
    def delta(self) -> Tensor:
        """The displacement that T brought, or the rule's signal."""
        return self.seen.above

    def below(self) -> Tensor:
        """Return ``descent_{l-1} = (df_l/dh)^T descent_l``."""
        return BACKPROPAGATION.propagate(
            self.layer, self.h_in, self.h_out, self.descent, self.call
        ).contiguous()


def alignment(rule: Rule, at: Passage) -> Iterator[tuple[str, Tensor]]:
    """Yield every diagnostic that the layer has, by name (docs/diagnostics.md).

    The signals of a rule of one wave are no displacements, and lead back to no activation: of these, the
    updates alone can be compared.
    """
    yield from update_alignment(rule, at)
    if isinstance(rule, OneWaveRule):
        return
    yield "target_angle", angle(at.delta.flatten(1), at.descent.flatten(1)).mean()
    if at.layer.inverts:
        if at.layer.g.transmission == REAL:  # what jumps has no derivative to compare
            yield "jacobian_angle", jacobian_angle(at)
        if at.knows_input:
            yield "reconstruction_error", reconstruction_error(at)


def update_alignment(rule: Rule, at: Passage) -> Iterator[tuple[str, Tensor]]:
    """Yield how the rule's gradient of f_l compares with backpropagation's.

    Of all parameters together, then of weights and of biases: the mean over the parameters of a kind, each by
    itself. The distance is ``|| F - G || / || F ||`` (Ernoult et al. 2022): F the rule's, its
    ``update_scale`` taken off, G backpropagation's.
    """
    true_seen = at.seen._replace(above=at.descent)
    ours, true = (
        [_flat(each) for each in by.forward_update(at.layer, seen, at.call).gradients]
        for by, seen in ((rule, at.seen), (BACKPROPAGATION, true_seen))
    )
    if not ours:
        return
    yield "update_angle", angle(torch.cat(ours), torch.cat(true))
    scale = rule.update_scale(at.layer, len(at.descent))
    kinds = [_kind(name) for name in _names(at.layer.f)]
    for kind in dict.fromkeys(kinds):
        pairs = [(f, g) for f, g, own in zip(ours, true, kinds, strict=True) if own == kind]
        yield f"{kind}_update_angle", torch.stack([angle(f, g) for f, g in pairs]).mean()
        if scale is not None:
            distances = [_distance(f / scale, g) for f, g in pairs]
            yield f"{kind}_update_distance", torch.stack(distances).mean()


def _names(of: Map) -> list[str]:
    """Return the names of a map's parameters, in their order."""
    named = {id(each): name for name, each in of.module.named_parameters()}
    return [named[id(each)] for each in of.parameters()]


def _kind(name: str) -> str:
    """Return "bias" of parameters that are called so, as torch's modules call them, else "weight"."""
    return "bias" if name.rpartition(".")[2] == "bias" else "weight"


def _distance(f: Tensor, g: Tensor) -> Tensor:
    """Return ``|| f - g || / || f ||``, 1 where f is zero."""
    length = torch.linalg.vector_norm(f)
    return torch.where(length > 0, torch.linalg.vector_norm(f - g) / length, 1.0)


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Return the angle between the vectors along the last dimension: ``[..., n]`` twice to ``[...]``."""
    a, b = a.to(torch.float64), b.to(torch.float64)
    lengths = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    cosine = (a * b).sum(-1) / lengths.clamp_min(torch.finfo(torch.float64).tiny)
    return torch.rad2deg(torch.arccos(cosine.clamp(-1.0, 1.0)))


def jacobian_angle(at: Passage) -> Tensor:
    """Return the angle between the Jacobian of g_l at h_l and the transpose of f_l's at h_{l-1}.

    ``arccos(sum <J_g v, J_f^T v> / sqrt(sum |J_g v|^2 sum |J_f^T v|^2))`` over the examples, with one
    v ~ N(0, 1) for each: Hutchinson's estimate of the angle between the matrices. ``J_g v`` is a central
    difference, so that any map will do.
    """
    h_out = widened(at.h_out)
    v = at.call.randomness.normal(h_out, 1.0, "alignment")
    step = torch.finfo(h_out.dtype).eps ** (1 / 3)
    call = at.call.inverse()
    ahead, behind = at.layer.g(h_out + step * v, call), at.layer.g(h_out - step * v, call)
    pullback = pull_forward(at.layer, widened(at.h_in), h_out, at.call, stored=False)
    return angle((ahead - behind).flatten(), pullback.input(v).flatten())


def reconstruction_error(at: Passage) -> Tensor:
    """Return ``|| g_l(h_l) - h_{l-1} || / || h_{l-1} ||`` over the whole minibatch."""
    h_in = widened(at.h_in)
    error = at.layer.g(widened(at.h_out), at.call.inverse()) - h_in
    error_length, length = (torch.linalg.vector_norm(each, dtype=torch.float64) for each in (error, h_in))
    ratio: Tensor = error_length / length.clamp_min(1e-30)
    return ratio


def _flat(tensor: Tensor) -> Tensor:
    return tensor.flatten().to(torch.float64)
