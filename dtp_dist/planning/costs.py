"""What each layer costs per minibatch: measured elsewhere, or estimated here from its shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal

from dtp_dist.algorithm.build import inverse_parameters
from dtp_dist.algorithm.layers import LayerOptions
from dtp_dist.algorithm.layers.base import Shape
from dtp_dist.algorithm.maps.feedback import Feedback
from dtp_dist.algorithm.rules import Rule, RuleOptions
from dtp_dist.schedule import TWO_WAVES, Flow, Kind, Phase, kinds_of

OPTIMIZER_WORK, ELEMENT_WORK, CALL_WORK = 120.0, 200.0, 3e6
"""What else takes time, as floating-point operations of a matrix product that would take as long.

An optimizer's step per parameter (bound by memory), what happens elementwise around a product per element
of its result (activations, differences, noise), and the overhead of evaluating one map once.
"""

LayerTimes = Mapping[Kind, Sequence[float]]
"""For each kind of action what it costs in each layer."""


@dataclass(frozen=True)
class Costs:
    """What the layers cost per minibatch: floating-point operations if they follow from shapes, else seconds.

    Attributes:
        phases: the phases of training that every minibatch goes through, and the layers' costs in each.
        delayed: the same in a stage with a delay, by the number in flight (2; 3 for all above); without an
            entry, as without a delay.
        shared: what n layers of one stage cost less than n stages of one layer, for each layer but one;
            negative where they cost more.
        data: what loading a minibatch adds to the first stage's F.
        turn: what a stage takes from one action to the next.
        source: where they are from.
    """

    phases: Mapping[Phase, LayerTimes]
    delayed: Mapping[int, Mapping[Phase, LayerTimes]] = field(default_factory=dict)
    shared: Mapping[Phase, Mapping[Kind, float]] = field(default_factory=dict)
    data: float = 0.0
    turn: float = 0.0
    source: Literal["shapes", "measured", "virtual"] = "shapes"

    @property
    def in_seconds(self) -> bool:
        """Whether these are seconds."""
        return self.source != "shapes"

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(next(iter(self.phases.values()))[Kind.FORWARD])

    def stage(self, phase: Phase, layers: range, in_flight: int) -> dict[Kind, float]:
        """Return what each action costs in a stage of ``layers`` (0-based), ``in_flight`` in the pipeline.

        The last stage has no delay, nor has any with one in flight.
        """
        delayed = in_flight > 1 and layers.stop < self.layers
        times = self.delayed.get(min(in_flight, 3), self.phases) if delayed else self.phases
        saved = self.shared.get(phase, {})
        found = {}
        for kind in self.phases[phase]:
            each = times[phase][kind][layers.start : layers.stop]
            found[kind] = max(max(each), sum(each) - saved.get(kind, 0.0) * (len(layers) - 1))
        if layers.start == 0:
            found[Kind.FORWARD] += self.data
        return found

    def total(self, layers: range, in_flight: int) -> float:
        """Return what all actions of such a stage cost, over all phases."""
        return sum(sum(self.stage(phase, layers, in_flight).values()) for phase in self.phases)


def training_phases(options: RuleOptions, rule: Rule) -> tuple[Phase, ...]:
    """Return the phases that a minibatch of training goes through in every epoch but the first."""
    learns = bool(rule.learned_inverses())
    update = Phase.BOTH if options.update_order == "minibatch" else Phase.FORWARD
    alone = learns and (options.inverse_pass or update is Phase.FORWARD)
    return (Phase.INVERSE, update) if alone else (update,)


def estimated_costs(
    layers: Sequence[LayerOptions],
    shapes: Sequence[Shape],
    rule: Rule,
    batch_size: int,
    phases: Iterable[Phase] = (Phase.BOTH,),
) -> Costs:
    """Return the layers' costs as ``action_work`` counts them; the same network always gives the same."""
    flow, found = rule.flow(), {}
    for phase in phases:
        work = action_work(layers, shapes, rule, batch_size, phase)
        found[phase] = {kind: work[kind] for kind in kinds_of(phase, flow)}
    return Costs(found)


