"""Layers made by users: any pair of ``torch.nn.Module`` (forward, inverse), by path or instance."""

from __future__ import annotations

import inspect
import json
import keyword
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn

from dtp_dist.algorithm.layers.base import DERIVATIVE, LayerOptions, Shape
from dtp_dist.algorithm.layers.user.automatic import automatic_inverse
from dtp_dist.algorithm.layers.user.trial import Pair, check_pair, needs_several, settle
from dtp_dist.algorithm.maps.base import Map, ModuleMap
from dtp_dist.algorithm.options import RangeError, option
from dtp_dist.import_path import imported


class Inspected(NamedTuple):
    """What is known of a pair of modules: the output's shape of one example, and more.

    Attributes:
        in_pair: whether the function returned (forward, inverse), and not one module alone.
        needs_several: whether the forward module, and the inverse, refuse one example in training.
    """

    output_shape: Shape
    has_inverse: bool
    in_pair: bool
    needs_several: tuple[bool, bool]


def import_function(path: str) -> Callable[..., Any]:
    """Return the function that ``package.module:function`` names.

    Raises:
        RangeError: it can't be imported; says why.
    """
    found = imported(path, "kind")
    if not callable(found):
        raise RangeError("kind", f"{path!r} is not a function")
    return found  # type: ignore[no-any-return]


