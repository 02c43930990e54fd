"""Inverses that take the forward activation's derivative from F: ``g(y) = w (a'(h) y) + b``.

Given ``f(x) = a(z(x))`` with the output h in F of the minibatch, ``a'(h)`` is constant, so g is affine in y
with the Jacobian ``w diag(a'(h))``. It is the transpose of f's where w is that of z's: an inverse that L-DRL
teaches (Ernoult et al. 2022, arXiv 2201.13415) need not find the derivative by an activation of its own.

In that loss the slope is that of the clean pass for all three values of g, also where the places of maxima
are those of the noisy pass h' = f(x + eps) (``Map.with_places``). With the noisy pass's slope
``g(h') - g(h) = w (a'(h') h' - a'(h) h)`` would have the derivative of ``a'`` in it as well, and the w that
the loss is lowest for would be another one than the transpose.

Shapes: as the maps inside; the slope is of y's shape.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.maps.activations import ACTIVATIONS
from dtp_dist.algorithm.maps.base import Affine, Call, Columns, Context, Kept, Map, ProductPart, Pullback

INNER, SLOPE = "inner", "slope"


def sloped(f: Map, g: Map, activation: str) -> tuple[Map, Map]:
    """Return f with its derivative in its context, and g of what is multiplied by it.

    ``activation`` is what f ends in; its derivative must follow from its output (``Activation.of_output``).
    """
    return (f, g) if activation == "linear" else (SlopeKeepingMap(f, activation), SlopedMap(g))


def _inside(call: Call) -> Call:
    """Return the call with the context of the map inside."""
    return call if call.context is None else replace(call, context=call.context.contexts[INNER])


class SlopeKeepingMap(Map):
    """A forward map whose context also has ``a'(h)``, the derivative of its last activation."""

    def __init__(self, inner: Map, activation: str) -> None:
        super().__init__(inner.module)
        self.inner, self._activation = inner, ACTIVATIONS[activation]
        self.transmission = inner.transmission

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self.inner(x, _inside(call))

    def with_context(self, x: Tensor, call: Call) -> tuple[Tensor, Kept]:
        y, context = self.inner.with_context(x, _inside(call))
        return y, Kept({INNER: context, SLOPE: self._activation.pull(torch.ones_like(y), y)})

    def with_places(self, x: Tensor, call: Call) -> tuple[Tensor, Kept]:
        y, context = self.inner.with_places(x, _inside(call))
        return y, Kept({INNER: context, SLOPE: _slope(call)})

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> Pullback:
        return self.inner.linearize(x, _inside(call), output)

    def product_part(self) -> ProductPart | None:
        return self.inner.product_part()

    def torch_modules(self) -> list[nn.Module]:
        return self.inner.torch_modules()


class SlopedPullback(Pullback):
    """``dy = a'(h) du``, ``u = a'(h) y`` what the map inside gets."""

    def __init__(self, inner: Pullback, slope: Tensor) -> None:
        self._inner, self._slope, self.output = inner, slope, inner.output

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        return self._inner.parameters(cotangent)

    def input(self, cotangent: Tensor) -> Tensor:
        return self._slope * self._inner.input(cotangent)


class SlopedMap(Map):
    """The inverse ``g(y) = inner(a'(h) y)``, in the context that F left for the minibatch."""

    def __init__(self, inner: Map) -> None:
        super().__init__(inner.module)
        self._inner, self._affine = inner, inner.affine()
        self.transmission, self.fixed = inner.transmission, inner.fixed

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self._inner(_slope(call) * x, _inside(call))

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> SlopedPullback:
        slope = _slope(call)
        return SlopedPullback(self._inner.linearize(slope * x, _inside(call), output), slope)

    def affine(self) -> SlopedAffine | None:
        return None if self._affine is None else SlopedAffine(self._affine)

    def columns(self) -> SlopedColumns | None:
        inner = self._inner.columns()
        return None if inner is None else SlopedColumns(inner)

    def torch_modules(self) -> list[nn.Module]:
        raise TypeError("an inverse needs its derivatives, which no sequence of torch modules has")


class SlopedAffine:
    """The parts of a ``SlopedMap`` whose map inside is affine (``Affine``)."""

    def __init__(self, inner: Affine) -> None:
        self._inner, self.weight = inner, inner.weight
        self.product, self.product_gradients = inner.product, inner.product_gradients

    def features(self, x: Tensor, call: Call) -> Tensor:
        """Return those of the map inside at ``a'(h) x``."""
        return self._inner.features(_slope(call) * x, _inside(call))


class SlopedColumns(SlopedAffine):
    """The same of a map whose weight is made of columns (``Columns``)."""

    def __init__(self, inner: Columns) -> None:
        super().__init__(inner)
        self._columns, self.of_columns = inner, inner.of_columns

    def slopes(self, x: Tensor, call: Call) -> Tensor:
        """Return ``a'(h) phi'(a'(h) x)``."""
        slope = _slope(call)
        return slope * self._columns.slopes(slope * x, _inside(call))


def _slope(call: Call) -> Tensor:
    context: Context = call.context
    assert context is not None, "the derivative is in the context"
    slope: Tensor = context.contexts[SLOPE]
    return slope
