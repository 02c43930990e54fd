"""A network to start with: convolutions for images that are large enough, dense layers for all else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

SMALLEST = 16
"""Pixels on the shorter side of an image from which on layers are convolutions."""

CHANNELS = (16, 32, 64)
"""Of the convolutions, each of which halves the sides."""

UNITS, LEAST_UNITS, MOST_UNITS = 128, 32, 256
"""Of a dense layer behind convolutions, and of those that see the input: twice as many as it has numbers."""


@dataclass(frozen=True)
class Network:
    """A network, as it is written.

    Attributes:
        input: ``model.input``.
        defaults: ``model.defaults``, in YAML.
        layers: but for the last, in YAML, and what is said of each.
    """

    input: list[int]
    defaults: str
    layers: list[tuple[str, str]]


def network_for(shape: Sequence[int]) -> Network:
    """Return a network for examples of a shape."""
    if len(shape) == 3 and min(shape[1:]) >= SMALLEST:
        return _convolutional(list(shape))
    units = min(MOST_UNITS, max(LEAST_UNITS, 2 * prod(shape)))
    defaults = "{activation: tanh, inverse: {activation: tanh, sigma: 0.2}}"
    layer = f"{{kind: dense, units: {units}, repeat: 2}}"
    return Network([prod(shape)], defaults, [(layer, "two layers")])


def _convolutional(shape: list[int]) -> Network:
    count = 2 if min(shape[1:]) < 2 * SMALLEST else 3
    layers = [(f"{{kind: conv, channels: {each}}}", "") for each in CHANNELS[-count:]]
    layers[0] = (layers[0][0], "each halves height and width")
    defaults = "{activation: elu, kernel: 5, padding: 2, pool: max, inverse: {activation: elu, sigma: 0.1}}"
    dense = (f"{{kind: dense, units: {UNITS}}}", "")
    return Network(shape, defaults, [*layers, ("{kind: flatten}", ""), dense])
