"""What every layer is: a forward map f_l, where the rule calls for one an inverse g_l, and their learners."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Lt
from torch import nn

from dtp_dist.algorithm.layers.initial import INITS, ZEROS
from dtp_dist.algorithm.layers.products import Product
from dtp_dist.algorithm.maps.activations import ACTIVATIONS
from dtp_dist.algorithm.maps.base import Map
from dtp_dist.algorithm.maps.sloped import sloped
from dtp_dist.algorithm.optimizers.groups import OptimizedMap
from dtp_dist.algorithm.optimizers.kinds import AnyOptimizer, OptimizerOptions
from dtp_dist.algorithm.optimizers.schedules import Number, ScheduledValue
from dtp_dist.algorithm.options import Count, OneOf, Options, Positive, RangeError, Whole, option
from dtp_dist.algorithm.transmission import REAL, SIGN

Shape = tuple[int, ...]
MINIBATCH = "minibatch"
"""Name of the normalisation over the minibatch by its own statistics, in evaluation too."""
Angle = Annotated[float, Ge(0), Lt(90)]
DERIVATIVE = "derivative"
"""Name of what multiplies an inverse's input by the forward activation's derivative, as F found it."""


@dataclass(frozen=True, kw_only=True)
class InverseOptions(Options):
    """How a layer's inverse learns."""

    activation: str = option(
        "tanh",
        doc="activation of the inverse (dense, conv); derivative: none, but its input is multiplied by the "
        "derivative of the forward activation in F (docs/layers.md)",
    )
    activation_of: Annotated[str, OneOf("output", "input")] = option(
        "output",
        doc="what the inverse's activation is applied to: its output, or its input, so that its Jacobian can "
        "be the transpose of the forward map's",
    )
    norm: Annotated[str, OneOf("none", MINIBATCH)] = option(
        "none",
        doc="normalisation of the inverse's output over the minibatch, after its activation (dense, conv, "
        "local), as the norm of the same name is of a layer",
    )
    input_transmission: Annotated[str, OneOf(REAL, SIGN)] = option(
        REAL, doc="what the inverse sees of its input (dense layers)"
    )
    init: str | None = option(
        None, doc="initial weights of the inverse (dense, conv), as the layer's init; null for the layer's"
    )
    scale: Positive | None = option(
        None,
        doc="with inverse.init: uniform, weights are U(-scale, scale); null for torch's own; if it is small, "
        "ldrl's targets are weak at first instead of wrong",
    )
    bias: bool | None = option(
        None, doc="whether the inverse adds a bias (dense, conv); null for the layer's"
    )
    auto: bool = option(
        False,
        doc="whether a module that brings no inverse (user modules) gets a small one, linear but for the "
        "activation; inverse: auto means {auto: true}",
    )
    iterations: Whole | Literal["auto"] = option(
        1,
        doc="K, inverse updates per minibatch; auto (rules that measure their inverses: ldrl): until "
        "inverse.angle is reached",
    )
    most_iterations: Count = option(20, doc="with iterations: auto, the most updates per minibatch")
    angle: Angle = option(
        10.0,
        doc="with iterations: auto, degrees between the Jacobian of the inverse and the transpose of the "
        "forward map's, as an update's own noise shows them, that are near enough",
    )
    samples: Positive = option(
        1.0,
        doc="noise samples per example in an inverse update: below 1 that share of the minibatch's examples, "
        "others in each iteration; above 1 a whole number of them in one product",
    )
    sigma: Number = option(0.36, doc="deviation of the noise in the inverse loss: a number or a schedule")

    def __post_init__(self) -> None:
        if self.init != "uniform" and self.scale is not None:
            raise RangeError("scale", "is the bound of init: uniform; write inverse.init: uniform as well")
        if self.samples > 1.0 and not self.samples.is_integer():
            raise RangeError("samples", f"{self.samples:g} is not allowed; above 1 it must be a whole number")

    @property
    def most(self) -> int:
        """The most inverse updates per minibatch."""
        return self.most_iterations if self.iterations == "auto" else self.iterations

    @property
    def planned(self) -> float:
        """Inverse updates per minibatch as updates of a sample for each example; auto counts as one."""
        return self.samples * (1 if self.iterations == "auto" else self.iterations)

    @property
    def enough(self) -> float | None:
        """The cosine at which no further update is needed, None where their number is fixed."""
        return math.cos(math.radians(self.angle)) if self.iterations == "auto" else None

    @property
    def activations(self) -> tuple[str, str]:
        """The activations of the inverse's output and of its input."""
        if self.activation == DERIVATIVE:
            return "linear", "linear"
        if self.activation_of == "output":
            return self.activation, "linear"
        return "linear", self.activation

    @property
    def affine(self) -> bool:
        """Whether the inverse is affine in features of its input (``Map.affine``)."""
        return self.activations[0] == "linear" and self.norm == "none"

    def check_names(self) -> None:
        """Check the activation and the initial weights, which user modules choose for themselves.

        Raises:
            RangeError: one is not among ours.
        """
        for key, value, names in (
            ("activation", self.activation, (*ACTIVATIONS, DERIVATIVE)),
            ("init", self.init, (None, *(each for each in INITS if each != ZEROS))),
        ):
            if value not in names:
                text = f"{value!r} is not allowed; it must be one of {', '.join(filter(None, names))}"
                raise RangeError(f"inverse.{key}", text)

    def check_derivative(self, activation: str) -> None:
        """Check that the derivative of a forward ``activation`` is known in F, if the inverse takes it.

        Raises:
            RangeError: it does not follow from the activation's output.
        """
        if self.activation == DERIVATIVE and not ACTIVATIONS[activation].of_output:
            text = f"derivative is not allowed next to activation {activation}, whose output does not show it"
            raise RangeError("inverse.activation", f"{text}; write another inverse.activation")

    def paired(self, forward: Map, inverse: Map, activation: str) -> tuple[Map, Map]:
        """Return both, the inverse with the derivative of f's ``activation`` if it takes that."""
        return sloped(forward, inverse, activation) if self.activation == DERIVATIVE else (forward, inverse)


