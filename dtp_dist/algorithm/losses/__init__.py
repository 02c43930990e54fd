"""Losses at the output. Adding one is a file with its class, and its line in ``LOSSES``."""

from __future__ import annotations

from collections.abc import Callable

from dtp_dist.algorithm.losses.base import Loss, classes_in
from dtp_dist.algorithm.losses.binary_cross_entropy import BinaryCrossEntropy
from dtp_dist.algorithm.losses.cross_entropy import CrossEntropy
from dtp_dist.algorithm.losses.mse import SquaredError

LOSSES: dict[str, Callable[[], Loss]] = {
    "cross_entropy": CrossEntropy,
    "mse": SquaredError,
    "binary_cross_entropy": BinaryCrossEntropy,
}

CROSS_ENTROPY = CrossEntropy()

__all__ = ["CROSS_ENTROPY", "LOSSES", "CrossEntropy", "Loss", "classes_in"]
