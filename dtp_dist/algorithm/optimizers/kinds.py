"""Optimizers. Adding one is a file with its options, which build it, and its line in ``OPTIMIZERS``."""

from __future__ import annotations

from typing import Annotated

from dtp_dist.algorithm.optimizers.adam import AdamOptions, AdamWOptions
from dtp_dist.algorithm.optimizers.base import OptimizerOptions
from dtp_dist.algorithm.optimizers.imported import ImportedOptions, optimizer_class
from dtp_dist.algorithm.optimizers.muon import MuonOptions
from dtp_dist.algorithm.optimizers.rmsprop import CentredRMSprop, CentredRMSpropOptions, RMSpropOptions
from dtp_dist.algorithm.optimizers.sgd import SGDOptions
from dtp_dist.algorithm.optimizers.soap import SOAPOptions
from dtp_dist.algorithm.options import Variants

OPTIMIZERS: dict[str, type[OptimizerOptions]] = {
    "sgd": SGDOptions,
    "adam": AdamOptions,
    "adamw": AdamWOptions,
    "rmsprop": RMSpropOptions,
    "centred_rmsprop": CentredRMSpropOptions,
    "muon": MuonOptions,
    "soap": SOAPOptions,
}

AnyOptimizer = Annotated[OptimizerOptions, Variants("name", OPTIMIZERS, imported=optimizer_class)]

__all__ = [
    "OPTIMIZERS",
    "AdamOptions",
    "AdamWOptions",
    "AnyOptimizer",
    "CentredRMSprop",
    "CentredRMSpropOptions",
    "ImportedOptions",
    "MuonOptions",
    "OptimizerOptions",
    "RMSpropOptions",
    "SGDOptions",
    "SOAPOptions",
]
