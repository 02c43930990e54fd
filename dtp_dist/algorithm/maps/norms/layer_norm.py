"""Layer normalisation by itself, and an inverse that puts back what it took off.

``f(x) = w (x - m) / s + b`` with the mean m and deviation s of each example's numbers (Ba, Kiros, Hinton
2016, arXiv 1607.06450). Its context is m and s, so ``g(y) = (v y + c) s + m``, with a scale v and shift c of
its own that start as 1 and 0: then g undoes f exactly, as long as f's own w and b are 1 and 0.

Shapes: x and y ``[B, *shape]``, the context ``[B, 2]``: m and s, float32 at least.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.maps.base import Call, Map, Pullback
from dtp_dist.algorithm.maps.norms.normalized import LayerNorm, Normalized


class LayerNormPullback(Pullback):
    """torch's own pullback of layer normalisation."""

    def __init__(self, normalized: Normalized) -> None:
        self.output, self._pull = normalized.output, normalized.pull

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        return self._pull(cotangent, True)[1]

    def input(self, cotangent: Tensor) -> Tensor:
        return self._pull(cotangent, False)[0]


class LayerNormMap(Map):
    """``f(x) = w (x - m) / s + b``; its statistics are always those of the x at which it is taken."""

    def __init__(self, norm: LayerNorm) -> None:
        super().__init__(norm.module)
        self._norm = norm

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self._norm(x, call.mode)

    def with_context(self, x: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
        del call
        found = self._norm.linearize(x)
        mean, inverse_deviation = (each.flatten() for each in (found.mean, found.inverse_deviation))
        return found.output, torch.stack([mean, inverse_deviation.reciprocal()], dim=1)

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> LayerNormPullback:
        del call, output
        return LayerNormPullback(self._norm.linearize(x))

    def torch_modules(self) -> list[nn.Module]:
        return [self.module]


class Rescaling(nn.Module):
    """The scale and the shift of an inverse, where it has them."""

    def __init__(self, shape: tuple[int, ...], *, affine: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape)) if affine else None
        self.bias = nn.Parameter(torch.zeros(shape)) if affine else None


class RescalingPullback(Pullback):
    """``x = (v y + c) s + m``: ``dv = sum s y dx``, ``dc = sum s dx``, ``dy = v s dx``."""

    def __init__(self, inverse: RescalingMap, y: Tensor, call: Call) -> None:
        self._inverse, self._y, self._call = inverse, y, call
        self.output = inverse(y, call)

    def _inner(self, cotangent: Tensor) -> Tensor:
        return cotangent * self._inverse.statistics(cotangent, self._call)[1]

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        if not self._inverse.parameters():
            return []
        inner = self._inner(cotangent)
        dtype = self._inverse.parameters()[0].dtype
        return [each.sum(0, dtype=dtype) for each in (inner * self._y, inner)]

    def input(self, cotangent: Tensor) -> Tensor:
        inner = self._inner(cotangent)
        return inner if self._inverse.scale is None else inner * self._inverse.scale.detach().to(inner.dtype)


class RescalingMap(Map):
    """The inverse ``g(y) = (v y + c) s + m`` in the context that F left for the minibatch."""

    def __init__(self, shape: tuple[int, ...], *, affine: bool) -> None:
        module = Rescaling(shape, affine=affine)
        super().__init__(module)
        self.scale, self._shift = module.weight, module.bias
        self.fixed = not affine

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        mean, deviation = self.statistics(x, call)
        if self.scale is not None and self._shift is not None:
            x = torch.addcmul(self._shift.detach().to(x.dtype), x, self.scale.detach().to(x.dtype))
        return torch.addcmul(mean, x, deviation)

    def statistics(self, like: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Return the mean and the deviation of each example's input, shaped to fit ``like``, in its type."""
        assert call.context is not None, "the statistics are in the context"
        shape = (len(like), *[1] * (like.dim() - 1))
        mean, deviation = call.context.to(like.dtype).unbind(1)
        return mean.view(shape), deviation.view(shape)

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> RescalingPullback:
        del output
        return RescalingPullback(self, x, call)

    def torch_modules(self) -> list[nn.Module]:
        raise TypeError("an inverse needs its statistics, which no sequence of torch modules has")
