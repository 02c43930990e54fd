"""Layers made by users: any pair of ``torch.nn.Module`` (forward, inverse), by path or instance."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from dtp_dist.algorithm.layers.base import LayerOptions, Shape
from dtp_dist.algorithm.maps import Map, ModuleMap
from dtp_dist.algorithm.options import RangeError, option

RESERVED = ("buffer", "optimizer")  # what a checkpoint calls the rest of a layer's state
Pair = tuple[nn.Module, nn.Module | None]


def import_function(path: str) -> Callable[..., Any]:
    """Return the function that ``package.module:function`` names.

    Raises:
        RangeError: it can't be imported; says why.
    """
    module_name, _, function_name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:
        raise RangeError("kind", f"{path!r} can't be imported ({type(error).__name__}: {error})") from error
    if not callable(found):
        raise RangeError("kind", f"{path!r} is not a function")
    return found  # type: ignore[no-any-return]


def _call(path: str, arguments: dict[str, Any], input_shape: Shape, seed: int) -> Pair:
    function = import_function(path)
    takes = inspect.signature(function).parameters
    given = {"input_shape": list(input_shape), **arguments} if "input_shape" in takes else arguments
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = function(**given)
    except Exception as error:
        text = f"{path}({', '.join(given)}) raised {type(error).__name__}: {error}"
        raise RangeError("args", text) from error
    pair = made if isinstance(made, tuple) else (made, None)
    if len(pair) != 2 or not isinstance(pair[0], nn.Module) or not isinstance(pair[1], nn.Module | None):
        raise RangeError(
            "kind", f"{path!r} must return (forward, inverse): two torch modules, or one and None"
        )
    return pair


def probe_shape(module: nn.Module, input_shape: Shape, what: str) -> Shape:
    """Return the output shape of one example, found by a pass of zeros that changes no state.

    Raises:
        RangeError: the module does not take inputs of this shape.
    """
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    training = module.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = module.eval()(torch.zeros(2, *input_shape))
        return tuple(output.shape[1:])
    except Exception as error:
        text = f"the {what} does not take an input of shape {list(input_shape)}: {str(error).splitlines()[0]}"
        raise RangeError("kind", text) from error
    finally:
        module.train(training)
        module.load_state_dict(kept)


def check_pair(pair: Pair, input_shape: Shape) -> Shape:
    """Return the forward module's output shape, after checking that the inverse leads back.

    Raises:
        RangeError: the shapes of the two do not fit, or a checkpoint could not tell their parts apart.
    """
    for module in pair:
        for name, _ in module.named_children() if module is not None else ():
            if name in RESERVED:
                raise RangeError("kind", f"a submodule may not be called {name!r}; give it another name")
    output_shape = probe_shape(pair[0], input_shape, "forward module")
    if pair[1] is not None:
        back = probe_shape(pair[1], output_shape, "inverse module")
        if back != input_shape:
            text = f"the inverse gives {list(back)} where the layer's input is {list(input_shape)}"
            raise RangeError("kind", text)
    return output_shape


@lru_cache(maxsize=256)
def _inspect(path: str, arguments: str, input_shape: Shape) -> tuple[Shape, bool]:
    """Return an imported pair's output shape and whether it has an inverse; cached, as it is asked often."""
    pair = _call(path, json.loads(arguments), input_shape, 0)
    return check_pair(pair, input_shape), pair[1] is not None


def _maps(pair: Pair, inverse: bool) -> tuple[Map, Map | None]:
    forward, backward = pair
    return ModuleMap(forward), ModuleMap(backward) if inverse and backward is not None else None


@dataclass(frozen=True, kw_only=True)
class ModuleOptions(LayerOptions):
    """A pair of modules made by ``kind: package.module:function``, called with ``args``.

    The function returns ``(forward, inverse)``; a parameter named ``input_shape`` is filled in.
    """

    args: dict[str, Any] = option(dict, doc="keyword arguments of the function")

    def output_shape(self, input_shape: Shape) -> Shape:
        return _inspect(self.kind, json.dumps(self.args), input_shape)[0]

    def has_inverse(self, input_shape: Shape) -> bool:
        return _inspect(self.kind, json.dumps(self.args), input_shape)[1]

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        return _maps(_call(self.kind, self.args, input_shape, generator.initial_seed()), inverse)


@dataclass(frozen=True, kw_only=True)
class InstanceOptions(LayerOptions):
    """A pair of modules handed to ``train(config, modules={layer: (forward, inverse)})``; in-process only."""

    kind: str = option("instance", doc="instance")

    def output_shape(self, input_shape: Shape) -> Shape:
        del input_shape
        raise RangeError("kind", "module instances are given to train(config, modules={layer: (f, g)})")


@dataclass(frozen=True, kw_only=True)
class BoundInstance(InstanceOptions):
    """An ``instance`` layer with its modules."""

    pair: Any = option(doc="(forward, inverse)")

    def output_shape(self, input_shape: Shape) -> Shape:
        return check_pair(self.pair, input_shape)

    def has_inverse(self, input_shape: Shape) -> bool:
        return self.pair[1] is not None

    def maps(
        self, input_shape: Shape, generator: torch.Generator, *, inverse: bool
    ) -> tuple[Map, Map | None]:
        del generator
        return _maps(self.pair, inverse)
