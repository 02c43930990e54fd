"""What every layer is: a forward map f_l, where the rule calls for one an inverse g_l, and their learners."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dtp_dist.algorithm.activations import ACTIVATIONS
from dtp_dist.algorithm.layers.initial import INITS
from dtp_dist.algorithm.maps import Map
from dtp_dist.algorithm.numbers import Number, TimedNumber, check_number, parse_number
from dtp_dist.algorithm.optimizers import OptimizerOptions
from dtp_dist.algorithm.options import Options, RangeError, option
from dtp_dist.algorithm.transmission import REAL, SIGN

Shape = tuple[int, ...]
BEFORE = "before"  # a parameter before its last step, beside the optimizer's own state and in checkpoints


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


class Learner:
    """A map, how its parameters learn, and the optimizer that it may share with other maps of its stage."""

    def __init__(self, map_: Map, options: OptimizerOptions) -> None:
        self.map, self.options = map_, options
        self.rate = parse_number("lr", options.lr)
        self.optimizer: Optimizer | None = None

    def set_gradients(self, gradients: list[Tensor]) -> None:
        """Give each parameter its gradient, in their order; the optimizer's next step uses them."""
        for parameter, gradient in zip(self.map.parameters(), gradients, strict=True):
            parameter.grad = laid_out_like(parameter, gradient)


def laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a value with its parameter's strides: fused optimizers walk both as flat memory."""
    if value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


class LearnerGroup:
    """One optimizer for all learners with the same options: a step's overhead is paid once a stage.

    An optimizer treats each parameter by itself, so the grouping does not change a bit.

    Args:
        learners: the maps to train.
        memory: factor of the memory of optimizers that average over past gradients.
        keeps_steps: keep each parameter as it was before its last step beside the optimizer's state, for
            ``ahead``, where the optimizer has momentum.
    """

    def __init__(
        self, learners: Sequence[Learner], *, memory: float = 1.0, keeps_steps: bool = False
    ) -> None:
        self._keeps_steps = keeps_steps
        self._groups: list[list[Learner]] = []
        for learner in (each for each in learners if each.map.parameters()):
            for group in self._groups:
                if group[0].options == learner.options:
                    group.append(learner)
                    break
            else:
                self._groups.append([learner])
        for group in self._groups:
            parameters = [parameter for learner in group for parameter in learner.map.parameters()]
            optimizer = group[0].options.with_memory(memory).build(parameters)
            for learner in group:
                learner.optimizer = optimizer

    def step(self, epoch: int, minibatch: int, scale: float = 1.0) -> None:
        """Step every parameter that has a gradient, at its learning rate of now times ``scale``."""
        for group in self._groups:
            optimizer = group[0].optimizer
            assert optimizer is not None
            optimizer.param_groups[0]["lr"] = group[0].rate(epoch, minibatch) * scale
            moving = [each for each in optimizer.param_groups[0]["params"] if each.grad is not None]
            keeps_steps = self._keeps_steps and group[0].options.has_momentum
            before = [each.detach().clone() for each in moving] if keeps_steps else []
            optimizer.step()
            for parameter, old in zip(moving, before, strict=keeps_steps):
                optimizer.state[parameter][BEFORE] = old
            for parameter in moving:
                parameter.grad = None

    @contextmanager
    def ahead(self, steps: float) -> Iterator[None]:
        """Let every parameter be where ``steps`` more steps like its last one would take it.

        Nothing moves before the first step, with ``steps = 0``, or without ``keeps_steps``. In the end the
        parameters are what they were, bit for bit.
        """
        kept: list[tuple[nn.Parameter, Tensor]] = []
        for group in self._groups if steps else []:
            optimizer = group[0].optimizer
            assert optimizer is not None
            for parameter in optimizer.param_groups[0]["params"]:
                before = optimizer.state[parameter].get(BEFORE) if parameter in optimizer.state else None
                if before is not None:
                    kept.append((parameter, parameter.data))
                    parameter.data = torch.lerp(before, parameter.data, 1.0 + steps)
        try:
            yield
        finally:
            for parameter, value in kept:
                parameter.data = value


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
