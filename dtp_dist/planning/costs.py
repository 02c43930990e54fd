"""What each layer costs per minibatch, estimated from its shapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from dtp_dist.algorithm.layers import LayerOptions
from dtp_dist.algorithm.layers.base import Shape
from dtp_dist.algorithm.rules import Rule

OPTIMIZER_WORK = 200.0
"""Floating-point operations that one optimizer step costs per parameter, in time: it is bound by memory."""


def layer_work(
    layers: Sequence[LayerOptions], shapes: Sequence[Shape], rule: Rule, batch_size: int
) -> list[float]:
    """Return the work of each layer per minibatch, in floating-point operations.

    F and U are one forward product each; I is K times (one of f, two of g); T is two of g, or one of f
    where the target goes through the forward map. Every update adds its optimizer's step.
    """
    costs = []
    inverses = rule.inverses()
    for index, options in enumerate(layers, 1):
        f, g = options.work(shapes[index - 1])
        parameters = float(prod(shapes[index - 1]) * prod(shapes[index]))
        work, steps = 2 * f, 1
        if index in inverses:
            iterations = options.inverse.iterations
            work += iterations * (f + 2 * g) + 2 * g
            steps += iterations
        elif index > 1:
            work += f
        costs.append(batch_size * work + OPTIMIZER_WORK * parameters * steps)
    return costs
