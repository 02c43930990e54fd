"""How fast a pipeline will be, from what its layers and messages cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from dtp_dist.planning.costs import Costs
from dtp_dist.planning.partition import cheapest_partition
from dtp_dist.planning.simulate import Simulation, simulate
from dtp_dist.planning.timing import Times, Timing, nanoseconds
from dtp_dist.schedule import TWO_WAVES, Flow, Kind, Phase, Schedule, effective_in_flight, kinds_of

FLOPS = 1e11
"""Floating-point operations per second that stand in for a device where none was measured."""

FEWEST, MOST, PER_STAGE = 200, 10_000, 8  # minibatches of a simulation

MessageBytes = Callable[[int, Phase], tuple[int, int]]
"""Bytes of an activation and of a target between a layer (1-based) and the one above, in a phase."""


@dataclass(frozen=True)
class LinkModel:
    """What a message of some bytes takes.

    Attributes:
        latency: seconds on its way.
        bandwidth: bytes per second that the link carries, one message after another.
        overhead: seconds of its sender's time, and again of its receiver's.
        copying: bytes per second at which each of them copies it.
    """

    latency: float = 0.0
    bandwidth: float = float("inf")
    overhead: float = 0.0
    copying: float = float("inf")

    def handling(self, size: int) -> float:
        """Return the seconds that each end is busy with a message."""
        return self.overhead + size / self.copying


@dataclass(frozen=True)
class Pipeline:
    """What a prediction starts from: what the layers and their messages cost.

    Attributes:
        backprop: the same layers learning by backpropagation; None where they do.
        flow: the rule's.
    """

    costs: Costs
    link: LinkModel
    messages: MessageBytes
    batch_size: int
    backprop: Pipeline | None = None
    flow: Flow = TWO_WAVES

    @property
    def unit(self) -> float:
        """Seconds of one unit of cost."""
        return 1.0 if self.costs.in_seconds else 1.0 / FLOPS


@dataclass(frozen=True)
class Prediction:
    """What is predicted for one number of stages; times in seconds, of the device or of ``FLOPS``.

    Attributes:
        in_flight: minibatches in flight, at most as many as stages.
        actions: for each stage, what a minibatch's actions of each kind take.
        received, sent: bytes of messages of each stage per minibatch.
        period: from one minibatch to the next, the pipeline being full.
        idle: share of the stages' time in which they do not compute.
        speed_up: over one stage; bound: what the costliest stage would allow at most.
        exact, backprop: one step with one minibatch in flight, of this rule and of backpropagation, cut alike
            and with the same order of actions.
        simulations: of each phase.
    """

    partition: tuple[int, ...]
    in_flight: int
    actions: list[dict[Kind, float]]
    received: list[int]
    sent: list[int]
    period: float
    idle: float
    speed_up: float
    bound: float
    exact: float
    backprop: float
    simulations: Mapping[Phase, Simulation]

    @property
    def layers(self) -> list[range]:
        """The layers of each stage, 0-based."""
        return stage_layers(self.partition)


def stage_layers(partition: Sequence[int]) -> list[range]:
    """Return the layers of each stage, 0-based."""
    return [range(first, stop) for first, stop in pairwise([0, *accumulate(partition)])]


def best_partition(costs: Costs, stages: int, in_flight: int) -> list[int]:
    """Return the partition whose slowest stage is as fast as possible; the same costs give the same.

    Raises:
        ValueError: there are fewer layers than stages.
    """
    depth = effective_in_flight(stages, in_flight)
    return cheapest_partition(lambda layers: costs.total(layers, depth), costs.layers, stages)


def predict(pipeline: Pipeline, partition: Sequence[int], in_flight: int, *, keep: int = 0) -> Prediction:
    """Return what is predicted for a partition, each stage having a device of its own.

    ``keep``: minibatches of the simulation's end whose spans are kept.
    """
    stages, costs, unit = len(partition), pipeline.costs, pipeline.unit
    depth = effective_in_flight(stages, in_flight)
    count = min(MOST, max(FEWEST, PER_STAGE * stages))
    layers = stage_layers(partition)
    simulations, slowest = {}, 0.0
    for phase in costs.phases:
        timing = timing_of(pipeline, layers, depth, phase)
        schedule = Schedule(stages, range(count), depth, phase, pipeline.flow)
        simulations[phase] = simulate(schedule, timing, keep=keep)
        slowest += max(sum(costs.stage(phase, each, depth).values()) for each in layers) * unit
    period = sum(each.period for each in simulations.values())
    busy = [costs.total(each, depth) * unit for each in layers]
    whole = range(costs.layers)
    one = _exact_step(pipeline, [whole])
    received, sent = _bytes(pipeline, layers)
    return Prediction(
        partition=tuple(partition),
        in_flight=depth,
        actions=[_actions(costs, each, depth, unit) for each in layers],
        received=received,
        sent=sent,
        period=period,
        idle=1.0 - sum(busy) / len(busy) / period if period else 0.0,
        speed_up=one / period if period else 1.0,
        bound=costs.total(whole, 1) * unit / slowest if slowest else 1.0,
        exact=_exact_step(pipeline, layers),
        backprop=_exact_step(pipeline.backprop or pipeline, layers),
        simulations=simulations,
    )


def _exact_step(pipeline: Pipeline, layers: Sequence[range]) -> float:
    """Return the seconds of a step with one minibatch in flight, over all phases."""
    return sum(
        simulate(
            Schedule(len(layers), range(FEWEST), 1, phase, pipeline.flow),
            timing_of(pipeline, layers, 1, phase),
        ).period
        for phase in pipeline.costs.phases
    )


def timing_of(pipeline: Pipeline, layers: Sequence[range], in_flight: int, phase: Phase) -> Timing:
    """Return what everything takes in each stage in a phase."""
    costs, link, stages = pipeline.costs, pipeline.link, len(layers)
    each = [costs.stage(phase, of, in_flight) for of in layers]
    sizes = [pipeline.messages(of.stop, phase) for of in layers[:-1]]  # over each stage but the last
    up, down = [up for up, _ in sizes], [down for _, down in sizes]
    turn = costs.turn * pipeline.unit
    return Timing(
        stages=stages,
        actions={
            kind: nanoseconds([cost[kind] * pipeline.unit for cost in each]) for kind in costs.phases[phase]
        },
        lead={
            Kind.FORWARD: nanoseconds([turn, *(turn + link.handling(size) for size in up)]),
            Kind.TARGET: nanoseconds([*(turn + link.handling(size) for size in down), turn]),
            Kind.INVERSE: nanoseconds([turn] * stages),
            Kind.UPDATE: nanoseconds([turn] * stages),
        },
        send=_by_sender(up, down, link.handling),
        transfer=_by_sender(up, down, lambda size: size / link.bandwidth),
        latency=_by_sender(up, down, lambda size: link.latency),
    )


def _by_sender(up: Sequence[int], down: Sequence[int], cost: Callable[[int], float]) -> dict[Kind, Times]:
    """Return what a message costs, in the places of its senders: F sends up, T down."""
    return {
        Kind.FORWARD: nanoseconds([*(cost(size) for size in up), 0.0]),
        Kind.TARGET: nanoseconds([0.0, *(cost(size) for size in down)]),
    }


def _actions(costs: Costs, layers: range, in_flight: int, unit: float) -> dict[Kind, float]:
    phases = [costs.stage(phase, layers, in_flight) for phase in costs.phases]
    return {kind: sum(each.get(kind, 0.0) for each in phases) * unit for kind in Kind}


def _bytes(pipeline: Pipeline, layers: Sequence[range]) -> tuple[list[int], list[int]]:
    """Return the bytes that each stage receives and sends per minibatch, over all phases."""
    received, sent = [0] * len(layers), [0] * len(layers)
    for phase in pipeline.costs.phases:
        for stage, of in enumerate(layers[:-1]):
            up, down = pipeline.messages(of.stop, phase)
            sent[stage] += up
            received[stage + 1] += up
            if Kind.TARGET in kinds_of(phase, pipeline.flow):
                sent[stage + 1] += down
                received[stage] += down
    return received, sent
