"""What each layer costs on this device: the run's own stages at work in this process, on made-up data.

Each layer is a stage of its own first; then all layers are one, because a stage of several layers steps its
optimizers at once. What the second saves per layer is what any stage saves (``Costs.shared``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from math import prod
from statistics import median

import torch

from dtp_dist.config import Config, shapes_of
from dtp_dist.data import Batches, Examples
from dtp_dist.planning import Costs, training_phases
from dtp_dist.planning.costs import LayerTimes
from dtp_dist.runtime.inprocess import InProcessRuntime
from dtp_dist.runtime.segment import Segment
from dtp_dist.runtime.worker import ACTION_NAMES
from dtp_dist.schedule import KINDS, Phase

SECONDS = 4.0
MOST_BYTES = 2**25  # of made-up pixels: more than a cache holds, as a data set is
MOST_MINIBATCHES, WARM, LEAST, ROUNDS = 100, 3, 2, 4
DATA = "data"


def measured_costs(config: Config, in_flight: Iterable[int] = (1,), seconds: float = SECONDS) -> Costs:
    """Return the layers' median costs, in seconds, for pipelines with so many minibatches in flight.

    Takes about ``seconds``; every trial runs a few minibatches, so very slow networks take longer.

    Raises:
        NonFiniteError: training on noise diverged.
    """
    layers = len(config.model.options)
    phases = training_phases(config.rule.alternate, config.rule.build(layers))
    depths = sorted({min(depth, 3) for depth in in_flight if depth > 1 and layers > 1})
    with ExitStack() as stack:
        whole, alone, *late = (
            stack.enter_context(closing(_Trial(config, partition, depth)))
            for partition, depth in [([layers], 1), *(([1] * layers, depth) for depth in (1, *depths))]
        )
        share = seconds / (2 + len(depths)) / (ROUNDS + 1) / len(phases)
        for _ in range(ROUNDS + 1):  # they take turns, so that a noisy machine is as noisy for each
            for trial in (whole, alone, *late):
                for phase in phases:
                    trial.train(phase, share)
        found = [trial.medians() for trial in (whole, alone, *late)]
        shared = {
            phase: {
                kind: max(0.0, sum(times) - found[0][phase][kind][0]) / max(1, layers - 1)
                for kind, times in found[1][phase].items()
            }
            for phase in phases
        }
        delayed = dict(zip(depths, found[2:], strict=True))
        return Costs(found[1], delayed, shared, whole.data(), whole.turn(), measured=True)


class _Trial:
    """The stages of one partition, training on noise in this process, and how long their actions took."""

    def __init__(self, config: Config, partition: Sequence[int], in_flight: int) -> None:
        parallel = replace(
            config.parallel, partition=list(partition), stages=len(partition), in_flight=in_flight
        )
        monitor = replace(config.monitor, trace_minibatches=MOST_MINIBATCHES, alignment_every=0)
        config = replace(config, parallel=parallel, monitor=monitor)
        self._batches = made_up(config)
        self._runtime = InProcessRuntime(config, {"train": self._batches}, lambda report: None)
        self._next = 0
        self._fastest = float("inf")  # seconds of a minibatch
        self._taken: dict[tuple[Phase, str, int], list[float]] = defaultdict(list)
        self._turns: list[float] = []

    def close(self) -> None:
        """End the stages."""
        self._runtime.close()

    def train(self, phase: Phase, seconds: float) -> None:
        """Train one segment that takes about so long; the first of all is to warm up and not counted."""
        warm = self._next == 0
        count = WARM if warm else max(LEAST, min(self._batches.count, int(seconds / self._fastest)))
        first, self._next = self._next, self._next + count
        spent = self._runtime.run(Segment(phase, "train", 0, first, count, 0)).seconds
        self._fastest = min(self._fastest, spent / count)
        if warm:
            return
        busy = 0.0
        for stage, spans in enumerate(self._runtime.spans()):
            for span in spans:
                if span.minibatch >= first and not span.name.startswith(("wait", "send")):
                    self._taken[phase, span.name, stage].append(span.end - span.start)
                    busy += span.end - span.start
        self._turns.append((spent - busy) / count / self._runtime.layout.stages / len(KINDS[phase]))

    def medians(self) -> dict[Phase, LayerTimes]:
        """Return the median seconds of each action in each stage."""
        phases = {phase for phase, _, _ in self._taken}
        stages = range(self._runtime.layout.stages)
        return {
            phase: {
                kind: [median(self._taken[phase, ACTION_NAMES[kind], stage]) for stage in stages]
                for kind in KINDS[phase]
            }
            for phase in phases
        }

    def data(self) -> float:
        """Return the median seconds of loading a minibatch."""
        return median([each for (_, name, _), taken in self._taken.items() if name == DATA for each in taken])

    def turn(self) -> float:
        """Return the median seconds from one action of a stage to the next."""
        return max(0.0, median(self._turns))


def made_up(config: Config) -> Batches:
    """Return minibatches of noise of the configuration's shapes, from nothing but its seed."""
    shape, size = config.model.shape, config.data.batch_size
    pixels = size * prod(shape)
    examples = size * max(WARM, LEAST, min(MOST_MINIBATCHES, MOST_BYTES // pixels))
    generator = torch.Generator().manual_seed(config.seed)
    images = torch.randint(0, 256, (examples, 1, 1, prod(shape)), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, shapes_of(config)[-1][0], (examples,), generator=generator)
    found = Examples(images, labels)
    if config.data.normalize == "standardize":
        found = found.standardized(*found.statistics())
    return Batches(found, shape, size, seed=config.seed)
