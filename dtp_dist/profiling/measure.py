"""What each layer costs on this device: the run's own stages at work in this process, on made-up data.

Each layer is a stage of its own first; then all layers are one, because a stage of several layers steps its
optimizers at once. What the second saves per layer is what any stage saves (``Costs.shared``); large layers
cost more together, where one's weights have left the caches before its optimizer steps.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from math import prod
from statistics import median

import torch

from dtp_dist.config import Config, shapes_of
from dtp_dist.data import Batches, Examples, Held
from dtp_dist.errors import ConfigError
from dtp_dist.planning import Costs, training_phases
from dtp_dist.planning.costs import LayerTimes
from dtp_dist.runtime.inprocess import InProcessRuntime
from dtp_dist.runtime.segment import Segment
from dtp_dist.schedule import ACTIONS, Activity, Kind, Phase, kinds_of

MOST_BYTES = 2**25  # of made-up pixels: more than a cache holds, as a data set is
MOST_MINIBATCHES, WARM, LEAST, ROUNDS, FEW = 100, 2, 1, 4, 2


def measured_costs(config: Config, in_flight: Iterable[int], seconds: float) -> Costs:
    """Return the layers' median costs, in seconds, for pipelines with so many minibatches in flight.

    Takes about ``seconds``. Where that is too short for a few minibatches, a minibatch or two must do: the
    inverses take ``FEW`` iterations of their K, which stand for all, and what stages share and what delay
    costs, little next to such layers, is left out.

    Raises:
        NonFiniteError: training on noise diverged.
        ConfigError: a layer is a module instance, which would be trained.
    """
    layers = len(config.model.options)
    instances = [number for number, each in enumerate(config.model.options, 1) if each.kind == "instance"]
    if instances:
        text = f"measured would train the module instance of layer {instances[0]} on noise; write flops"
        raise ConfigError(f"parallel.balance: {text}")
    phases = training_phases(config.rule, config.build_rule())
    depths = sorted({min(depth, 3) for depth in in_flight if depth > 1 and layers > 1})
    short, factors = _few_iterations(config)
    start = time.perf_counter()
    with closing(Trial(short, [1] * layers, 1)) as probe:
        for phase in (*phases, *phases):
            probe.train(phase, 0.0)
        once = probe.medians()
        each = sum(sum(map(sum, _scaled(times, factors).values())) for times in once.values())
        if each * (2 + len(depths)) * (WARM + ROUNDS * LEAST) > seconds:
            while time.perf_counter() - start + probe.fastest * LEAST * len(phases) < seconds:
                for phase in phases:
                    probe.train(phase, 0.0)
            scaled = {phase: _scaled(times, factors) for phase, times in probe.medians().items()}
            return Costs(scaled, data=probe.data(), turn=probe.turn(), source="measured")
    return compared_costs(config, phases, depths, seconds)


def compared_costs(config: Config, phases: Sequence[Phase], depths: Sequence[int], seconds: float) -> Costs:
    """Return what the layers cost alone, in one stage, and with delay, from trials that take turns."""
    layers = len(config.model.options)
    with ExitStack() as stack:
        whole, alone, *late = trials = [
            stack.enter_context(closing(Trial(config, partition, depth)))
            for partition, depth in [([layers], 1), *(([1] * layers, depth) for depth in (1, *depths))]
        ]
        share = seconds / len(trials) / (ROUNDS + 1) / len(phases)
        for _ in range(ROUNDS + 1):  # they take turns, so that a noisy machine is as noisy for each
            for trial in trials:
                for phase in phases:
                    trial.train(phase, share)
        together, apart = whole.medians(), alone.medians()
        shared = {
            phase: {
                kind: (sum(times) - together[phase][kind][0]) / max(1, layers - 1)
                for kind, times in apart[phase].items()
            }
            for phase in phases
        }
        delayed = {depth: trial.medians() for depth, trial in zip(depths, late, strict=True)}
        return Costs(apart, delayed, shared, whole.data(), whole.turn(), source="measured")


def _few_iterations(config: Config) -> tuple[Config, list[float]]:
    """Return the configuration with at most ``FEW`` inverse iterations, and what each layer's stand for."""
    layers, factors = [], []
    for options in config.model.options:
        iterations = options.inverse.iterations
        if iterations == "auto" or iterations <= FEW:
            layers.append(options)
            factors.append(1.0)
        else:
            layers.append(replace(options, inverse=replace(options.inverse, iterations=FEW)))
            factors.append(iterations / FEW)
    return replace(config, model=replace(config.model, layers=layers)), factors


def _scaled(times: LayerTimes, factors: Sequence[float]) -> LayerTimes:
    """Return the costs with those of I multiplied by each layer's factor."""
    return {
        kind: [cost * factor for cost, factor in zip(costs, factors, strict=True)]
        if kind is Kind.INVERSE
        else costs
        for kind, costs in times.items()
    }


class Trial:
    """The stages of one partition, training on noise in this process, and how long their actions took."""

    def __init__(self, config: Config, partition: Sequence[int], in_flight: int) -> None:
        parallel = replace(
            config.parallel, partition=list(partition), stages=len(partition), in_flight=in_flight
        )
        monitor = replace(config.monitor, trace_minibatches=MOST_MINIBATCHES, alignment_every=0)
        config = replace(config, parallel=parallel, monitor=monitor)
        self._batches = made_up(config)
        self._runtime = InProcessRuntime(config, lambda report: None, batches={"train": self._batches})
        self._next = 0
        self.fastest = float("inf")  # seconds of a minibatch
        self._taken: dict[tuple[Phase, Activity, int], list[float]] = defaultdict(list)
        self._turns: list[float] = []

    def close(self) -> None:
        """End the stages."""
        self._runtime.close()

    def train(self, phase: Phase, seconds: float) -> None:
        """Train one segment that takes about so long; the first of all is to warm up and not counted."""
        warm = self._next == 0
        count = LEAST if warm else max(LEAST, min(self._batches.count, int(seconds / self.fastest)))
        first, self._next = self._next, self._next + count
        spent = self._runtime.run(Segment(phase, "train", 0, first, count, 0)).seconds
        self.fastest = min(self.fastest, spent / count)
        if warm:
            return
        busy = 0.0
        for stage, spans in enumerate(self._runtime.spans()):
            for span in spans:
                if span.minibatch >= first and span.activity.computes:
                    self._taken[phase, span.activity, stage].append(span.seconds)
                    busy += span.seconds
        layout = self._runtime.layout
        actions = layout.stages * len(kinds_of(phase, layout.flow))
        self._turns.append((spent - busy) / count / actions)

    def medians(self) -> dict[Phase, LayerTimes]:
        """Return the median seconds of each action in each stage."""
        phases = dict.fromkeys(phase for phase, _, _ in self._taken)
        layout = self._runtime.layout
        stages = range(layout.stages)
        return {
            phase: {
                kind: [median(self._taken[phase, ACTIONS[kind], stage]) for stage in stages]
                for kind in kinds_of(phase, layout.flow)
            }
            for phase in phases
        }

    def data(self) -> float:
        """Return the median seconds of loading a minibatch."""
        loads = (taken for (_, activity, _), taken in self._taken.items() if activity is Activity.DATA)
        return median([each for taken in loads for each in taken])

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
    found = Examples(Held(images), labels)
    if config.data.normalize != "none":
        found = found.standardized(*found.statistics())
    return Batches(found, shape, size, seed=config.seed)
