"""Any optimizer of torch's kind by its import path: ``{name: "torch.optim:NAdam", lr: 0.002, eps: 1e-7}``.

The keys of its options are the arguments of its constructor. What a stage asks of it, that it takes its rate
from its parameter group and that a checkpoint holds all it remembers, is tried out on a few numbers.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass, replace
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.algorithm.optimizers.eager import eager
from dtp_dist.algorithm.optimizers.kept import kept_tensors, load_kept
from dtp_dist.algorithm.optimizers.schedules import scheduled
from dtp_dist.algorithm.options import RangeError, option
from dtp_dist.import_path import imported

Shapes = tuple[tuple[int, ...], ...]
SHAPES: Shapes = ((3, 2), (2,), (2, 1, 2, 2))
MATRICES: Shapes = ((3, 2), (2, 3))
"""Of the parameters that an optimizer is tried on: of matrices if it does not take the others."""
SAVED, STEPS = 7, 12
RATES = (0.25, 0.5)
MEMORIES = ("betas", "beta1")
"""Arguments that hold the decay of the average gradient, the first of ``betas``."""


@dataclass(frozen=True, kw_only=True)
class ImportedOptions(OptimizerOptions):
    """An optimizer of torch's kind, ``name: package.module:Class``; its other keys are the constructor's."""

    kind: ClassVar[Any]
    """The class of torch's kind."""

    name: str = option(
        doc="import path of a class of torch.optim.Optimizer; the other keys are its constructor's arguments"
    )

    def __post_init__(self) -> None:
        for name, value in self.arguments.items():
            if isinstance(value, tuple):  # as a file has it
                object.__setattr__(self, name, list(value))
        _trial(self.name, self.kind, json.dumps(self.arguments))

    @property
    def arguments(self) -> dict[str, Any]:
        """What the constructor is called with, but for parameters and rate."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _OURS}

    @property
    def takes_any_shape(self) -> bool:
        """Whether it takes parameters of all shapes that it was tried on."""
        return _trial(self.name, self.kind, json.dumps(self.arguments)) == SHAPES

    def try_shape(self, shape: tuple[int, ...]) -> None:
        """Step a parameter of a shape.

        Raises:
            RangeError: the optimizer does not take it; says why.
        """
        _tried(self.name, self.kind, self.arguments, (shape,))

    @property
    def has_momentum(self) -> bool:
        """Whether the decay of its average gradient, or its ``momentum``, is above 0."""
        momentum = self.arguments.get("momentum")
        return any(decay > 0 for decay in (*self._memory().values(), _number(momentum) or 0.0))

    def with_memory(self, factor: float) -> ImportedOptions:
        """Return these options with an average over ``factor`` times as many gradients, if it has one."""
        longer: dict[str, Any] = {}
        for name, decay in self._memory().items():
            value = 1.0 - (1.0 - decay) / factor
            longer[name] = [value, *self.arguments[name][1:]] if name == "betas" else value
        return self if factor == 1.0 or not longer else replace(self, **longer)

    def _memory(self) -> dict[str, float]:
        """Return the decay of the average gradient by its argument's name, nothing where none is known."""
        found = {name: self.arguments.get(name) for name in MEMORIES}
        firsts = {name: each[0] if isinstance(each, list) and each else each for name, each in found.items()}
        return {name: value for name, each in firsts.items() if (value := _number(each)) is not None}

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return the optimizer."""
        return _made(self.kind, self.arguments, parameters, scheduled(self.lr)(0, 0))


_OURS = {item.name for item in fields(OptimizerOptions)}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def optimizer_class(path: str) -> type[ImportedOptions]:
    """Return the options class of the optimizer that ``package.module:Class`` names.

    Raises:
        RangeError: it can't be imported, or is none that a stage could step.
    """
    found: Any = imported(path, "name")
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        raise RangeError("name", f"{path!r} is no class of torch.optim.Optimizer")
    options: type[ImportedOptions] = _options_class(path, found)  # type: ignore[arg-type]  # Hashable
    return options


@cache
def _options_class(path: str, kind: Any) -> type[ImportedOptions]:
    closure = list(inspect.signature(kind.step).parameters.values())[1:2]
    if closure and closure[0].default is inspect.Parameter.empty:
        text = "needs a closure that computes the loss again, which a stage does not have; name another one"
        raise RangeError("name", f"{path!r} {text}")
    own = [(name, Any, _field(path, each)) for name, each in _parameters(kind).items() if name not in _OURS]
    found: type[ImportedOptions] = make_dataclass(
        f"{kind.__name__}Options",
        [("name", str, option(path, doc=path)), *own],
        bases=(ImportedOptions,),
        namespace={"kind": kind},
        frozen=True,
        kw_only=True,
    )
    return found


def _parameters(kind: Any) -> dict[str, inspect.Parameter]:
    """Return the arguments of a constructor that have names, but for the first, which is the weights."""
    _, *rest = inspect.signature(kind).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {each.name: each for each in rest if each.kind in named}


def _field(path: str, argument: inspect.Parameter) -> Any:
    """Return the field of a constructor's argument."""
    doc, default = f"argument of {path}", argument.default
    if default is inspect.Parameter.empty:
        return option(doc=doc)
    return option((lambda: list(default)) if isinstance(default, tuple | list) else default, doc=doc)


