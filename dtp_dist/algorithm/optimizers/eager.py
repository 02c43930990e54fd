"""torch's optimizers without torch's compiler, whose import takes every process as long as torch's own.

torch keeps some methods of an optimizer out of compiled graphs, and imports the compiler at the first call of
each to say so. Nothing here is compiled, so what lies under those wrappers is called instead: the same bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.optim import Optimizer


class Eager(Optimizer):
    """To be named before an optimizer of torch among the bases of a class."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class EagerSGD(Eager, torch.optim.SGD):
    """torch's SGD."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class EagerRMSprop(Eager, torch.optim.RMSprop):
    """torch's RMSprop."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.RMSprop.step))


class EagerAdam(Eager, torch.optim.Adam):
    """torch's Adam."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


@cache
def eager(kind: Any) -> Callable[..., Optimizer]:
    """Return what makes an optimizer of ``kind`` without torch's compiler, where its methods are torch's."""
    own: dict[str, Any] = {
        name: getattr(Eager, name)
        for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
        if getattr(kind, name) is getattr(Optimizer, name)
    }
    step = inspect.unwrap(kind.step)
    if step.__module__.startswith("torch.optim."):
        own["step"] = torch.no_grad()(step)
    found: Callable[..., Optimizer] = type(kind.__name__, (kind,), own)
    return found
