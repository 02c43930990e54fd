"""What a plan starts from: the costs of a configuration's layers and messages, measured here or estimated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dtp_dist.algorithm.rules import RULES
from dtp_dist.config import Config, shapes_of
from dtp_dist.planning import Costs, estimated_costs, given_costs, training_phases
from dtp_dist.planning.predict import LinkModel, Pipeline
from dtp_dist.schedule import Kind, Phase

BACKPROP = "backprop"
SECONDS, BACKPROP_SECONDS = 3.0, 1.0
"""How long the layers are measured, about."""


def costs_of(config: Config, in_flight: Iterable[int], *, measured: bool, seconds: float = SECONDS) -> Costs:
    """Return the costs of the layers, for pipelines with so many minibatches in flight.

    Measuring takes about ``seconds``. Estimated ones are the same each time. That matters: with more than one
    minibatch in flight the partition that they lead to changes what a run computes.

    Raises:
        NonFiniteError: training on noise diverged while it was measured.
    """
    if config.parallel.virtual and config.parallel.partition is not None:
        return _virtual_costs(config, config.parallel.partition)
    if measured:
        from dtp_dist.runtime.measure import measured_costs  # it runs what the layout describes

        return measured_costs(config, in_flight, seconds)
    layers = config.model.options
    rule = config.rule.build(len(layers))
    phases = training_phases(config.rule.alternate, rule)
    return estimated_costs(layers, shapes_of(config), rule, config.data.batch_size, phases)


def _virtual_costs(config: Config, partition: Sequence[int]) -> Costs:
    """Return the planned times of virtual stages."""
    milliseconds = [config.parallel.action_costs(stage) for stage in range(len(partition))]
    times = [{Kind(kind): each / 1e3 for kind, each in stage.items()} for stage in milliseconds]
    rule = config.rule.build(len(config.model.options))
    return given_costs(partition, times, training_phases(config.rule.alternate, rule))


def pipeline_of(config: Config, in_flight: Iterable[int], *, measured: bool) -> Pipeline:
    """Return what predictions for a configuration start from."""
    from dtp_dist.runtime.compact import message_bytes
    from dtp_dist.runtime.link_cost import measured_link

    rule = config.rule.build(len(config.model.options))

    def messages(layer: int, phase: Phase) -> tuple[int, int]:
        return message_bytes(config, rule, layer, phase)

    costs = backprop = costs_of(config, in_flight, measured=measured)
    if config.rule.name != BACKPROP:
        other = replace(config, rule=RULES[BACKPROP]())
        backprop = costs_of(other, (), measured=measured, seconds=BACKPROP_SECONDS)
    return Pipeline(
        costs=costs,
        backprop=backprop,
        link=measured_link(config) if measured else LinkModel(),
        messages=messages,
        batch_size=config.data.batch_size,
    )
