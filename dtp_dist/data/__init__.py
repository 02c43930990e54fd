"""Data sets as tensors in memory, and the minibatches of an epoch as a function of (seed, epoch)."""

from dtp_dist.data.batches import Batches, order
from dtp_dist.data.examples import Examples, Pool, Splits
from dtp_dist.data.sources import SOURCES, load

__all__ = ["SOURCES", "Batches", "Examples", "Pool", "Splits", "load", "order"]
