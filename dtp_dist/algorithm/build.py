"""Building layers from their options: shapes, initial weights, optimizers, all from (seed, layer) alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dtp_dist.algorithm.layers.base import Layer, LayerOptions, Shape
from dtp_dist.algorithm.learners import Learner
from dtp_dist.algorithm.numbers import parse_number
from dtp_dist.algorithm.optimizers import OptimizerOptions
from dtp_dist.algorithm.options import RangeError
from dtp_dist.algorithm.randomness import derive_seed
from dtp_dist.algorithm.rules.base import Rule


def layer_shapes(input_shape: Shape, layers: Sequence[LayerOptions]) -> list[Shape]:
    """Return ``[shape of h_0, ..., shape of h_L]``, one example each.

    Raises:
        RangeError: a layer does not fit; its key starts with the layer's 1-based number.
    """
    shapes = [tuple(input_shape)]
    for index, options in enumerate(layers, 1):
        try:
            shapes.append(options.output_shape(shapes[-1]))
        except RangeError as error:
            raise RangeError(f"{index}.{error.key}", str(error)) from error
    return shapes


def build_layer(
    options: LayerOptions,
    index: int,
    shapes: Sequence[Shape],
    rule: Rule,
    optimizers: tuple[OptimizerOptions, OptimizerOptions],
    *,
    seed: int,
    delay: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Layer:
    """Return layer ``index`` (1-based) with fresh weights in ``dtype`` on ``device``.

    Args:
        shapes: what ``layer_shapes`` returned for the whole network.
        optimizers: the run's forward and inverse optimizers, where the layer has none of its own.

    Raises:
        RangeError: the rule needs an inverse that the layer does not have.
    """
    count = len(shapes) - 1
    needed = index in rule.inverses()
    generator = torch.Generator().manual_seed(derive_seed(seed, "weights", index))
    forward, inverse = options.maps(shapes[index - 1], generator, inverse=needed)
    if needed and inverse is None:
        raise RangeError(f"{index}.kind", f"layer {index} has no inverse, which the rule needs; give it one")
    for map_ in (forward, inverse):
        if map_ is not None:
            map_.module.to(device=device, dtype=dtype)
    forward_options, inverse_options = options.optimizer.over(optimizers)
    return Layer(
        index=index,
        count=count,
        forward=Learner(forward, forward_options),
        inverse=None if inverse is None else Learner(inverse, inverse_options),
        iterations=options.inverse.iterations,
        sigma=parse_number("sigma", options.inverse.sigma),
        delay=delay,
    )