@dataclass(frozen=True, kw_only=True)
class LayerOptimizers(Options):
    """A layer's own optimizers; null means the run's."""

    forward: AnyOptimizer | None = option(None, doc="optimizer of the forward map")
    inverse: AnyOptimizer | None = option(None, doc="optimizer of the inverse")

    def over(
        self, run: tuple[OptimizerOptions, OptimizerOptions]
    ) -> tuple[OptimizerOptions, OptimizerOptions]:
        """Return the layer's (forward, inverse), the run's in place of what it does not have."""
        return self.forward or run[0], self.inverse or run[1]


@dataclass(frozen=True, kw_only=True)
class LayerOptions(Options):
    """What every kind of layer has; a kind adds its own fields and the methods below."""

    kind: str = option(doc="which kind of layer")
    inverse: InverseOptions = option(InverseOptions, doc="how its inverse learns")
    optimizer: LayerOptimizers = option(LayerOptimizers, doc="its own optimizers, null for the run's")
    weights: str | None = option(
        None,
        doc="file that its weights start from (docs/weights.md): this layer's file of a checkpoint, one that "
        "export wrote, or its module's state dict; null for model.weights",
    )

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

    def needs_several_examples(self, input_shape: Shape, *, inverse: bool) -> bool:
        """Return whether f_l, or g_l with ``inverse``, takes statistics that one example does not have."""
        del input_shape, inverse
        return False

    @property
    def mixes_examples(self) -> bool:
        """Whether what f_l gives for an example depends on the others of its minibatch in evaluation too."""
        return any(each.mixes_examples for _, each in self.inside)

    @property
    def normalizes_minibatch(self) -> bool:
        """Whether each unit of f_l's output has mean 0 and deviation 1 over the minibatch, as it was made."""
        return False

    def has_inverse(self, input_shape: Shape) -> bool:
        """Return whether ``maps`` can make an inverse."""
        del input_shape
        return True

    @property
    def inside(self) -> list[tuple[str, LayerOptions]]:
        """The layers that are written inside this one, by their keys; none for most kinds."""
        return []

    def parts(self, input_shape: Shape) -> list[Part]:
        """Return the layers that this one is made of, written or not, none for most kinds."""
        del input_shape
        return []

    def products(self, input_shape: Shape) -> list[Product] | None:
        """Return the matrix products of f_l, in the order of ``Map.products``; None where it is not known.

        How their weights are drawn is what ``inverse`` says of the inverse's.
        """
        del input_shape
        return None

    def kept(self, input_shape: Shape) -> int:
        """Return how many numbers per example are kept from F to U besides input and output."""
        del input_shape
        return 0

    def inverse_reads_forward(self, input_shape: Shape) -> bool:
        """Return whether the inverse needs what F found for the same minibatch (``Map.with_context``)."""
        del input_shape
        return self.inverse.activation == DERIVATIVE

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

    def sources(self, input_shape: Shape, forward: Map) -> Mapping[nn.Module, tuple[str, str]]:
        """Return, for the torch modules of ``forward`` that code of others makes, how they are made again.

        That is the Python module to import and the expression that makes them from it. All others are torch's
        own and those of ``algorithm/plain.py``.
        """
        del input_shape, forward
        return {}

    def parameters(self, input_shape: Shape) -> int:
        """Return the number of parameters of f_l, and of g_l alike (an estimate will do)."""
        return _numel(input_shape) * _numel(self.output_shape(input_shape))

    def work(self, input_shape: Shape) -> tuple[float, float]:
        """Return the floating-point operations per example of one f_l and of one g_l."""
        size = float(_numel(input_shape) * _numel(self.output_shape(input_shape)))
        return 2.0 * size, 2.0 * size


