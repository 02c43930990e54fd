"""How maps learn: a map with its optimizer, and one optimizer for all maps of a stage that learn alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dtp_dist.algorithm.maps import Map
from dtp_dist.algorithm.numbers import parse_number
from dtp_dist.algorithm.optimizers import OptimizerOptions

BEFORE = "before"  # a parameter before its last step, beside the optimizer's own state and in checkpoints


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
        self._ahead: dict[nn.Parameter, Tensor] = {}
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
            before = [self._copy(optimizer, each) for each in moving] if keeps_steps else []
            optimizer.step()
            for parameter, old in zip(moving, before, strict=keeps_steps):
                optimizer.state[parameter][BEFORE] = old
            for parameter in moving:
                parameter.grad = None

    def _copy(self, optimizer: Optimizer, parameter: nn.Parameter) -> Tensor:
        """Return a copy of a parameter, in the memory of the one before: fresh memory costs more than it."""
        old = optimizer.state[parameter].get(BEFORE) if parameter in optimizer.state else None
        return parameter.detach().clone() if old is None else old.copy_(parameter.detach())

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
                    if parameter not in self._ahead:
                        self._ahead[parameter] = torch.empty_like(before)
                    parameter.data = torch.lerp(
                        before, parameter.data, 1.0 + steps, out=self._ahead[parameter]
                    )
        try:
            yield
        finally:
            for parameter, value in kept:
                parameter.data = value
