"""What every layer is: a forward map f_l, where the rule calls for one an inverse g_l, and their learners."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dtp_dist.algorithm.activations import ACTIVATIONS
from dtp_dist.algorithm.layers.initial import INITS
from dtp_dist.algorithm.learners import Learner
from dtp_dist.algorithm.maps import Map
from dtp_dist.algorithm.numbers import Number, TimedNumber, check_number
from dtp_dist.algorithm.options import Options, RangeError, option
from dtp_dist.algorithm.transmission import REAL, SIGN

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class InverseOptions(Options):
    """How a layer's inverse learns."""

    activation: str = option("tanh", doc="activation of the inverse (dense, conv)")
    activation_of: str = option(
        "output",
        doc="what the inverse's activation is applied to: its output, or its input, so that its Jacobian can "
        "be the transpose of the forward map's",
        one_of=("output", "input"),
    )
    sees: str = option(REAL, doc="what the inverse sees of its input (dense layers)", one_of=(REAL, SIGN))
    init: str | None = option(
        None, doc="initial weights of the inverse (dense, conv), as the layer's init; null for the layer's"
    )
    scale: float | None = option(
        None,
        doc="with inverse.init: uniform, weights are U(-scale, scale); null for torch's own; if it is small, "
        "ldrl's targets are weak at first instead of wrong",
        above=0,
    )
    bias: bool | None = option(
        None, doc="whether the inverse adds a bias (dense, conv); null for the layer's"
    )
    iterations: int = option(1, doc="K, inverse updates per minibatch", at_least=0)
    sigma: Number = option(0.36, doc="deviation of the noise in the inverse loss: a number or a schedule")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("sigma", self.sigma)
        if self.init != "uniform" and self.scale is not None:
            raise RangeError("scale", "is the bound of init: uniform; write inverse.init: uniform as well")

    @property
    def activations(self) -> tuple[str, str]:
        """The activations of the inverse's output and of its input."""
        if self.activation_of == "output":
            return self.activation, "linear"
        return "linear", self.activation

    def check_names(self) -> None:
        """Check the activation and the initial weights, which user modules choose for themselves.

        Raises:
            RangeError: one is not among ours.
        """
        for key, value, names in (
            ("activation", self.activation, tuple(ACTIVATIONS)),
            ("init", self.init, (None, *INITS)),
        ):
            if value not in names:
                text = f"{value!r} is not allowed; it must be one of {', '.join(filter(None, names))}"
                raise RangeError(f"inverse.{key}", text)


@dataclass(frozen=True, kw_only=True)
class LayerOptimizers(Options):
    """A layer's own optimizers; null means the run's."""

    forward: Any = option(None, doc="optimizer of the forward map")
    inverse: Any = option(None, doc="optimizer of the inverse")

    def over(self, run: tuple[Any, Any]) -> tuple[Any, Any]:
        """Return the layer's (forward, inverse), the run's in place of what it does not have."""
        return self.forward or run[0], self.inverse or run[1]


@dataclass(frozen=True, kw_only=True)
class LayerOptions(Options):
    """What every kind of layer has; a kind adds its own fields and the methods below."""

    kind: str = option(doc="which kind of layer")
    inverse: InverseOptions = option(InverseOptions, doc="how its inverse learns")
    optimizer: LayerOptimizers = option(LayerOptimizers, doc="its own optimizers, null for the run's")

    @abstractmethod
    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one example's output, without the batch.

        Raises:
            RangeError: an input of this shape does not fit; says what to write instead.
        """

    @property
    def transmission(self) -> str:
        """What the forward map needs of its input: ``real`` numbers, or one bit a unit (transmission.py)."""
        return REAL

    @property
    def needs_several_examples(self) -> bool:
        """Whether training takes statistics over the minibatch, which one example does not have."""
        return False

    def has_inverse(self, input_shape: Shape) -> bool:
        """Return whether ``maps`` can make an inverse."""
        del input_shape
        return True

    @property
    def affine_inverse(self) -> bool:
        """Whether the inverse is affine in features of its input (``Map.affine``)."""
        return False

    @abstractmethod
    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        """Return f_l and, if ``inverse``, g_l (None where the layer has none), with fresh weights on the CPU.

        ``generator`` gives the initial weights; f_l's do not depend on whether an inverse is made.
        """

    def parameters(self, input_shape: Shape) -> int:
        """Return the number of parameters of f_l, and of g_l alike (an estimate will do)."""
        return _numel(input_shape) * _numel(self.output_shape(input_shape))

    def work(self, input_shape: Shape) -> tuple[float, float]:
        """Return the floating-point operations per example of one f_l and of one g_l."""
        size = float(_numel(input_shape) * _numel(self.output_shape(input_shape)))
        return 2.0 * size, 2.0 * size


def _numel(shape: Shape) -> int:
    return int(torch.Size(shape).numel())


@dataclass
class Layer:
    """Layer ``index`` (1-based) of ``count``: its maps, their learners and how its inverse learns.

    ``delay`` is the steady delay of its stage: updates between a minibatch's F and its U.
    """

    index: int
    count: int
    forward: Learner
    inverse: Learner | None
    iterations: int
    sigma: TimedNumber
    delay: int = 0

    @property
    def is_output(self) -> bool:
        """Whether this is layer L, whose output is the logits."""
        return self.index == self.count

    @property
    def f(self) -> Map:
        """The forward map."""
        return self.forward.map

    @property
    def g(self) -> Map:
        """The inverse; only a rule that asked for it may call it."""
        assert self.inverse is not None, f"layer {self.index} has no inverse"
        return self.inverse.map

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules by the names under which a checkpoint keeps them."""
        found = {"forward": self.f.module}
        if self.inverse is not None:
            found["inverse"] = self.inverse.map.module
        return found
