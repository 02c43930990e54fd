"""What each layer costs per minibatch, estimated from its shapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from dtp_dist.algorithm.layers import LayerOptions
from dtp_dist.algorithm.layers.base import Shape
from dtp_dist.algorithm.rules import Rule

OPTIMIZER_WORK, ELEMENT_WORK, CALL_WORK = 120.0, 200.0, 3e6
"""What else takes time, as floating-point operations of a matrix product that would take as long.

An optimizer's step per parameter (bound by memory), what happens elementwise around a product per element
of its result (activations, differences, noise), and the overhead of evaluating one map once.
"""


def layer_work(
    layers: Sequence[LayerOptions], shapes: Sequence[Shape], rule: Rule, batch_size: int
) -> list[float]:
    """Return the work of each layer per minibatch, in floating-point operations.

    F and U are one forward product each; I is K times what the rule says (for dtp one of f, two of g) where
    the inverse learns; T is two of g, or one of f where the target goes through the forward map. Elementwise
    work, overhead and optimizer steps are added. A layer without parameters only passes numbers on, which
    counts as nothing.
    """
    costs = []
    inverses, learned = rule.inverses(), rule.learned_inverses()
    for index, options in enumerate(layers, 1):
        f, g = (
            batch_size * (work + ELEMENT_WORK * prod(shapes[side])) + CALL_WORK
            for work, side in zip(options.work(shapes[index - 1]), (index, index - 1), strict=True)
        )
        parameters = float(options.parameters(shapes[index - 1]))
        if not parameters:
            costs.append(0.0)
            continue
        work, steps = 2 * f, 1
        if index in inverses:
            iterations = options.inverse.iterations if index in learned else 0
            work += iterations * rule.inverse_work(f, g, affine=options.affine_inverse) + 2 * g
            steps += iterations
        elif index > 1:
            work += f
        costs.append(work + OPTIMIZER_WORK * parameters * steps)
    return costs