def _call(path: str, arguments: dict[str, Any], input_shape: Shape, seed: int) -> tuple[Pair, bool]:
    """Return the modules that a user's function makes, and whether it returned them as a pair."""
    function = import_function(path)
    given = _given(function, arguments, input_shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            made = function(**given)
        except Exception as error:
            text = f"{path}({', '.join(given)}) raised {type(error).__name__}: {error}"
            raise RangeError("args", text) from error
        pair = made if isinstance(made, tuple) else (made, None)
        if len(pair) != 2 or not isinstance(pair[0], nn.Module) or not isinstance(pair[1], nn.Module | None):
            raise RangeError(
                "kind", f"{path!r} must return (forward, inverse): two torch modules, or one and None"
            )
        settle(pair, input_shape)
    return pair, isinstance(made, tuple)


def _given(function: Callable[..., Any], arguments: dict[str, Any], input_shape: Shape) -> dict[str, Any]:
    """Return the keyword arguments of a user's function, ``input_shape`` among them if it takes that."""
    takes = inspect.signature(function).parameters
    return {"input_shape": list(input_shape), **arguments} if "input_shape" in takes else arguments


@dataclass(frozen=True, kw_only=True)
class PairOptions(LayerOptions):
    """What layers of two torch modules have in common, whoever makes these."""

    def __post_init__(self) -> None:
        if self.inverse.auto:
            self.inverse.check_names()
            if self.inverse.activation == DERIVATIVE:
                text = "derivative is not allowed of a module of yours, whose activation is not known"
                raise RangeError("inverse.activation", f"{text}; write another inverse.activation")
            if self.inverse.norm != "none":
                text = (
                    "is of dense, conv and local layers, not of an inverse that is made for a module of yours"
                )
                raise RangeError("inverse.norm", f"{text}; write none, or return one that normalizes")

    @abstractmethod
    def inspected(self, input_shape: Shape) -> Inspected:
        """Return what is known of the two.

        Raises:
            RangeError: they do not fit one another or a checkpoint.
        """

    def output_shape(self, input_shape: Shape) -> Shape:
        return self.inspected(input_shape).output_shape

    def has_inverse(self, input_shape: Shape) -> bool:
        return self.inverse.auto or self.inspected(input_shape).has_inverse

    def needs_several_examples(self, input_shape: Shape, *, inverse: bool) -> bool:
        forward, backward = self.inspected(input_shape).needs_several
        return forward or (inverse and backward)

    def _maps(
        self, pair: Pair, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        """Return the maps of two modules; a missing inverse is made where that is wanted."""
        forward, backward = pair
        if not inverse or (backward is None and not self.inverse.auto):
            return ModuleMap(forward), None
        if backward is not None:
            return ModuleMap(forward), ModuleMap(backward)
        shape = self.output_shape(input_shape)
        made = automatic_inverse(self.inverse, shape, input_shape, generator.initial_seed())
        return ModuleMap(forward), made


@lru_cache(maxsize=256)
def _inspect(path: str, arguments: str, input_shape: Shape) -> Inspected:
    """Return what is known of an imported pair; cached, as it is asked often."""
    pair, in_pair = _call(path, json.loads(arguments), input_shape, 0)
    return inspected(pair, input_shape, in_pair=in_pair)


def inspected(pair: Pair, input_shape: Shape, *, in_pair: bool = True) -> Inspected:
    """Return what is known of a pair, after checking that its modules fit one another and a checkpoint.

    Raises:
        RangeError: the shapes of the two do not fit, or a checkpoint could not hold their state.
    """
    output_shape = check_pair(pair, input_shape)
    forward, inverse = pair
    several = (
        needs_several(forward, input_shape),
        inverse is not None and needs_several(inverse, output_shape),
    )
    return Inspected(output_shape, inverse is not None, in_pair, several)


@dataclass(frozen=True, kw_only=True)
class ModuleOptions(PairOptions):
    """A pair of modules made by ``kind: package.module:function``, called with ``args``.

    The function returns ``(forward, inverse)``; a parameter named ``input_shape`` is filled in.
    """

    args: dict[str, Any] = option(dict, doc="keyword arguments of the function")

    def inspected(self, input_shape: Shape) -> Inspected:
        return _inspect(self.kind, json.dumps(self.args), input_shape)

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        pair, _ = _call(self.kind, self.args, input_shape, generator.initial_seed())
        return self._maps(pair, input_shape, generator, inverse=inverse)

    def sources(self, input_shape: Shape, forward: Map) -> Mapping[nn.Module, tuple[str, str]]:
        return {forward.module: self.source(input_shape)}

    def source(self, input_shape: Shape) -> tuple[str, str]:
        """Return the Python module to import and the expression that makes the forward module from it."""
        path, _, name = self.kind.partition(":")
        given = _given(import_function(self.kind), self.args, input_shape)
        call = f"{name}({_written(given)}){'[0]' if self.inspected(input_shape).in_pair else ''}"
        if path == "nn" or not all(map(_is_name, path.split("."))):
            return "importlib", f"importlib.import_module({path!r}).{call}"
        return path, f"{path}.{call}"


def _written(arguments: dict[str, Any]) -> str:
    """Return keyword arguments as they are written in a call."""
    if all(map(_is_name, arguments)):
        return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"**{arguments!r}"


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)


@dataclass(frozen=True, kw_only=True)
class InstanceOptions(LayerOptions):
    """A pair of modules handed to ``train(config, modules={layer: (forward, inverse)})``; in-process only."""

    kind: str = option("instance", doc="instance")

    def output_shape(self, input_shape: Shape) -> Shape:
        del input_shape
        raise RangeError("kind", "module instances are given to train(config, modules={layer: (f, g)})")


@dataclass(frozen=True, kw_only=True)
class BoundInstance(InstanceOptions, PairOptions):
    """An ``instance`` layer with its modules."""

    pair: Any = option(doc="(forward, inverse)")

    def inspected(self, input_shape: Shape) -> Inspected:
        settle(self.pair, input_shape)
        return inspected(self.pair, input_shape)

    def output_shape(self, input_shape: Shape) -> Shape:
        settle(self.pair, input_shape)
        return check_pair(self.pair, input_shape)

    def has_inverse(self, input_shape: Shape) -> bool:
        del input_shape
        return self.inverse.auto or self.pair[1] is not None

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        return self._maps(self.pair, input_shape, generator, inverse=inverse)
