"""Convolutional maps in closed form: ``f(x) = a(pool(w * x + b))`` and an inverse that leads back.

``*`` is torch's convolution, ``*^T`` its transpose. Shapes: x ``[B, C, H, W]``, y ``[B, C', H', W']``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.maps.activations import ACTIVATIONS
from dtp_dist.algorithm.maps.base import Call, Map, ProductPart, Pullback
from dtp_dist.algorithm.maps.pooling import Pooling

Convolution = nn.Conv2d | nn.ConvTranspose2d


def _product(module: Convolution, x: Tensor, *, bias: bool = True) -> Tensor:
    """Return the module's output, in the input's type."""
    added = module.bias.detach().to(x.dtype) if bias and module.bias is not None else None
    weight = module.weight.detach().to(x.dtype)
    y: Tensor = torch.ops.aten.convolution(x, weight, added, *_geometry(module))
    return y.contiguous()


def _geometry(module: Convolution) -> tuple[object, ...]:
    """Return stride, padding, dilation, whether transposed, output padding and groups: torch's order."""
    transposed = isinstance(module, nn.ConvTranspose2d)
    return (module.stride, module.padding, module.dilation, transposed, module.output_padding, module.groups)


def _pull_input(module: Convolution, x: Tensor, cotangent: Tensor) -> Tensor:
    """Return the input's gradient of ``<cotangent, module(x)>``."""
    weight = module.weight.detach().to(cotangent.dtype)
    pulled = torch.ops.aten.convolution_backward(
        cotangent, x, weight, None, *_geometry(module), [True, False, False]
    )
    return pulled[0].contiguous()  # type: ignore[no-any-return]


def _pull_weight(module: Convolution, x: Tensor, cotangent: Tensor) -> Tensor:
    """Return the weight's gradient of ``<cotangent, module(x)>``, in the weight's type."""
    weight = module.weight.detach().to(cotangent.dtype)
    pulled = torch.ops.aten.convolution_backward(
        cotangent, x, weight, None, *_geometry(module), [False, True, False]
    )
    return pulled[1].to(module.weight.dtype)  # type: ignore[no-any-return]


def _pull_bias(module: Convolution, cotangent: Tensor) -> list[Tensor]:
    """Return the bias's gradient, if there is a bias."""
    return [] if module.bias is None else [cotangent.sum((0, 2, 3)).to(module.bias.dtype)]


class ConvPullback(Pullback):
    """``y = a(pool(z))``, ``z = w * x + b``: ``c' = pool^T(c * a'(y))``; the rest is the convolution's."""

    def __init__(
        self, conv: ConvMap, x: Tensor, output: Tensor, context: Tensor | None, pooled: Tensor | None
    ) -> None:
        self._conv, self._x, self.output, self._context = conv, x, output, context
        self._kept = output if pooled is None else conv.activation.kept(pooled, output)

    def _inner(self, cotangent: Tensor) -> Tensor:
        inner = self._conv.activation.pull(cotangent, self._kept)
        return self._conv.pooling.transpose(inner, self._context, self._conv.image)

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        module, inner = self._conv.conv, self._inner(cotangent)
        return [_pull_weight(module, self._x, inner), *_pull_bias(module, inner)]

    def input(self, cotangent: Tensor) -> Tensor:
        return _pull_input(self._conv.conv, self._x, self._inner(cotangent))


