"""Which layers each stage holds, on which device, with which delay."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import torch

from dtp_dist import schedule
from dtp_dist.config import Config
from dtp_dist.errors import ConfigError
from dtp_dist.planning.predict import best_partition
from dtp_dist.runtime.planner import costs_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Layout:
    """The partition of a network: ``partition[s]`` layers in stage s, D minibatches in flight."""

    partition: tuple[int, ...]
    in_flight: int

    @property
    def stages(self) -> int:
        """The number of stages."""
        return len(self.partition)

    def layers(self, stage: int) -> range:
        """Return the 1-based layers of a stage."""
        below = sum(self.partition[:stage])
        return range(below + 1, below + self.partition[stage] + 1)

    def delay(self, stage: int) -> int:
        """Return the steady delay of a stage, in updates."""
        return schedule.delay(stage, self.stages, self.in_flight)

    def describe(self, stage: int) -> str:
        """Return e.g. "stage 3 (layers 7-9)"."""
        layers = self.layers(stage)
        name = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}-{layers[-1]}"
        return f"stage {stage} ({name})"


def layout_of(config: Config) -> Layout:
    """Return the layout of a resolved configuration."""
    partition = config.parallel.partition
    assert partition is not None, "resolve the configuration first"
    return Layout(tuple(partition), schedule.effective_in_flight(len(partition), config.parallel.in_flight))


def resolve(config: Config) -> Config:
    """Return the configuration with ``stages: auto`` and the partition worked out, once for the run.

    With ``balance: work`` the same configuration always gives the same partition. With ``balance: measured``
    it need not, and with more than one minibatch in flight the partition changes what a run computes: the
    resolved configuration, which a run keeps, is what can be run again.

    Raises:
        ConfigError: a CUDA device is asked for where there is none.
    """
    parallel = config.parallel
    if parallel.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("parallel.device: cuda is not available here; write auto or cpu")
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
    return min(len(config.model.options), max(1, _devices(config))) if asked == "auto" else asked


def _devices(config: Config) -> int:
    if config.parallel.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.device_count()
    return (os.cpu_count() or 1) // config.parallel.threads


def device_of(config: Config, stage: int) -> torch.device:
    """Return the device of a stage: ``cuda:(stage mod devices)``, or the CPU."""
    if config.parallel.device != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", stage % torch.cuda.device_count())
    return torch.device("cpu")
