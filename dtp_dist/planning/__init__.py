"""Before a run: what layers cost, where to cut a network into stages, and how fast it will be."""

from dtp_dist.planning.costs import (
    Costs,
    estimated_costs,
    given_costs,
    training_phases,
    without_inverses,
)
from dtp_dist.planning.partition import cheapest_partition

__all__ = [
    "Costs",
    "cheapest_partition",
    "estimated_costs",
    "given_costs",
    "training_phases",
    "without_inverses",
]