class ConvMap(Map):
    """``y = a(pool(w * x + b))``; the context is the pooling's. ``image`` is the (H, W) before it."""

    def __init__(self, conv: nn.Conv2d, pooling: Pooling, activation: str, image: tuple[int, ...]) -> None:
        super().__init__(conv)
        self.conv, self.pooling, self.image = conv, pooling, image
        self.activation = ACTIVATIONS[activation]

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self.with_context(x, call)[0]

    def with_context(self, x: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
        del call
        pooled, context = self.pooling(_product(self.conv, x))
        return self.activation.apply(pooled), context

    with_places = with_context

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> ConvPullback:
        if output is not None and self.activation.of_output:
            return ConvPullback(self, x, output, call.context, None)
        pooled, context = self.pooling(_product(self.conv, x))
        return ConvPullback(self, x, self.activation.apply(pooled), context, pooled)

    def products(self) -> list[Tensor]:
        return [self.conv.weight]

    def torch_modules(self) -> list[nn.Module]:
        pooling = self.pooling.module()
        return [self.conv, *([] if pooling is None else [pooling]), *self.activation.modules()]

    def product_part(self) -> ProductPart | None:
        if not self.activation.of_output:
            return None
        return ProductPart(self.conv.weight.detach(), self.activation.slopes_of_output)


class TransposedPullback(Pullback):
    """``x = a(w *^T u + b)``, ``u = pool^T(phi(y))``: ``c' = c * a'(x)``, ``dy = phi'(y) select(dL/du)``."""

    def __init__(self, inverse: TransposedConvMap, y: Tensor, call: Call) -> None:
        self._inverse, self._call = inverse, call
        phi = inverse.before.apply(y)
        self._below = inverse.before.kept(y, phi)
        self._features = inverse.unpool(phi, call)
        z = _product(inverse.conv, self._features)
        self.output = inverse.activation.apply(z)
        self._above = inverse.activation.kept(z, self.output)

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        module = self._inverse.conv
        inner = self._inverse.activation.pull(cotangent, self._above)
        return [_pull_weight(module, self._features, inner), *_pull_bias(module, inner)]

    def input(self, cotangent: Tensor) -> Tensor:
        inner = self._inverse.activation.pull(cotangent, self._above)
        below = _pull_input(self._inverse.conv, self._features, inner)
        selected = self._inverse.pooling.select(below, self._call.context)
        return self._inverse.before.pull(selected, self._below)


class TransposedConvMap(Map):
    """The inverse ``x = a(w *^T pool^T(phi(y)) + b)``, in the context that F left for the minibatch.

    ``before`` is phi, an activation that is 0 at 0; ``image`` is the (H, W) that pooling is undone to.
    """

    def __init__(
        self,
        conv: nn.ConvTranspose2d,
        pooling: Pooling,
        activation: str,
        image: tuple[int, ...],
        before: str = "linear",
    ) -> None:
        super().__init__(conv)
        self.conv, self.weight, self.pooling, self.image = conv, conv.weight, pooling, image
        self.activation, self.before = ACTIVATIONS[activation], ACTIVATIONS[before]

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self.from_features(self.features(x, call))

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> TransposedPullback:
        del output
        return TransposedPullback(self, x, call)

    def affine(self) -> TransposedConvMap | None:
        return self if self.activation is ACTIVATIONS["linear"] else None

    def columns(self) -> TransposedConvMap | None:
        return self.affine() if self.pooling.places_one else None

    def slopes(self, x: Tensor, call: Call) -> Tensor:
        """Return ``phi'(y)``."""
        del call
        return self.before.slopes(x)

    def of_columns(self, units: Tensor) -> Tensor:
        """Return ``[C', 1, 1, 1]``: a column of the weight is a channel's kernel."""
        return (units.sum((0, 2, 3)) / len(units))[:, None, None, None]

    def features(self, x: Tensor, call: Call) -> Tensor:
        """Return what the convolution is applied to, ``pool^T(phi(y))``."""
        return self.unpool(self.before.apply(x), call)

    def unpool(self, y: Tensor, call: Call) -> Tensor:
        """Return ``pool^T(y)`` in the call's context."""
        return self.pooling.transpose(y, call.context, self.image)

    def from_features(self, features: Tensor) -> Tensor:
        """Return ``a(w *^T features + b)``."""
        return self.activation.apply(_product(self.conv, features))

    def product(self, features: Tensor) -> Tensor:
        """Return ``w *^T features``."""
        return _product(self.conv, features, bias=False)

    def product_gradients(self, features: Tensor, cotangent: Tensor) -> list[Tensor]:
        """Return the weight's gradient of ``<cotangent, w *^T features>`` and, for a bias, zero."""
        gradients = [_pull_weight(self.conv, features, cotangent)]
        return (
            gradients if self.conv.bias is None else [*gradients, torch.zeros_like(self.conv.bias.detach())]
        )

    def torch_modules(self) -> list[nn.Module]:
        raise TypeError("an inverse needs its pooling's context, which no sequence of torch modules has")
