"""Locally connected maps in closed form: a convolution whose kernel is another one at each place.

With ``P`` places, ``u_p`` the patch of x at place p, ``y_p`` the channels of y there:
``f(x)_p = a(W_p u_p + b_p)``, and an inverse that lays patches over one another,
``g(y) = a(sum_p lay_p(V_p^T phi(y_p)) + c)``.

Shapes: x ``[B, C, H, W]``, y ``[B, O, H', W']``, W and V ``[P, O, C k k]``, b ``[O, H', W']``,
c ``[C, H, W]``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, unfold

from dtp_dist.algorithm.maps.activations import ACTIVATIONS
from dtp_dist.algorithm.maps.base import Call, Map, ProductPart, Pullback
from dtp_dist.algorithm.plain import Local


class TransposedLocal(nn.Module):
    """The parameters of an inverse, ``weight`` V and ``bias`` c, and the geometry of the forward map."""

    def __init__(self, forward: Local, *, bias: bool) -> None:
        super().__init__()
        self.channels, self.image, self.geometry = forward.channels, forward.image, forward.geometry
        self.places = forward.places
        self.weight = nn.Parameter(torch.zeros(forward.weight.shape))
        self.bias = nn.Parameter(torch.zeros(self.channels[0], *self.image)) if bias else None


Module = Local | TransposedLocal


def _patches(module: Module, x: Tensor) -> Tensor:
    """Return the patches of images: ``[P, B, C k k]``."""
    kernel, stride, padding = module.geometry
    return unfold(x, kernel, padding=padding, stride=stride).permute(2, 0, 1).contiguous()


def _laid(module: Module, patches: Tensor) -> Tensor:
    """Return images ``[B, C, H, W]`` of patches laid over one another: the transpose of ``_patches``."""
    kernel, stride, padding = module.geometry
    return fold(patches.permute(1, 2, 0), module.image, kernel, padding=padding, stride=stride).contiguous()


def _by_place(y: Tensor) -> Tensor:
    """Return ``[B, O, H', W']`` as ``[P, B, O]``."""
    return y.flatten(2).permute(2, 0, 1).contiguous()


def _weight(module: Module, like: Tensor) -> Tensor:
    return module.weight.detach().to(like.dtype)


def _forth(module: Module, patches: Tensor) -> Tensor:
    """Return ``W_p u_p``, ``[B, O, H', W']``."""
    y = torch.bmm(patches, _weight(module, patches).mT).permute(1, 2, 0)
    return y.reshape(*y.shape[:2], *module.places).contiguous()


def _back(module: Module, y: Tensor) -> Tensor:
    """Return ``sum_p lay_p(W_p^T y_p)``, ``[B, C, H, W]``: the transpose of ``_forth`` of the patches."""
    return _laid(module, torch.bmm(_by_place(y), _weight(module, y)))


def _pull_weight(module: Module, y: Tensor, patches: Tensor) -> Tensor:
    """Return ``y_p u_p^T`` summed over examples, in the weight's type."""
    return torch.bmm(_by_place(y).mT, patches).to(module.weight.dtype)


def _biased(module: Module, z: Tensor) -> Tensor:
    return z if module.bias is None else z.add_(module.bias.detach().to(z.dtype))


def _pull_bias(module: Module, cotangent: Tensor) -> list[Tensor]:
    """Return the bias's gradient, if there is a bias."""
    return [] if module.bias is None else [cotangent.sum(0, dtype=module.bias.dtype)]


class LocalPullback(Pullback):
    """``c' = c * a'(y)``; ``dW_p = c'_p u_p^T``, ``db = sum c'``, ``dx = sum_p lay_p(W_p^T c'_p)``."""

    def __init__(self, local: LocalMap, x: Tensor, output: Tensor | None) -> None:
        self._local, self._patches = local, _patches(local.local, x)
        if output is not None and local.activation.of_output:
            self.output = self._kept = output
        else:
            z = _biased(local.local, _forth(local.local, self._patches))
            self.output = local.activation.apply(z)
            self._kept = local.activation.kept(z, self.output)

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        module, inner = self._local.local, self._local.activation.pull(cotangent, self._kept)
        return [_pull_weight(module, inner, self._patches), *_pull_bias(module, inner)]

    def input(self, cotangent: Tensor) -> Tensor:
        return _back(self._local.local, self._local.activation.pull(cotangent, self._kept))


