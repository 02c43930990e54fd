"""Differentiable maps: what both the forward map f_l and the inverse g_l of a layer are.

A map gives its output and a *pullback*: the vector-Jacobian products with its parameters and its input.
Every update of every rule is a pullback of some cotangent, so a rule needs no autograd of its own.

Shapes: x is ``[B, *input_shape]``, y and every cotangent ``[B, *output_shape]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dtp_dist.algorithm.activations import ACTIVATIONS
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.algorithm.transmission import MODULES, REAL, transmitted
from dtp_dist.algorithm.transmission import PURPOSE as SAMPLE_PURPOSE


class Mode(Enum):
    """How a module is called: batch statistics change in ``FORWARD`` alone (design, section 2)."""

    FORWARD = "forward"
    LOCAL = "local"
    EVALUATE = "evaluate"


@dataclass(frozen=True, slots=True)
class Call:
    """The circumstances of one evaluation: where its random numbers come from and its mode."""

    randomness: Randomness
    mode: Mode = Mode.LOCAL
    purpose: str = "forward"
    iteration: int = 0

    def inverse(self, iteration: int = 0) -> Call:
        """Return the call for the layer's inverse."""
        return Call(self.randomness, Mode.LOCAL, "inverse", iteration)

    def forward(self) -> Call:
        """Return the call for the layer's forward map, with the random numbers of F."""
        return Call(self.randomness)


class Pullback(ABC):
    """A map linearized at one input; ``output`` is its value there."""

    output: Tensor

    @abstractmethod
    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        """Return ``(dy/dtheta)^T cotangent``, one tensor per parameter, in their order and types."""

    @abstractmethod
    def input(self, cotangent: Tensor) -> Tensor:
        """Return ``(dy/dx)^T cotangent``, of the input's shape."""


class Map(ABC):
    """A map with parameters in ``module``.

    ``closed_form`` says whether ``linearize`` can use a stored output instead of computing it again; ``sees``
    what the map reads of its input (``transmission.py``).
    """

    closed_form: bool = False
    sees: str = REAL

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._parameters = [each for each in module.parameters() if each.requires_grad]

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn, in torch's order."""
        return self._parameters

    @abstractmethod
    def __call__(self, x: Tensor, call: Call) -> Tensor:
        """Return y, contiguous and without a graph."""

    @abstractmethod
    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> Pullback:
        """Return the pullback at ``x`` and today's parameters.

        A stored ``output`` takes the place of today's where the map is ``closed_form``.
        """

    @abstractmethod
    def torch_modules(self) -> list[nn.Module]:
        """Return plain torch modules that, in sequence, are this map."""


class DensePullback(Pullback):
    """``y = a(x W^T + b)``: ``c' = c * a'(y)``; ``dW = c'^T x``, ``db = sum c'``, ``dx = c' W``.

    ``x`` is what the layer sees; the derivative of seeing is taken as 1 (the straight-through estimator).
    """

    def __init__(self, dense: DenseMap, x: Tensor, output: Tensor) -> None:
        self._dense, self._x, self.output = dense, x, output

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        inner = self._dense.activation.pull(cotangent, self.output)
        weight = self._dense.weight
        gradients = [inner.t() @ self._x]
        if self._dense.bias is not None:
            gradients.append(inner.sum(0))
        if inner.dtype != weight.dtype:
            gradients = [gradient.to(weight.dtype) for gradient in gradients]
        return gradients

    def input(self, cotangent: Tensor) -> Tensor:
        inner = self._dense.activation.pull(cotangent, self.output)
        return inner @ self._dense.weight.detach().to(inner.dtype)


