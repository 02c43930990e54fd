"""How maps learn: a map with its optimizer, and one optimizer for all maps of a stage that learn alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dtp_dist.algorithm.maps.base import Map
from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.algorithm.optimizers.kept import laid_out_like
from dtp_dist.algorithm.optimizers.schedules import ScheduledValue, scheduled

BEFORE = "before"  # a parameter before its last step, next to the optimizer's own state and in checkpoints


class OptimizedMap:
    """A map, how its parameters learn, and the optimizer of each, which others of its stage may share."""

    def __init__(self, map_: Map, options: OptimizerOptions) -> None:
        self.map, self.options = map_, options
        self.optimizers: list[Optimizer] = []

    def set_gradients(self, gradients: list[Tensor]) -> None:
        """Give each parameter its gradient, in their order, clipped; the optimizer's next step uses them."""
        clipped = self.options.clipped(gradients)
        for parameter, gradient in zip(self.map.parameters(), clipped, strict=True):
            parameter.grad = laid_out_like(parameter, gradient)


@dataclass
class _Part:
    """Parameters with the same options, and what moves them."""

    options: OptimizerOptions
    owner: OptimizedMap | None
    parameters: list[nn.Parameter] = field(default_factory=list)

    def begin(self, memory: float) -> None:
        """Make the optimizer, once all parameters are here."""
        self.optimizer: Optimizer = self.options.with_memory(memory).build(self.parameters)
        self.rate: ScheduledValue = scheduled(self.options.lr)


class OptimizerGroup:
    """One optimizer for all parameters with the same options: a step's overhead is paid once a stage.

    Ours treat each parameter by itself, so the grouping does not change a bit. Of an imported one that is not
    known: each map has one of its own.

    Args:
        learners: the maps to train.
        memory: factor of the memory of optimizers that average over past gradients.
        keeps_steps: keep each parameter as it was before its last step next to the optimizer's state, for
            ``ahead``, where the optimizer has momentum.
    """

    def __init__(
        self, learners: Sequence[OptimizedMap], *, memory: float = 1.0, keeps_steps: bool = False
    ) -> None:
        self._keeps_steps = keeps_steps
        self._ahead: dict[nn.Parameter, Tensor] = {}
        self._parts: list[_Part] = []
        parts = [[self._part_of(each, learner) for each in learner.map.parameters()] for learner in learners]
        for part in self._parts:
            part.begin(memory)
        for learner, own in zip(learners, parts, strict=True):
            learner.optimizers = [part.optimizer for part in own]

    def _part_of(self, parameter: nn.Parameter, learner: OptimizedMap) -> _Part:
        """Return the part that a parameter of a learner joins, which it may be the first of."""
        options = learner.options.of(parameter)
        owner = learner if options.imported else None
        for part in self._parts:
            if part.options == options and part.owner is owner:
                break
        else:
            part = _Part(options, owner)
            self._parts.append(part)
        part.parameters.append(parameter)
        return part

    def step(self, epoch: int, minibatch: int, scale: float = 1.0) -> None:
        """Step every parameter that has a gradient, at its learning rate of now times ``scale``."""
        for part in self._parts:
            moving = [each for each in part.parameters if each.grad is not None]
            if not moving:
                continue
            optimizer = part.optimizer
            optimizer.param_groups[0]["lr"] = part.rate(epoch, minibatch) * scale
            keeps_steps = self._keeps_steps and part.options.has_momentum
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
        for part in self._parts if steps else []:
            optimizer = part.optimizer
            for parameter in part.parameters:
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