def _made(kind: Any, arguments: Mapping[str, Any], parameters: list[nn.Parameter], rate: float) -> Optimizer:
    given = {name: tuple(each) if isinstance(each, list) else each for name, each in arguments.items()}
    if "lr" in _parameters(kind):
        given["lr"] = rate
    optimizer = eager(kind)(parameters, **given)
    if len(optimizer.param_groups) != 1 or "lr" not in optimizer.param_groups[0]:
        raise ValueError("it must have one parameter group, which holds its learning rate as lr")
    return optimizer


class _Trial:
    """A few parameters and their optimizer, stepped with made-up gradients."""

    def __init__(
        self, kind: Any, arguments: Mapping[str, Any], shapes: Shapes, rate: float = RATES[0]
    ) -> None:
        self.parameters = [nn.Parameter(_waves(shape, number)) for number, shape in enumerate(shapes)]
        self.optimizer = _made(kind, arguments, self.parameters, rate)
        self.steps, self._rate = 0, rate

    def run(self, steps: int) -> list[Tensor]:
        """Take some steps and return the parameters after them."""
        for _ in range(steps):
            self.steps += 1
            self.optimizer.param_groups[0]["lr"] = self._rate
            for number, parameter in enumerate(self.parameters):
                parameter.grad = _waves(parameter.shape, 0.7 * self.steps + number)
            self.optimizer.step()
        return [parameter.detach().clone() for parameter in self.parameters]

    def kept(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds of the optimizer."""
        optimizers = [self.optimizer] * len(self.parameters)
        return {name: each.clone() for name, each in kept_tensors(optimizers, self.parameters).items()}

    def load(self, parameters: Sequence[Tensor], kept: Mapping[str, Tensor], steps: int) -> None:
        """Be where another one was after so many steps."""
        with torch.no_grad():
            for mine, given in zip(self.parameters, parameters, strict=True):
                mine.copy_(given)
        load_kept([self.optimizer] * len(self.parameters), self.parameters, kept)
        self.steps = steps


def _waves(shape: Sequence[int], start: float) -> Tensor:
    """Return numbers in [-1, 1]."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count) * 1.3 + start).view(torch.Size(shape))


@cache
def _trial(path: str, kind: Any, arguments: str) -> Shapes:
    """Try an optimizer with arguments (JSON), and return the shapes that it takes: all, or matrices.

    Raises:
        RangeError: it can't be made or stepped, or does what a stage can do nothing with.
    """
    given = json.loads(arguments)
    with torch.random.fork_rng(devices=[]):
        try:
            shapes, found = SHAPES, _tried(path, kind, given, SHAPES)
        except RangeError:
            shapes = MATRICES
            found = _tried(path, kind, given, shapes)
        problem = _problem(kind, given, shapes, found)
    if problem:
        raise RangeError("name", f"{path!r} {problem}; name another one")
    return shapes


def _tried(path: str, kind: Any, arguments: Mapping[str, Any], shapes: Shapes) -> list[Tensor]:
    """Return parameters of some shapes after ``STEPS`` steps.

    Raises:
        RangeError: the optimizer can't be made, or stepped.
    """
    try:
        return _Trial(kind, arguments, shapes).run(STEPS)
    except Exception as error:
        text = " ".join(f"{path} raised {type(error).__name__}: {error}".split())
        raise RangeError("", text) from error


def _problem(kind: Any, arguments: Mapping[str, Any], shapes: Shapes, found: Sequence[Tensor]) -> str:
    """Return in words what a stage can do nothing with, given what ``STEPS`` steps came to."""
    torch.manual_seed(1)
    if not _same(found, _Trial(kind, arguments, shapes).run(STEPS)):
        return "draws random numbers, which would not be the same when a run is resumed"
    if _same(found, _Trial(kind, arguments, shapes, RATES[1]).run(STEPS)):
        return "does not take its learning rate from its parameter group, in which every step has its own"
    first, second = (_Trial(kind, arguments, shapes) for _ in range(2))
    try:
        second.load(first.run(SAVED), first.kept(), SAVED)
        resumed = second.run(STEPS - SAVED)
    except Exception as error:
        return f"can't be kept in a checkpoint ({' '.join(f'{type(error).__name__}: {error}'.split())})"
    if not _same(found, resumed):
        return "keeps something that no checkpoint holds: neither in its state nor in its parameter group"
    return ""


def _same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))
