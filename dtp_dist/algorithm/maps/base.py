"""Differentiable maps: what both the forward map f_l and the inverse g_l of a layer are.

A map gives its output and a *pullback*: the vector-Jacobian products with its parameters and its input.
Every update of every rule is a pullback of some cotangent, so a rule needs no autograd of its own.

Shapes: x is ``[B, *input_shape]``, y and every cotangent ``[B, *output_shape]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.algorithm.transmission import REAL


def repeat_examples(x: Tensor, times: int) -> Tensor:
    """Return ``[times * B, ...]``, the examples of x that many times one after the other."""
    return x.repeat(times, *[1] * (x.dim() - 1))


class Mode(Enum):
    """How a module is called: batch statistics change in ``FORWARD`` alone (design, section 2)."""

    FORWARD = "forward"
    LOCAL = "local"
    EVALUATE = "evaluate"


Context = Any
"""What a map keeps of F for later calls: None, a tensor ``[B, ...]``, or ``Kept`` where it is made of maps.

Nothing but the maps of the same layer reads it.
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """The context of a map that is made of maps: the context and the output of each, by its place."""

    contexts: Mapping[str, Context]
    outputs: Mapping[str, Tensor] = field(default_factory=dict)


def joined(contexts: Sequence[Context]) -> Context:
    """Return what an inverse reads of several minibatches' contexts for these one after the other.

    That is all but the outputs.
    """
    first = contexts[0]
    if first is None:
        return None
    if isinstance(first, Kept):
        return Kept({place: joined([each.contexts[place] for each in contexts]) for place in first.contexts})
    return torch.cat(list(contexts))


def _of_examples(context: Context, examples: slice) -> Context:
    """Return what an inverse reads of a context for some of the examples."""
    if isinstance(context, Kept):
        return Kept({place: _of_examples(each, examples) for place, each in context.contexts.items()})
    return None if context is None else context[examples]


@dataclass(frozen=True, slots=True)
class Call:
    """The circumstances of one evaluation: where its random numbers come from, its mode, context and time.

    ``context`` is what the layer's F of this minibatch left for its inverse (``Map.with_context``); ``epoch``
    counts from 0.
    """

    randomness: Randomness
    mode: Mode = Mode.LOCAL
    purpose: str = "forward"
    iteration: int = 0
    context: Context = None
    epoch: int = 0

    def inverse(self, iteration: int = 0) -> Call:
        """Return the call for the layer's inverse."""
        return Call(self.randomness, Mode.LOCAL, "inverse", iteration, self.context, self.epoch)

    def forward(self, iteration: int = 0) -> Call:
        """Return the call for the layer's forward map, with the random numbers of F.

        With an inverse ``iteration`` above 0 they are drawn afresh: those of the minibatch's iteration.
        """
        return Call(self.randomness, iteration=iteration, context=self.context, epoch=self.epoch)

    def evaluation(self) -> Call:
        """Return the call for the layer's forward map as it is evaluated: without the noise of training."""
        return replace(self.forward(), mode=Mode.EVALUATE)

    def in_context(self, *contexts: Context) -> Call:
        """Return the call in another context, or for several minibatches taken as one, each in its own."""
        return replace(self, context=joined(contexts) if len(contexts) > 1 else contexts[0])

    def of_examples(self, examples: slice) -> Call:
        """Return the call for some of the minibatch's examples."""
        return replace(self, context=_of_examples(self.context, examples))

    def within(self, place: str) -> Call:
        """Return the call for the map at ``place`` in the map that is called, with a context of its own."""
        context = None if self.context is None else self.context.contexts.get(place)
        return replace(self, randomness=self.randomness.within(place), context=context)


class Pullback(ABC):
    """A map linearized at one input; ``output`` is its value there."""

    output: Tensor

    @abstractmethod
    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        """Return ``(dy/dtheta)^T cotangent``, one tensor per parameter, in their order and types."""

    @abstractmethod
    def input(self, cotangent: Tensor) -> Tensor:
        """Return ``(dy/dx)^T cotangent``, of the input's shape."""


class UnlearnedPullback(Pullback):
    """One of a map without parameters."""

    def parameters(self, cotangent: Tensor) -> list[Tensor]:
        del cotangent
        return []


