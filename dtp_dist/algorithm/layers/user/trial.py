"""Passes of zeros through modules that users made: what they take, what they give, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dtp_dist.algorithm.layers.base import Shape
from dtp_dist.algorithm.maps.base import spared_buffers
from dtp_dist.algorithm.options import RangeError

RESERVED = ("buffer", "optimizer")  # what a checkpoint calls the rest of a layer's state
Pair = tuple[nn.Module, nn.Module | None]


def settle(pair: Pair, input_shape: Shape) -> None:
    """Give modules that take their sizes from their first input (``nn.LazyLinear``) one, before it counts.

    Their initial weights come from torch's global generator. Nothing is done to other modules.

    Raises:
        RangeError: a module does not take inputs of this shape.
    """
    if not any(_is_lazy(module) for module in pair if module is not None):
        return
    h, names = torch.zeros(2, *input_shape), ("forward module", "inverse module")
    for module, what in zip(pair, names, strict=True):
        if module is not None:
            with _passing(module, what, tuple(h.shape[1:]), training=False):
                h = module(h)
    for module, what in zip(pair, names, strict=True):
        if module is not None and _is_lazy(module):
            text = f"the {what} has a lazy part that a pass leaves without a size; give it its size"
            raise RangeError("kind", text)


def _is_lazy(module: nn.Module) -> bool:
    return any(is_lazy(each) for each in (*module.parameters(), *module.buffers()))


def probe_shape(module: nn.Module, input_shape: Shape, what: str) -> Shape:
    """Return the output shape of one example, found by a pass of zeros that changes no state.

    Raises:
        RangeError: the module does not take inputs of this shape.
    """
    return tuple(_zeros(module, what, input_shape, 2, training=False).shape[1:])


def needs_several(module: nn.Module, input_shape: Shape) -> bool:
    """Return whether a module takes two examples in training but not one, as batch normalisation does."""
    try:
        _zeros(module, "module", input_shape, 2, training=True)
    except RangeError:
        return False
    try:
        _zeros(module, "module", input_shape, 1, training=True)
    except RangeError:
        return True
    return False


def check_pair(pair: Pair, input_shape: Shape) -> Shape:
    """Return the forward module's output shape, after checking that the inverse leads back.

    Raises:
        RangeError: the shapes of the two do not fit, or a checkpoint could not hold their state.
    """
    for module in pair:
        if module is not None:
            _check_state(module)
    output_shape = probe_shape(pair[0], input_shape, "forward module")
    if pair[1] is not None:
        back = probe_shape(pair[1], output_shape, "inverse module")
        if back != input_shape:
            text = f"the inverse gives {list(back)} where the layer's input is {list(input_shape)}"
            raise RangeError("kind", text)
    return output_shape


def _check_state(module: nn.Module) -> None:
    """Check that a checkpoint can hold a module's state and keep its parts apart."""
    parts = [name for name, _ in module.named_children()]
    parts += [name for name, _ in module.named_parameters(recurse=False)]
    for name in parts:
        if name in RESERVED:
            raise RangeError("kind", f"a part of a module may not be called {name!r}; give it another name")
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            text = f"{name!r} in a module's state is no tensor, and a checkpoint holds tensors alone"
            raise RangeError("kind", f"{text}; keep it in a buffer")


def _zeros(module: nn.Module, what: str, shape: Shape, examples: int, *, training: bool) -> Tensor:
    """Return what a module makes of zeros; it changes no state and no random numbers."""
    with (
        spared_buffers(module),
        torch.random.fork_rng(devices=[]),
        _passing(module, what, shape, training=training),
    ):
        output = module(torch.zeros(examples, *shape))
        if not isinstance(output, Tensor):
            raise TypeError(f"it returns a {type(output).__name__}, not a tensor")
        return output


@contextmanager
def _passing(module: nn.Module, what: str, shape: Shape, *, training: bool) -> Iterator[None]:
    """Let a module be called without a graph; whatever it raises is about its input's shape."""
    modes = [(each, each.training) for each in module.modules()]
    module.train(training)
    try:
        with torch.no_grad():
            yield
    except Exception as error:
        said = str(error).splitlines() or [type(error).__name__]
        text = f"the {what} does not take an input of shape {list(shape)}: {said[0]}"
        raise RangeError("kind", text) from error
    finally:
        for each, mode in modes:
            each.training = mode
