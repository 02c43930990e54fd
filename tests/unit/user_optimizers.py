"""Optimizers as users write them: some that a run can use, and one of each kind that it can't."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Plain(Optimizer):
    """Gradient descent; the others change a step, or what is remembered of it."""

    def __init__(self, params: Any, lr: float = 0.1, **more: Any) -> None:
        super().__init__(params, {"lr": lr, **more})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= group["lr"] * self.factor(group, parameter) * parameter.grad

    def factor(self, group: dict[str, Any], parameter: Tensor) -> Any:
        return 1.0


class Counting(Plain):
    """Numbers of Python's in the state and in the group, which a checkpoint must give back as they were."""

    def __init__(
        self, params: Any, lr: float, decay: float = 0.9, names: tuple[str, ...] = ("a", "b")
    ) -> None:
        super().__init__(params, lr, decay=decay, k=0, names=names)

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["k"] += 1
            group["warm"] = group["k"] > 2
        super().step()

    def factor(self, group: dict[str, Any], parameter: Tensor) -> Any:
        state = self.state[parameter]
        state["steps"] = state.get("steps", 0) + 1
        state["scale"] = state.get("scale", 1.0) * group["decay"] + 0.1
        state["late"] = state["steps"] > 3
        state["nothing"] = None
        assert type(state["steps"]) is type(group["k"]) is int
        assert type(state["late"]) is type(group["warm"]) is bool
        return state["scale"] / 3 ** (group["k"] % 3) * (2 if group["warm"] else 1)


class Drawing(Plain):
    def factor(self, group: dict[str, Any], parameter: Tensor) -> Any:
        return torch.rand(())


class Stubborn(Plain):
    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr)
        self.rate = 0.1

    def factor(self, group: dict[str, Any], parameter: Tensor) -> Any:
        return self.rate / group["lr"]


class Forgetful(Plain):
    """It remembers in itself, where nobody looks."""

    steps = 0

    def factor(self, group: dict[str, Any], parameter: Tensor) -> Any:
        self.steps += 1
        return 1.0 / self.steps


class Listing(Plain):
    def factor(self, group: dict[str, Any], parameter: Tensor) -> Any:
        self.state[parameter].setdefault("steps", []).append(1.0)
        return 1.0


class Several(Plain):
    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__([{"params": [each]} for each in params], lr)


class Rateless(Optimizer):
    def __init__(self, params: Any, rate: float = 0.1) -> None:
        super().__init__(params, {"rate": rate})


class Closing(Plain):
    def step(self, closure: Any) -> None:
        closure()


class Vectors(Plain):
    """It takes no matrices, so it moves nothing of ours."""

    def factor(self, group: dict[str, Any], parameter: Tensor) -> Any:
        if parameter.dim() > 1:
            raise ValueError("matrices are too much")
        return 1.0
