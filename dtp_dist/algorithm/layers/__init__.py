"""Layer kinds. Adding one is a file with its options class and its line in ``KINDS``."""

from __future__ import annotations

from typing import Any

from dtp_dist.algorithm.layers.base import InverseOptions, Layer, LayerOptions
from dtp_dist.algorithm.layers.conv import ConvOptions
from dtp_dist.algorithm.layers.dense import DenseOptions
from dtp_dist.algorithm.layers.flatten import FlattenOptions
from dtp_dist.algorithm.layers.module import BoundInstance, InstanceOptions, ModuleOptions

KINDS: dict[str, type[Any]] = {
    "dense": DenseOptions,
    "conv": ConvOptions,
    "flatten": FlattenOptions,
    "instance": InstanceOptions,
}


def layer_kind(name: str) -> type[Any] | None:
    """Return the options class of a kind, of user modules for ``package.module:function``, else None."""
    return ModuleOptions if ":" in name else KINDS.get(name)


__all__ = [
    "KINDS",
    "BoundInstance",
    "ConvOptions",
    "DenseOptions",
    "FlattenOptions",
    "InstanceOptions",
    "InverseOptions",
    "Layer",
    "LayerOptions",
    "ModuleOptions",
    "layer_kind",
]