def given_costs(
    partition: Sequence[int],
    stages: Sequence[Mapping[Kind, float]],
    phases: Iterable[Phase] = (Phase.BOTH,),
    flow: Flow = TWO_WAVES,
) -> Costs:
    """Return costs, in seconds, of layers that cost what is given for each stage when they are cut so.

    A stage's first layer carries all of it. Kinds that are not given cost nothing.
    """
    times: dict[Kind, list[float]] = {
        kind: [
            stage.get(kind, 0.0) if layer == 0 else 0.0
            for count, stage in zip(partition, stages, strict=True)
            for layer in range(count)
        ]
        for kind in Kind
    }
    found = {phase: {kind: times[kind] for kind in kinds_of(phase, flow)} for phase in phases}
    return Costs(found, source="virtual")


def without_inverses(costs: Costs) -> Costs:
    """Return the same costs where inverse updates cost nothing."""
    phases = {
        phase: {kind: [0.0] * costs.layers if kind is Kind.INVERSE else each for kind, each in times.items()}
        for phase, times in costs.phases.items()
    }
    return replace(costs, phases=phases)


def action_work(
    layers: Sequence[LayerOptions],
    shapes: Sequence[Shape],
    rule: Rule,
    batch_size: int,
    phase: Phase = Phase.BOTH,
) -> dict[Kind, list[float]]:
    """Return the work of each action in each layer per minibatch of a phase, in floating-point operations.

    F and U are one forward product each; I is K times what the rule says (for dtp one of f, two of g) where
    the inverse learns; T is two of g, or one of f where the target goes through its transpose. Of a rule
    whose inverses learn in U, that is in U, once; T of one with signals is one g of their rows. Where the
    outputs' signal is handed on as it is, T is nothing, and U has the product that it takes. Probes go
    through every layer above their own. Elementwise work, overhead and optimizer steps are added. A layer
    without parameters only passes numbers on, which counts as nothing.
    """
    found: dict[Kind, list[float]] = {kind: [] for kind in Kind}
    inverted, flow = rule.inverted(), rule.flow()
    learned = rule.learned_inverses() if phase is not Phase.FORWARD else range(0)
    rows, broadcast, probes = rule.target_rows(shapes[-1][0]), rule.feedback is Feedback.DIRECT, 0
    for index, options in enumerate(layers, 1):
        step = OPTIMIZER_WORK * float(options.parameters(shapes[index - 1]))
        own = OPTIMIZER_WORK * float(inverse_parameters(options, index, shapes, rule))
        f, g = _map_work(options, shapes[index - 1], batch_size)
        target = f if index > 1 and not broadcast else 0.0
        if index in inverted:
            target = g if options.affine_inverse else 2 * g
        if rows is not None:
            g = _map_work(options, shapes[index - 1], rows)[1]
            target = g if index in inverted else 0.0
        if broadcast:
            g = _direct_work(shapes, index, batch_size) if own else 0.0
        update = f + step + (g if broadcast else 0.0) if phase is not Phase.INVERSE else 0.0
        inverse = rule.inverse_work(f, g, affine=options.affine_inverse) if index in learned else 0.0
        own = own if index in learned else 0.0
        if flow.inverse_in == "U":
            works = (f * (1 + probes), 0.0, target, update + inverse + own)
        else:
            works = (f, options.inverse.planned * (inverse + own / options.inverse.samples), target, update)
        for kind, work in zip(Kind, works, strict=True):
            found[kind].append(work)
        probes += rule.probes and index in learned and own > 0
    return found


def _direct_work(shapes: Sequence[Shape], index: int, batch_size: int) -> float:
    """Return the work of one map from the outputs straight to a layer, on a minibatch."""
    units = prod(shapes[index])
    return batch_size * units * (2.0 * prod(shapes[-1]) + ELEMENT_WORK) + CALL_WORK


def _map_work(options: LayerOptions, shape: Shape, batch_size: int) -> tuple[float, float]:
    """Return the work of one f and of one g on a minibatch, in floating-point operations."""
    if not options.parameters(shape):
        return 0.0, 0.0
    parts = [_map_work(part.options, part.input_shape, batch_size) for part in options.parts(shape)]
    products = (0.0, 0.0) if parts else options.work(shape)
    results = (options.output_shape(shape), shape)
    f, g = (
        batch_size * (work + ELEMENT_WORK * prod(result)) + CALL_WORK
        for work, result in zip(products, results, strict=True)
    )
    return f + sum(each for each, _ in parts), g + sum(each for _, each in parts)
