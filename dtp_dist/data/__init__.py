"""Data sets, in memory or read on demand, and the minibatches of an epoch as a function of (seed, epoch)."""

from dtp_dist.data.batches import Batches, order
from dtp_dist.data.examples import Examples, Pool, Splits, unpacked
from dtp_dist.data.rows import Held, Read, Rows
from dtp_dist.data.source import CACHES, NORMALIZE, Place
from dtp_dist.data.sources import GIVEN, SOURCES, Given, check_options, ensure, load

__all__ = [
    "CACHES",
    "GIVEN",
    "NORMALIZE",
    "SOURCES",
    "Batches",
    "Examples",
    "Given",
    "Held",
    "Place",
    "Pool",
    "Read",
    "Rows",
    "Splits",
    "check_options",
    "ensure",
    "load",
    "order",
    "unpacked",
]
