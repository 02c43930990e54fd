"""Dense maps in closed form: ``y = a(phi(seen(x)) W^T + b)``.

Shapes: x is ``[B, inputs]``, y and every cotangent ``[B, units]``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dtp_dist.algorithm.maps.activations import ACTIVATIONS
from dtp_dist.algorithm.maps.base import Call, Map, Mode, ProductPart, Pullback
from dtp_dist.algorithm.transmission import MODULES, REAL, transmitted
from dtp_dist.algorithm.transmission import PURPOSE as SAMPLE_PURPOSE


class DensePullback(Pullback):
    """``y = a(u W^T + b)``, ``u = phi(x)``: ``c' = c * a'(y)``; ``dW = c'^T u``, ``db = sum c'``.

    ``du = c' W``, ``dx = du * phi'(u)``; the derivative of seeing is taken as 1 (straight-through).
    """

    def __init__(
        self, dense: DenseMap, features: Tensor, output: Tensor, *, seen: Tensor | None, z: Tensor | None
    ) -> None:
        self._dense, self._features, self.output = dense, features, output
        self._below = features if seen is None else dense.before.kept(seen, features)
        self._above = output if z is None else dense.activation.kept(z, output)

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        inner = self._dense.activation.pull(cotangent, self._above)
        weight = self._dense.weight
        gradients = [inner.t() @ self._features]
        if self._dense.bias is not None:
            gradients.append(inner.sum(0))
        if inner.dtype != weight.dtype:
            gradients = [gradient.to(weight.dtype) for gradient in gradients]
        return gradients

    def input(self, cotangent: Tensor) -> Tensor:
        inner = self._dense.activation.pull(cotangent, self._above)
        product = inner @ self._dense.weight.detach().to(inner.dtype)
        return self._dense.before.pull(product, self._below)


class DenseMap(Map):
    """A dense map in closed form: autograd's bookkeeping costs as much as its small products.

    It reads its input as ``transmission`` says (``transmission.py``), in training after adding
    N(0, ``noise``^2). ``activation`` is applied to the product; ``before`` to the input, where the map
    begins with one.
    """

    def __init__(
        self,
        module: nn.Linear,
        activation: str,
        before: str = "linear",
        *,
        transmission: str = REAL,
        noise: float = 0.0,
    ) -> None:
        super().__init__(module)
        self.weight, self.bias = module.weight, module.bias
        self.activation, self.before = ACTIVATIONS[activation], ACTIVATIONS[before]
        self.transmission, self.noise = transmission, noise

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self._from_features(self.features(x, call))

    def _from_features(self, features: Tensor) -> Tensor:
        return self.activation.apply(self._affine(features))

    def _affine(self, features: Tensor) -> Tensor:
        """Return ``features W^T + b``."""
        weight: Tensor = self.weight.detach()
        bias: Tensor | None = None if self.bias is None else self.bias.detach()
        if features.dtype != weight.dtype:
            weight = weight.to(features.dtype)
            bias = None if bias is None else bias.to(features.dtype)
        return linear(features, weight, bias)

    def with_context(self, x: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
        """Return y and, where chance or a sign chose what the map saw, that: it need not be chosen again."""
        features = self.features(x, call)
        return self._from_features(features), features if self.transmission != REAL or self.noise else None

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> DensePullback:
        seen = None
        if output is not None and call.context is not None and self.before.of_output:
            features = call.context
        else:
            seen = self._seen(x, call)
            features = self.before.apply(seen)
        if output is not None and self.activation.of_output:
            return DensePullback(self, features, output, seen=seen, z=None)
        z = self._affine(features)
        return DensePullback(self, features, self.activation.apply(z), seen=seen, z=z)

    def affine(self) -> DenseMap | None:
        return self if self.activation is ACTIVATIONS["linear"] else None

    def features(self, x: Tensor, call: Call) -> Tensor:
        """Return what the product is taken of: what the map sees, behind the activation before it."""
        return self.before.apply(self._seen(x, call))

    def _seen(self, x: Tensor, call: Call) -> Tensor:
        """Return what the map reads of its input: with its noise, and as it is transmitted."""
        random = call.randomness
        if self.noise and call.mode is not Mode.EVALUATE:
            x = random.normal(x, self.noise, "input noise", call.iteration).add_(x)
        return transmitted(
            self.transmission, x, lambda: random.generator(SAMPLE_PURPOSE, call.iteration, x.device)
        )

    def product(self, features: Tensor) -> Tensor:
        """Return ``features W^T``."""
        return features @ self.weight.detach().to(features.dtype).t()

    def product_gradients(self, features: Tensor, cotangent: Tensor) -> list[Tensor]:
        """Return the weight's gradient ``cotangent^T features`` and, for a bias, zero."""
        gradients = [(cotangent.t() @ features).to(self.weight.dtype)]
        return gradients if self.bias is None else [*gradients, torch.zeros_like(self.bias.detach())]

    def products(self) -> list[Tensor]:
        return [self.weight]

    def columns(self) -> DenseMap | None:
        return self.affine() if self.transmission == REAL else None

    def slopes(self, x: Tensor, call: Call) -> Tensor:
        """Return ``phi'(x)``."""
        del call
        return self.before.slopes(x)

    def of_columns(self, units: Tensor) -> Tensor:
        """Return ``[units]``: a column of the weight is an input's."""
        return units.mean(0)

    def product_part(self) -> ProductPart | None:
        if self.transmission != REAL or not self.activation.of_output:
            return None
        return ProductPart(self.weight.detach().t(), self.activation.slopes_of_output)

    def torch_modules(self) -> list[nn.Module]:
        read = [MODULES[self.transmission]()] if self.transmission in MODULES else []
        return [*read, *self.before.modules(), self.module, *self.activation.modules()]
