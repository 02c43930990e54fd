"""Building layers from their options: shapes, initial weights, optimizers, all from (seed, layer) alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from dtp_dist.algorithm.layers.base import Layer, LayerOptions, Shape
from dtp_dist.algorithm.layers.initial import initial_weight, with_memory
from dtp_dist.algorithm.maps.base import Map
from dtp_dist.algorithm.maps.feedback import DirectFeedback, Feedback, FeedbackWeights
from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.algorithm.optimizers.groups import OptimizedMap
from dtp_dist.algorithm.optimizers.schedules import scheduled
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


def weights_generator(seed: int, index: int) -> torch.Generator:
    """Return the generator of the initial weights of layer ``index`` (1-based)."""
    return torch.Generator().manual_seed(derive_seed(seed, "weights", index))


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
    forward, inverse = layer_maps(options, index, shapes, rule, weights_generator(seed, index))
    for map_ in (forward, inverse):
        if map_ is not None:
            map_.module.to(device=device, dtype=dtype)
    forward_options, inverse_options = options.optimizer.over(optimizers)
    return Layer(
        index=index,
        count=count,
        forward=OptimizedMap(forward, forward_options),
        inverse=None if inverse is None else OptimizedMap(inverse, inverse_options),
        iterations=options.inverse.most,
        sigma=scheduled(options.inverse.sigma),
        delay=delay,
        samples=options.inverse.samples,
        enough=options.inverse.enough,
    )


def layer_maps(
    options: LayerOptions, index: int, shapes: Sequence[Shape], rule: Rule, generator: torch.Generator
) -> tuple[Map, Map | None]:
    """Return f_l and what the rule wants in the place of g_l, None for nothing, with fresh weights.

    Raises:
        RangeError: the layer does not have what the rule wants.
    """
    shape, inverted = shapes[index - 1], index in rule.inverted()
    forward, inverse = options.maps(shape, generator, inverse=inverted)
    if inverted and inverse is None:
        raise RangeError(f"{index}.kind", f"layer {index} has no inverse, which the rule needs; give it one")
    if inverse is not None:
        return forward, rule.adapted(index, inverse)
    if index not in rule.inverses():
        return forward, None
    if rule.feedback is Feedback.DIRECT:
        return forward, _direct_feedback(options, shapes, index, generator) if forward.parameters() else None
    products = options.products(shape)
    if products is None:
        text = f"layer {index} does not say which products it takes, whose weights the rule has its own for"
        raise RangeError(f"{index}.kind", text)
    return forward, FeedbackWeights([each.drawn(generator) for each in products])


def _direct_feedback(
    options: LayerOptions, shapes: Sequence[Shape], index: int, generator: torch.Generator
) -> DirectFeedback:
    """Return a map from the outputs to h_l, drawn as the layer's inverse says."""
    outputs, units, own = prod(shapes[-1]), prod(shapes[index]), options.inverse
    module = with_memory(nn.Linear(outputs, units, bias=False, device="meta"))
    init: str = getattr(options, "init", "uniform") if own.init is None else own.init
    with torch.no_grad():
        module.weight.copy_(initial_weight(units, outputs, init, generator, scale=own.scale))
    return DirectFeedback(module, shapes[index])


def inverse_parameters(options: LayerOptions, index: int, shapes: Sequence[Shape], rule: Rule) -> int:
    """Return how many parameters stand in the place of the inverse of layer ``index``, 0 without one."""
    if index in rule.inverted():
        return options.parameters(shapes[index - 1])
    if index not in rule.inverses():
        return 0
    if rule.feedback is Feedback.DIRECT:
        return prod(shapes[-1]) * prod(shapes[index]) if options.parameters(shapes[index - 1]) else 0
    return sum(each.numel for each in options.products(shapes[index - 1]) or ())
