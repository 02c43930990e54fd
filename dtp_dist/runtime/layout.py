"""Which layers each stage holds, with which delay."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dtp_dist import schedule
from dtp_dist.config import Config

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Layout:
    """The partition of a network: ``partition[s]`` layers in stage s, D minibatches in flight.

    ``flow`` is the rule's.
    """

    partition: tuple[int, ...]
    in_flight: int
    flow: schedule.Flow = schedule.TWO_WAVES

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
        return schedule.delay(stage, self.stages, self.in_flight, self.flow)

    def describe(self, stage: int) -> str:
        """Return e.g. "stage 3 (layers 7-9)"."""
        layers = self.layers(stage)
        name = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}-{layers[-1]}"
        return f"stage {stage} ({name})"


def layout_of(config: Config) -> Layout:
    """Return the layout of a resolved configuration."""
    partition = config.parallel.partition
    assert partition is not None, "resolve the configuration first"
    depth = schedule.effective_in_flight(len(partition), config.parallel.in_flight)
    return Layout(tuple(partition), depth, config.build_rule().flow())
