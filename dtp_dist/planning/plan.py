"""A plan: what is predicted for one or several numbers of stages, as data for a table, a page or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dtp_dist.config import Config
from dtp_dist.planning.memory import Memory, stage_memory
from dtp_dist.planning.predict import FLOPS, Pipeline, Prediction, best_partition, predict, timing_of
from dtp_dist.planning.simulate import Simulation, simulate
from dtp_dist.schedule import Kind, Phase, Schedule, draw

DRAWN_STAGES, DRAWN_MINIBATCHES = 8, 6


@dataclass(frozen=True)
class Plan:
    """Predictions by number of stages, and the fastest of them in detail.

    Attributes:
        stages: the number of stages that is fastest, the least of equals.
        memory: of each stage of the chosen prediction.
    """

    config: Config
    pipeline: Pipeline
    predictions: Mapping[int, Prediction]
    stages: int
    memory: list[Memory]

    @property
    def chosen(self) -> Prediction:
        """The fastest prediction."""
        return self.predictions[self.stages]

    @property
    def unit(self) -> str:
        """What costs are given in: ``ms``, or ``Mflop`` where nothing was measured."""
        return "ms" if self.pipeline.costs.in_seconds else "Mflop"

    def amount(self, seconds: float) -> float:
        """Return a time in ``unit``."""
        return seconds * (1e3 if self.pipeline.costs.in_seconds else FLOPS / 1e6)

    def samples_per_second(self, prediction: Prediction) -> float | None:
        """Return the speed, None where nothing was measured."""
        if not self.pipeline.costs.in_seconds or not prediction.period:
            return None
        return self.pipeline.batch_size / prediction.period

    def drawing(self) -> str:
        """Return the chosen schedule's first minibatches as a drawing, of a few stages if there are many."""
        stages = min(self.stages, DRAWN_STAGES)
        phases, flow = self.pipeline.costs.phases, self.pipeline.flow
        drawn_minibatches = range(DRAWN_MINIBATCHES)
        drawn = [
            draw(Schedule(stages, drawn_minibatches, self.chosen.in_flight, phase, flow).rows())
            for phase in phases
        ]
        return "\n\n".join(drawn)

    def opening(self, minibatches: int) -> dict[Phase, Simulation]:
        """Return the chosen pipeline's first minibatches, all of whose spans are kept."""
        chosen = self.chosen
        return {
            phase: simulate(
                Schedule(self.stages, range(minibatches), chosen.in_flight, phase, self.pipeline.flow),
                timing_of(self.pipeline, chosen.layers, chosen.in_flight, phase),
                keep=minibatches,
            )
            for phase in self.pipeline.costs.phases
        }


def make_plan(config: Config, pipeline: Pipeline, counts: Iterable[int], *, keep: int = 0) -> Plan:
    """Return the plan for some numbers of stages, with the fastest in detail, the least of equals.

    A partition that the configuration names is taken where it has that many stages. ``keep``: minibatches of
    the chosen simulations' ends whose spans are kept.
    """
    named = config.parallel.partition
    in_flight = config.parallel.in_flight
    predictions = {}
    for count in counts:
        given = named if named is not None and len(named) == count else None
        partition = given or best_partition(pipeline.costs, count, in_flight)
        predictions[count] = predict(pipeline, partition, in_flight)
    stages = min(predictions, key=lambda count: (predictions[count].period, count))
    if keep:
        predictions[stages] = predict(pipeline, predictions[stages].partition, in_flight, keep=keep)
    memory = [
        stage_memory(config, layers, stage, stages) for stage, layers in enumerate(predictions[stages].layers)
    ]
    return Plan(config, pipeline, predictions, stages, memory)


def plain(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain data: costs in ``unit`` per minibatch, bytes, shares between 0 and 1."""
    costs, link = plan.pipeline.costs, plan.pipeline.link
    return {
        "name": plan.config.name,
        "rule": plan.config.rule.name,
        "source": costs.source,
        "unit": plan.unit,
        "batch_size": plan.pipeline.batch_size,
        "threads": plan.config.parallel.threads,
        "layers": layer_rows(plan),
        "data": plan.amount(costs.data),
        "message": {"latency_ms": 1e3 * link.latency, "overhead_ms": 1e3 * link.overhead},
        "stages": plan.stages,
        "partition": list(plan.chosen.partition),
        "table": stage_rows(plan),
        "predictions": prediction_rows(plan),
    }


def layer_rows(plan: Plan) -> list[dict[str, Any]]:
    """Return, for each layer in a stage of its own and without delay, what its actions cost."""
    costs = plan.pipeline.costs
    unit = plan.pipeline.unit
    found = []
    for index, layer in enumerate(plan.config.model.options):
        actions = {
            str(kind): plan.amount(
                unit * sum(times[kind][index] for times in costs.phases.values() if kind in times)
            )
            for kind in Kind
        }
        found.append({"layer": index + 1, "kind": layer.kind, **actions})
    return found


def stage_rows(plan: Plan) -> list[dict[str, Any]]:
    """Return the chosen prediction stage by stage."""
    chosen = plan.chosen
    totals = [sum(actions.values()) for actions in chosen.actions]
    whole = sum(totals) or 1.0
    return [
        {
            "stage": stage,
            "layers": [layers.start + 1, layers.stop],
            **{str(kind): plan.amount(seconds) for kind, seconds in chosen.actions[stage].items()},
            "total": plan.amount(totals[stage]),
            "share": totals[stage] / whole,
            "memory_bytes": plan.memory[stage].total,
            "received_bytes": chosen.received[stage],
            "sent_bytes": chosen.sent[stage],
        }
        for stage, layers in enumerate(chosen.layers)
    ]


def prediction_rows(plan: Plan) -> list[dict[str, Any]]:
    """Return what is predicted for each number of stages."""
    return [
        {
            "stages": count,
            "in_flight": each.in_flight,
            "partition": list(each.partition),
            "period": plan.amount(each.period),
            "samples_per_second": plan.samples_per_second(each),
            "idle": each.idle,
            "speed_up": each.speed_up,
            "bound": each.bound,
            "exact_step": plan.amount(each.exact),
            "backprop_step": plan.amount(each.backprop),
        }
        for count, each in plan.predictions.items()
    ]
