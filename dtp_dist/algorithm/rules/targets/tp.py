"""Plain target propagation: DTP without the difference correction (Lee et al. 2015, section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.options import option
from dtp_dist.algorithm.precision import widened
from dtp_dist.algorithm.rules.base import Rule
from dtp_dist.algorithm.rules.targets.dtp import DifferenceTargetPropagation, DTPOptions
from dtp_dist.phase import Phase


class TargetPropagation(DifferenceTargetPropagation):
    """``target_{l-1} = g_l(target_l)``; losses, reductions and output target are DTP's."""

    def reads_input(self, layer: int, phase: Phase) -> bool:
        """The inverse loss and the displacement do."""
        del phase
        return layer in self.inverses()

    def through_inverse(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """``delta_{l-1} = g_l(h_l + delta_l) - h_{l-1}``."""
        return layer.g(widened(h_out) + widened(delta), call).sub_(h_in).to(delta.dtype)


@dataclass(frozen=True, kw_only=True)
class TPOptions(DTPOptions):
    """Plain target propagation."""

    name: str = option("tp", doc="tp")

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        return TargetPropagation(self, layers)