class LocalMap(Map):
    """``y_p = a(W_p u_p + b_p)``."""

    def __init__(self, local: Local, activation: str) -> None:
        super().__init__(local)
        self.local, self.activation = local, ACTIVATIONS[activation]

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        del call
        return self.activation.apply(_biased(self.local, _forth(self.local, _patches(self.local, x))))

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> LocalPullback:
        del call
        return LocalPullback(self, x, output)

    def products(self) -> list[Tensor]:
        return [self.local.weight]

    def torch_modules(self) -> list[nn.Module]:
        return [self.local, *self.activation.modules()]

    def product_part(self) -> ProductPart | None:
        if not self.activation.of_output:
            return None
        return ProductPart(self.local.weight.detach(), self.activation.slopes_of_output)


class TransposedLocalPullback(Pullback):
    """``c' = c * a'(x)``; ``dV_p = phi(y_p) u_p(c')^T``, ``dc = sum c'``, ``dy_p = phi' V_p u_p(c')``."""

    def __init__(self, inverse: TransposedLocalMap, y: Tensor) -> None:
        self._inverse = inverse
        self._features = inverse.before.apply(y)
        self._below = inverse.before.kept(y, self._features)
        z = _biased(inverse.local, inverse.product(self._features))
        self.output = inverse.activation.apply(z)
        self._kept = inverse.activation.kept(z, self.output)

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        module, inner = self._inverse.local, self._inverse.activation.pull(cotangent, self._kept)
        return [_pull_weight(module, self._features, _patches(module, inner)), *_pull_bias(module, inner)]

    def input(self, cotangent: Tensor) -> Tensor:
        module, inner = self._inverse.local, self._inverse.activation.pull(cotangent, self._kept)
        return self._inverse.before.pull(_forth(module, _patches(module, inner)), self._below)


class TransposedLocalMap(Map):
    """The inverse ``x = a(sum_p lay_p(V_p^T phi(y_p)) + c)``."""

    def __init__(self, local: TransposedLocal, activation: str, before: str = "linear") -> None:
        super().__init__(local)
        self.local = local
        self.weight: Tensor = local.weight
        self.activation, self.before = ACTIVATIONS[activation], ACTIVATIONS[before]

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self.activation.apply(_biased(self.local, self.product(self.features(x, call))))

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> TransposedLocalPullback:
        del call, output
        return TransposedLocalPullback(self, x)

    def affine(self) -> TransposedLocalMap | None:
        return self if self.activation is ACTIVATIONS["linear"] else None

    def columns(self) -> TransposedLocalMap | None:
        return self.affine()

    def slopes(self, x: Tensor, call: Call) -> Tensor:
        """Return ``phi'(y)``."""
        del call
        return self.before.slopes(x)

    def of_columns(self, units: Tensor) -> Tensor:
        """Return ``[P, O, 1]``: a column of the weight is the kernel of a channel at a place."""
        return units.mean(0).flatten(1).t()[:, :, None]

    def features(self, x: Tensor, call: Call) -> Tensor:
        """Return ``phi(y)``."""
        del call
        return self.before.apply(x)

    def product(self, features: Tensor) -> Tensor:
        """Return ``sum_p lay_p(V_p^T features_p)``."""
        return _back(self.local, features)

    def product_gradients(self, features: Tensor, cotangent: Tensor) -> list[Tensor]:
        """Return the weight's gradient and, for a bias, zero."""
        gradients = [_pull_weight(self.local, features, _patches(self.local, cotangent))]
        bias = self.local.bias
        return gradients if bias is None else [*gradients, torch.zeros_like(bias.detach())]

    def torch_modules(self) -> list[nn.Module]:
        raise TypeError("torch has no module that lays patches with a kernel of their own over one another")
