"""Dropout: a share of the numbers is left out in training, the rest scaled up; no parameters.

Srivastava et al. 2014; the scaling is torch's. The mask belongs to (seed, layer, minibatch, phase), so that
it is the same in F, T and U of a minibatch; I may draw others (``Call.forward``). A target passes through
what was kept: the inverse scales it down and puts what was left out back to what it was (the map's context),
so that it has no displacement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.layers.base import Shape, UnlearnedOptions
from dtp_dist.algorithm.maps.base import Call, Map, Mode, UnlearnedPullback
from dtp_dist.algorithm.options import Share, option

PURPOSE = "dropout"  # of the random numbers that choose a mask


class ScalingPullback(UnlearnedPullback):
    """``dx = c * scale``, ``scale`` of each number."""

    def __init__(self, scale: Tensor | float, output: Tensor) -> None:
        self._scale, self.output = scale, output

    def input(self, cotangent: Tensor) -> Tensor:
        return cotangent * self._scale


class DropoutMap(Map):
    """``y = kept x / (1 - p)`` in training, x itself in evaluation.

    The context is x where it was left out and NaN where it was kept, so it holds the mask.
    """

    def __init__(self, p: float) -> None:
        super().__init__(nn.Dropout(p))
        self.p = p

    def _scale(self, x: Tensor, call: Call) -> Tensor:
        """Return 1 / (1 - p) where x is kept and 0 where it is left out, in x's shape and type."""
        kept = torch.empty(x.shape, device=x.device)
        generator = call.randomness.generator(PURPOSE, call.iteration, x.device)
        kept.bernoulli_(1.0 - self.p, generator=generator)
        return kept.to(x.dtype).div_(1.0 - self.p)

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return x if call.mode is Mode.EVALUATE else x * self._scale(x, call)

    def with_context(self, x: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
        if call.mode is Mode.EVALUATE:
            return x, None
        scale = self._scale(x, call)
        return x * scale, x.masked_fill(scale > 0, math.nan)

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> ScalingPullback:
        if call.mode is Mode.EVALUATE:
            return ScalingPullback(1.0, x)
        if output is not None and call.context is not None:
            return ScalingPullback(call.context.isnan().to(x.dtype) / (1.0 - self.p), output)
        scale = self._scale(x, call)
        return ScalingPullback(scale, x * scale)

    def torch_modules(self) -> list[nn.Module]:
        return [self.module]


class UndroppingMap(Map):
    """The inverse: ``(1 - p) y`` where x was kept, and x itself, which F left in the context, elsewhere."""

    fixed = True

    def __init__(self, p: float) -> None:
        super().__init__(nn.Module())
        self.p = p

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        context = self._context(call)
        return torch.where(context.isnan(), x * (1.0 - self.p), context.to(x.dtype))

    @staticmethod
    def _context(call: Call) -> Tensor:
        context: Tensor | None = call.context
        assert context is not None, "what was left out is in the context"
        return context

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> ScalingPullback:
        del output
        scale = self._context(call).isnan().to(x.dtype) * (1.0 - self.p)
        return ScalingPullback(scale, self(x, call))

    def torch_modules(self) -> list[nn.Module]:
        raise TypeError("an inverse needs its mask, which no sequence of torch modules has")


@dataclass(frozen=True, kw_only=True)
class DropoutOptions(UnlearnedOptions):
    """Each number is left out with probability p in training; how inverses learn does not matter."""

    kind: str = option("dropout", doc="dropout")
    p: Share = option(0.5, doc="probability that a number is left out in training")

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def inverse_reads_forward(self, input_shape: Shape) -> bool:
        del input_shape
        return True

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        del generator
        return DropoutMap(self.p), UndroppingMap(self.p) if inverse else None
