"""What the tensors of a stage take, from shapes and options alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from dtp_dist.algorithm.build import inverse_parameters
from dtp_dist.algorithm.layers import LayerOptions
from dtp_dist.algorithm.layers.base import Shape
from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.config import Config, most_label_bytes, shapes_of
from dtp_dist.schedule import delay, effective_in_flight, window

WEIGHT_BYTES = 4  # weights and optimizers are float32


@dataclass(frozen=True)
class Memory:
    """Bytes of one stage's tensors; a process takes a few hundred megabytes besides.

    Attributes:
        weights: parameters of the forward maps.
        inverses: those of the inverses.
        optimizers: what the optimizers keep, and one gradient of each parameter.
        activations: what is kept of the minibatches between their F and their U, and one set of targets.
    """

    weights: int
    inverses: int
    optimizers: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.inverses + self.optimizers + self.activations


def stage_memory(config: Config, layers: range, stage: int, stages: int) -> Memory:
    """Return what ``layers`` (0-based) take as stage ``stage`` of ``stages``."""
    options, shapes = config.model.options, shapes_of(config)
    rule = config.build_rule()
    depth = effective_in_flight(stages, config.parallel.in_flight)
    late = delay(stage, stages, depth, rule.flow()) > 0
    ahead = late and config.optimizer.at_depth(depth).lookahead > 0
    weights = inverses = kept = 0
    for index in layers:
        size = _parameter_bytes(options[index], shapes[index])
        forward, inverse = options[index].optimizer.over(config.optimizer.pair)
        weights += size
        kept += size * (1 + _state_tensors(forward) + (2 if ahead and forward.has_momentum else 0))
        own = WEIGHT_BYTES * inverse_parameters(options[index], index + 1, shapes, rule)
        inverses += own
        kept += own * (1 + _state_tensors(inverse) if index + 1 in rule.learned_inverses() else 0)
    return Memory(weights, inverses, kept, _activation_bytes(config, shapes, layers, stage, stages, depth))


def _activation_bytes(
    config: Config, shapes: Sequence[Shape], layers: range, stage: int, stages: int, depth: int
) -> int:
    """Return what all layers keep for every minibatch in flight, and one displacement of each.

    That is their inputs and outputs, and what layers inside layers give. The signals of a rule of one wave
    are kept for as many minibatches.
    """
    number = getattr(torch, config.train.dtype).itemsize
    outputs = sum(prod(shapes[index + 1]) for index in layers)
    inside = sum(config.model.options[index].kept(shapes[index]) for index in layers)
    flight = (prod(shapes[layers.start]) + outputs + inside) * number + most_label_bytes(config)
    rule, examples = config.build_rule(), config.data.batch_size
    rows = rule.target_rows(shapes[-1][0])
    in_flight = window(stage, stages, depth, rule.flow())
    if rows is None:
        return int(examples * (flight * in_flight + outputs * number))
    return int(in_flight * (examples * flight + rows * outputs * number))


def _parameter_bytes(options: LayerOptions, shape: Shape) -> int:
    return WEIGHT_BYTES * options.parameters(shape)


def _state_tensors(options: OptimizerOptions) -> int:
    """Return how many tensors of a parameter's size an optimizer keeps, found by one step of it."""
    parameter = nn.Parameter(torch.zeros(2, 2))
    optimizer = options.build([parameter])
    parameter.grad = torch.zeros(2, 2)
    optimizer.step()
    state = optimizer.state.get(parameter, {})
    return sum(1 for value in state.values() if getattr(value, "shape", None) == parameter.shape)
