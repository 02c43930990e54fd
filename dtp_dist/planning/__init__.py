"""Before a run: what layers cost, where to cut a network into stages, and how fast it will be."""

from dtp_dist.planning.costs import Costs, estimated_costs, given_costs, layer_work, training_phases
from dtp_dist.planning.partition import balanced_partition, cheapest_partition

__all__ = [
    "Costs",
    "balanced_partition",
    "cheapest_partition",
    "estimated_costs",
    "given_costs",
    "layer_work",
    "training_phases",
]
