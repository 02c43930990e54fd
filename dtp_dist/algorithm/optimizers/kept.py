"""What an optimizer keeps from one step to the next, as named tensors, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

GROUP = "group"
UNKEPT = ("params", "lr")
"""Of a parameter group: the weights are kept elsewhere, and the rate is set before every step."""

NUMBERS: dict[type, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float64}
"""How Python's numbers are kept; their type's name ends the tensor's, so that they come back as they were."""


def kept_tensors(optimizers: Sequence[Optimizer], parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """Return what optimizers keep of parameters, one optimizer for each, by name.

    ``0.exp_avg`` is of the first parameter; ``2.steps:int`` a number; ``group.k:int`` is one that the
    parameters' optimizer has changed in its parameter group, where they have one together.

    Raises:
        TypeError: something is neither a tensor nor a number.
    """
    found: dict[str, Tensor] = {}
    for number, (optimizer, parameter) in enumerate(zip(optimizers, parameters, strict=True)):
        state = optimizer.state.get(parameter, {})
        found.update(_packed(f"{number}.{name}", value) for name, value in state.items() if value is not None)
    for optimizer in _shared(optimizers):
        found.update(_packed(f"{GROUP}.{name}", value) for name, value in _changed(optimizer))
    return found


def load_kept(
    optimizers: Sequence[Optimizer], parameters: Sequence[nn.Parameter], kept: Mapping[str, Tensor]
) -> None:
    """Put back what ``kept_tensors`` returned, in place of all that is there."""
    for number, (optimizer, parameter) in enumerate(zip(optimizers, parameters, strict=True)):
        state = dict(_unpacked(kept, f"{number}."))
        optimizer.state[parameter] = {name: _restored(value, parameter) for name, value in state.items()}
    for optimizer in _shared(optimizers):
        [group] = optimizer.param_groups
        for name in [name for name in group if name not in UNKEPT]:
            del group[name]
        group.update({name: each for name, each in optimizer.defaults.items() if name not in UNKEPT})
        group.update(_unpacked(kept, f"{GROUP}."))


def laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a value with its parameter's strides: fused optimizers walk both as flat memory."""
    if value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _shared(optimizers: Sequence[Optimizer]) -> list[Optimizer]:
    """Return the one optimizer of all parameters, nothing where there are several."""
    return list(optimizers[:1]) if len({id(each) for each in optimizers}) == 1 else []


def _changed(optimizer: Optimizer) -> Iterator[tuple[str, Any]]:
    """Yield what an optimizer's steps have changed in its parameter group."""
    [group] = optimizer.param_groups
    for name, value in group.items():
        default = optimizer.defaults.get(name)
        same = value is default or (not isinstance(value, Tensor) and value == default)
        if name not in UNKEPT and not same:
            yield name, value


def _packed(name: str, value: Any) -> tuple[str, Tensor]:
    if isinstance(value, Tensor):
        return name, value
    kind = type(value)
    if kind not in NUMBERS:
        raise TypeError(f"{name} is neither a tensor nor a number but a {kind.__name__}")
    return f"{name}:{kind.__name__}", torch.tensor(value, dtype=NUMBERS[kind])


def _unpacked(kept: Mapping[str, Tensor], start: str) -> Iterator[tuple[str, Any]]:
    names = {kind.__name__: kind for kind in NUMBERS}
    for key, value in kept.items():
        if key.startswith(start):
            name, _, kind = key.removeprefix(start).partition(":")
            yield name, names[kind](value.item()) if kind in names else value.clone()


def _restored(value: Any, parameter: nn.Parameter) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.to(parameter.device)
    return laid_out_like(parameter, value) if value.shape == parameter.shape else value
