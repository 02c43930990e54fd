"""Dense maps in closed form: ``y = a(phi(seen(x)) W^T + b)``.

Shapes: x is ``[B, inputs]``, y and every cotangent ``[B, units]``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dtp_dist.algorithm.activations import ACTIVATIONS
from dtp_dist.algorithm.maps import Call, Map, Mode, Pullback
from dtp_dist.algorithm.transmission import MODULES, REAL, transmitted
from dtp_dist.algorithm.transmission import PURPOSE as SAMPLE_PURPOSE


class DensePullback(Pullback):
    """``y = a(u W^T + b)``, ``u = phi(x)``: ``c' = c * a'(y)``; ``dW = c'^T u``, ``db = sum c'``.

    ``du = c' W``, ``dx = du * phi'(u)``; the derivative of seeing is taken as 1 (straight-through).
    """

    def __init__(self, dense: DenseMap, features: Tensor, output: Tensor) -> None:
        self._dense, self._features, self.output = dense, features, output

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        inner = self._dense.activation.pull(cotangent, self.output)
        weight = self._dense.weight
        gradients = [inner.t() @ self._features]
        if self._dense.bias is not None:
            gradients.append(inner.sum(0))
        if inner.dtype != weight.dtype:
            gradients = [gradient.to(weight.dtype) for gradient in gradients]
        return gradients

    def input(self, cotangent: Tensor) -> Tensor:
        inner = self._dense.activation.pull(cotangent, self.output)
        product = inner @ self._dense.weight.detach().to(inner.dtype)
        return self._dense.before.pull(product, self._features)


class DenseMap(Map):
    """A dense map in closed form: autograd's bookkeeping costs as much as its small products.

    It reads its input as ``sees`` says (``transmission.py``), after adding N(0, ``noise``^2) in training.
    ``activation`` is applied to the product; ``before`` to the input, where the map begins with one.
    """

    closed_form = True

    def __init__(
        self,
        module: nn.Linear,
        activation: str,
        before: str = "linear",
        *,
        sees: str = REAL,
        noise: float = 0.0,
    ) -> None:
        super().__init__(module)
        self.weight, self.bias = module.weight, module.bias
        self.activation, self.before = ACTIVATIONS[activation], ACTIVATIONS[before]
        self.sees, self.noise = sees, noise

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self._from_features(self.features(x, call))

    def _from_features(self, features: Tensor) -> Tensor:
        weight: Tensor = self.weight.detach()
        bias: Tensor | None = None if self.bias is None else self.bias.detach()
        if features.dtype != weight.dtype:
            weight = weight.to(features.dtype)
            bias = None if bias is None else bias.to(features.dtype)
        return self.activation.apply(linear(features, weight, bias))

    def with_context(self, x: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
        """Return y and, where chance or a sign chose what the map saw, that: it need not be chosen again."""
        features = self.features(x, call)
        return self._from_features(features), features if self.sees != REAL or self.noise else None

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> DensePullback:
        if output is not None and call.context is not None:
            return DensePullback(self, call.context, output)
        features = self.features(x, call)
        return DensePullback(self, features, self._from_features(features) if output is None else output)

    def affine(self) -> DenseMap | None:
        return self if self.activation is ACTIVATIONS["linear"] else None

    def features(self, x: Tensor, call: Call) -> Tensor:
        """Return what the product is taken of: what the map sees, behind the activation before it."""
        random = call.randomness
        if self.noise and call.mode is not Mode.EVALUATE:
            x = random.normal(x, self.noise, "input noise").add_(x)
        seen = transmitted(self.sees, x, lambda: random.generator(SAMPLE_PURPOSE, 0, x.device))
        return self.before.apply(seen)

    def product(self, features: Tensor) -> Tensor:
        """Return ``features W^T``."""
        return features @ self.weight.detach().to(features.dtype).t()

    def product_gradients(self, features: Tensor, cotangent: Tensor) -> list[Tensor]:
        """Return the weight's gradient ``cotangent^T features`` and, for a bias, zero."""
        gradients = [(cotangent.t() @ features).to(self.weight.dtype)]
        return gradients if self.bias is None else [*gradients, torch.zeros_like(self.bias.detach())]

    def torch_modules(self) -> list[nn.Module]:
        sees = [MODULES[self.sees]()] if self.sees in MODULES else []
        outer = [each.module() for each in (self.activation,) if each.module is not None]
        inner = [each.module() for each in (self.before,) if each.module is not None]
        return [*sees, *inner, self.module, *outer]
