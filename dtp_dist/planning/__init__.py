"""Where to cut a network into stages, from what its layers cost."""

from dtp_dist.planning.costs import layer_work
from dtp_dist.planning.partition import balanced_partition

__all__ = ["balanced_partition", "layer_work"]
