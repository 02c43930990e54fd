"""What ``auto`` and a missing partition mean for a configuration, from its devices and its layers' costs."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from dtp_dist.config import Config
from dtp_dist.planning.predict import best_partition
from dtp_dist.profiling.costs import costs_of
from dtp_dist.runtime.devices import check_here, cluster_of, settled


def resolve(config: Config) -> Config:
    """Return the configuration with ``stages: auto`` and the partition worked out, once for the run.

    With ``balance: flops`` the same configuration always gives the same partition. With ``balance: measured``
    it need not, and with more than one minibatch in flight the partition changes what a run computes: the
    resolved configuration, which a run keeps, is what can be run again.

    Raises:
        ConfigError: a CUDA device is asked for where there is none.
        StageError: the devices are to be counted on a cluster that can't be reached.
    """
    parallel = config.parallel
    check_here(config)
    stages = stages_of(config)
    partition = parallel.partition
    if partition is None:
        costs = costs_of(config, [parallel.in_flight], measured=parallel.balance == "measured")
        partition = best_partition(costs, stages, parallel.in_flight)
    return replace(config, parallel=replace(parallel, stages=stages, partition=partition))


def stages_of(config: Config) -> int:
    """Return the number of stages, ``auto`` being one per device, or per core on the CPU."""
    parallel = config.parallel
    asked = len(parallel.partition) if parallel.partition else parallel.stages
    return min(len(config.model.options), max(1, device_count(config))) if asked == "auto" else asked


def device_count(config: Config) -> int:
    """Return how many stages have a device of their own: one per GPU where there are any, else by cores.

    Raises:
        ConfigError: Ray is to be asked and is not installed.
        StageError: its cluster can't be reached.
    """
    parallel = config.parallel
    if parallel.runtime == "ray":
        cluster = cluster_of(config)
        return int(cluster.room(cluster.bundle(settled(config))))
    if parallel.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.device_count()
    return (os.cpu_count() or 1) // parallel.threads