class DenseMap(Map):
    """A dense map in closed form: autograd's bookkeeping costs as much as its small products.

    It reads its input as ``sees`` says (``transmission.py``), after adding N(0, ``noise``^2) in training.
    """

    closed_form = True

    def __init__(self, module: nn.Linear, activation: str, *, sees: str = REAL, noise: float = 0.0) -> None:
        super().__init__(module)
        self.weight, self.bias = module.weight, module.bias
        self.activation = ACTIVATIONS[activation]
        self.sees, self.noise = sees, noise

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        return self._apply(self.seen(x, call))

    def seen(self, x: Tensor, call: Call) -> Tensor:
        """Return what the map reads of its input, of x's shape."""
        random = call.randomness
        if self.noise and call.mode is not Mode.EVALUATE:
            x = random.normal(x, self.noise, "input noise").add_(x)
        return transmitted(self.sees, x, lambda: random.generator(SAMPLE_PURPOSE, 0, x.device))

    def _apply(self, seen: Tensor) -> Tensor:
        weight: Tensor = self.weight.detach()
        bias: Tensor | None = None if self.bias is None else self.bias.detach()
        if seen.dtype != weight.dtype:
            weight, bias = weight.to(seen.dtype), None if bias is None else bias.to(seen.dtype)
        return self.activation.apply(linear(seen, weight, bias))

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> DensePullback:
        seen = self.seen(x, call)
        return DensePullback(self, seen, self._apply(seen) if output is None else output)

    def torch_modules(self) -> list[nn.Module]:
        before = [MODULES[self.sees]()] if self.sees in MODULES else []
        make = self.activation.module
        return [*before, self.module] if make is None else [*before, self.module, make()]


class AutogradPullback(Pullback):
    """A pullback through autograd's graph; each of its two products may be asked for once."""

    def __init__(self, parameters: Sequence[Tensor], x: Tensor, y: Tensor) -> None:
        self._parameters, self._x, self._y = parameters, x, y
        self.output = y.detach().contiguous()

    def _pull(self, wanted: list[Tensor], cotangent: Tensor) -> list[Tensor]:
        if not wanted:
            return []
        cotangent = cotangent.to(self._y.dtype)
        pulled = torch.autograd.grad(
            self._y, wanted, cotangent, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return [gradient.contiguous() for gradient in pulled]

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        return self._pull(list(self._parameters), cotangent)

    def input(self, cotangent: Tensor) -> Tensor:
        return self._pull([self._x], cotangent)[0]


@contextmanager
def _spared_buffers(module: nn.Module) -> Iterator[None]:
    """Let a module work on copies of its buffers; a graph may keep the copies, so none is written back."""
    kept = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None
    ]
    for owner, name, buffer in kept:
        owner._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for owner, name, buffer in kept:
            owner._buffers[name] = buffer


class ModuleMap(Map):
    """Any ``torch.nn.Module``, linearized by autograd, its random numbers forked from the run's own."""

    @contextmanager
    def _setting(self, x: Tensor, call: Call) -> Iterator[None]:
        """Set mode, seed and arithmetic for one call, and keep it from statistics that it must not move."""
        self.module.train(call.mode is not Mode.EVALUATE)
        devices = [x.device] if x.is_cuda else []
        low_precision = x.dtype in (torch.bfloat16, torch.float16)
        with (
            _spared_buffers(self.module) if call.mode is Mode.LOCAL else nullcontext(),
            torch.random.fork_rng(devices),
            torch.autocast(x.device.type, dtype=x.dtype if low_precision else None, enabled=low_precision),
        ):
            torch.manual_seed(call.randomness.key(call.purpose, call.iteration))
            yield

    def __call__(self, x: Tensor, call: Call) -> Tensor:
        version = x._version
        with torch.no_grad(), self._setting(x, call):
            y: Tensor = self.module(x)
        if x._version != version:
            raise RuntimeError("the module changes its input in place, which other layers still need")
        return y.to(x.dtype).contiguous()

    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> AutogradPullback:
        del output
        leaf = x.detach().requires_grad_(x.is_floating_point())
        with torch.enable_grad(), self._setting(x, call):
            y: Tensor = self.module(leaf).to(x.dtype)
        return AutogradPullback(self.parameters(), leaf, y)

    def torch_modules(self) -> list[nn.Module]:
        return [self.module]