class Map(ABC):
    """A map with parameters in ``module``.

    ``transmission`` says what the map reads of its input (``transmission.py``).
    """

    transmission: str = REAL

    fixed = False
    """Whether it is an inverse that follows from f and learns nothing, and is not f's transpose."""

    inverts = True
    """Whether, in the place of an inverse, it leads from a layer's output back to its input."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._parameters = [each for each in module.parameters() if each.requires_grad]

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn, in torch's order."""
        return self._parameters

    @abstractmethod
    def __call__(self, x: Tensor, call: Call) -> Tensor:
        """Return y, contiguous and without a graph."""

    def with_context(self, x: Tensor, call: Call) -> tuple[Tensor, Context]:
        """Return y and what later calls for this minibatch need to know of it."""
        return self(x, call), None

    def with_places(self, x: Tensor, call: Call) -> tuple[Tensor, Context]:
        """Return y and the call's context, but for the places at which this pass found its maxima.

        What else F left stays: means and deviations, what was left out, a derivative. With these constant an
        inverse is linear in what it gets; with this pass's own, its differences would have their
        derivatives in them as well.
        """
        return self(x, call), call.context

    @abstractmethod
    def linearize(self, x: Tensor, call: Call, output: Tensor | None = None) -> Pullback:
        """Return the pullback at ``x`` and today's parameters.

        A stored ``output``, with the call's context, takes the place of today's in maps whose derivative is
        a closed form of it; others compute theirs again.
        """

    def affine(self) -> Affine | None:
        """Return the map's parts if it is affine in features of its input, None if it is not."""
        return None

    def products(self) -> list[Tensor]:
        """Return the weights of its matrix products, as ``LayerOptions.products`` has them."""
        return []

    def columns(self) -> Columns | None:
        """Return the map's parts if it is an affine inverse whose weight is made of columns, None if not."""
        return None

    def product_part(self) -> ProductPart | None:
        """Return the weight of a forward map that is one product and an activation, None of any other."""
        return None

    @abstractmethod
    def torch_modules(self) -> list[nn.Module]:
        """Return plain torch modules that, in sequence, are this map."""


class Affine(Protocol):
    """A map ``y = W phi(x) + b`` whose differences a rule can take before its product instead of after."""

    weight: Tensor

    def features(self, x: Tensor, call: Call) -> Tensor:
        """Return ``phi(x)``, without parameters."""

    def product(self, features: Tensor) -> Tensor:
        """Return ``W features``."""

    def product_gradients(self, features: Tensor, cotangent: Tensor) -> list[Tensor]:
        """Return the gradients of ``<cotangent, W features>``, one per parameter: the bias's is zero."""


class Columns(Affine, Protocol):
    """An affine map whose weight has a *column* for each unit of its input, by which it moves the output.

    Units that share a kernel share a column: those of a channel. Each meets every number of it, but for the
    edge of an image. So with ``E`` the sum of phi'^2 over a column's units the Jacobian's squared length is
    ``sum E W^2``.
    """

    def slopes(self, x: Tensor, call: Call) -> Tensor:
        """Return ``phi'(x)``, of x's shape."""

    def of_columns(self, units: Tensor) -> Tensor:
        """Return the sum over each column's units, averaged over the minibatch, to broadcast with W.

        ``units`` is ``[B, *input_shape]``.
        """


class ProductPart(NamedTuple):
    """What a forward map ``a(S (W x + b))`` is made of, S a pooling or nothing.

    ``weight`` is W in the layout of its inverse's, not copied; ``slopes`` gives ``a'`` at an output.
    """

    weight: Tensor
    slopes: Callable[[Tensor], Tensor]


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
def spared_buffers(module: nn.Module) -> Iterator[None]:
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


_NOT_ALONE = "write data.drop_last=true, or another data.batch_size"
_LONE_EXAMPLE = {
    Mode.FORWARD: _NOT_ALONE,
    Mode.LOCAL: _NOT_ALONE,
    Mode.EVALUATE: "write another data.eval_batch_size",
}


class ModuleMap(Map):
    """Any ``torch.nn.Module``, linearized by autograd, its random numbers forked from the run's own."""

    @contextmanager
    def _setting(self, x: Tensor, call: Call) -> Iterator[None]:
        """Set mode, seed and arithmetic for one call, and keep it from statistics that it must not move."""
        self.module.train(call.mode is not Mode.EVALUATE)
        devices = [x.device] if x.is_cuda else []
        low_precision = x.dtype in (torch.bfloat16, torch.float16)
        with (
            spared_buffers(self.module) if call.mode is Mode.LOCAL else nullcontext(),
            torch.random.fork_rng(devices),
            torch.autocast(x.device.type, dtype=x.dtype if low_precision else None, enabled=low_precision),
        ):
            torch.manual_seed(call.randomness.key(call.purpose, call.iteration))
            try:
                yield
            except ValueError as error:
                if len(x) != 1:
                    raise
                raise ValueError(f"{error} (it got one example; {_LONE_EXAMPLE[call.mode]})") from error

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
