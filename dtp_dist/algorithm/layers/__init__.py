"""Layer kinds. Adding one is a file with its options class and its line in ``KINDS``."""

from __future__ import annotations

from dtp_dist.algorithm.layers.base import InverseOptions, Layer, LayerOptions, all_layers
from dtp_dist.algorithm.layers.conv import ConvOptions
from dtp_dist.algorithm.layers.dense import DenseOptions
from dtp_dist.algorithm.layers.dropout import DropoutOptions
from dtp_dist.algorithm.layers.flatten import FlattenOptions
from dtp_dist.algorithm.layers.local import LocalOptions
from dtp_dist.algorithm.layers.norms import LayerNormOptions
from dtp_dist.algorithm.layers.pool import PoolOptions
from dtp_dist.algorithm.layers.residual import ResidualOptions
from dtp_dist.algorithm.layers.user.module import BoundInstance, InstanceOptions, ModuleOptions
from dtp_dist.algorithm.layers.variants import KINDS, LAYER_VARIANTS, AnyLayer

KINDS |= {
    "dense": DenseOptions,
    "conv": ConvOptions,
    "local": LocalOptions,
    "pool": PoolOptions,
    "layer_norm": LayerNormOptions,
    "dropout": DropoutOptions,
    "flatten": FlattenOptions,
    "residual": ResidualOptions,
    "instance": InstanceOptions,
}


__all__ = [
    "KINDS",
    "LAYER_VARIANTS",
    "AnyLayer",
    "BoundInstance",
    "ConvOptions",
    "DenseOptions",
    "DropoutOptions",
    "FlattenOptions",
    "InstanceOptions",
    "InverseOptions",
    "Layer",
    "LayerNormOptions",
    "LayerOptions",
    "LocalOptions",
    "ModuleOptions",
    "PoolOptions",
    "ResidualOptions",
    "all_layers",
]