class Part(NamedTuple):
    """A layer inside a layer: its place there, which is its key, and the shape that it gets."""

    place: str
    options: LayerOptions
    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        """The shape that it gives.

        Raises:
            RangeError: its input does not fit; the key has its place.
        """
        try:
            return self.options.output_shape(self.input_shape)
        except RangeError as error:
            raise RangeError(f"{self.place}.{error.key}", str(error)) from error


def all_layers(layers: Iterable[LayerOptions]) -> Iterator[LayerOptions]:
    """Yield layers, each before those that are written inside it."""
    for each in layers:
        yield each
        yield from all_layers(options for _, options in each.inside)


@dataclass(frozen=True, kw_only=True)
class UnlearnedOptions(LayerOptions):
    """A layer without parameters: it only passes numbers on, which counts as no work."""

    def products(self, input_shape: Shape) -> list[Product]:
        del input_shape
        return []

    def parameters(self, input_shape: Shape) -> int:
        del input_shape
        return 0

    def work(self, input_shape: Shape) -> tuple[float, float]:
        del input_shape
        return 0.0, 0.0


def _numel(shape: Shape) -> int:
    return int(torch.Size(shape).numel())


@dataclass
class Layer:
    """Layer ``index`` (1-based) of ``count``: its maps, their learners and how its inverse learns.

    ``delay`` is the steady delay of its stage: updates between a minibatch's F and its U; ``iterations`` the
    most inverse updates per minibatch, fewer where the cosine between Jacobians comes to ``enough``.
    """

    index: int
    count: int
    forward: OptimizedMap
    inverse: OptimizedMap | None
    iterations: int
    sigma: ScheduledValue
    delay: int = 0
    samples: float = 1.0
    enough: float | None = None

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

    @property
    def inverts(self) -> bool:
        """Whether it has an inverse that leads from h_l back to h_{l-1}."""
        return self.inverse is not None and self.inverse.map.inverts

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules by the names under which a checkpoint keeps them."""
        found = {"forward": self.f.module}
        if self.inverse is not None:
            found["inverse"] = self.inverse.map.module
        return found
