"""What a plan starts from: the costs of a configuration's layers and messages, measured here or estimated.

What measures is imported where it is used: it brings a whole runtime, and a configuration is checked
without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dtp_dist.algorithm.rules import RULES
from dtp_dist.config import Config, shapes_of
from dtp_dist.config.batches import label_columns
from dtp_dist.planning import Costs, estimated_costs, given_costs, training_phases, without_inverses
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
        from dtp_dist.profiling.measure import measured_costs

        return measured_costs(config, in_flight, seconds)
    layers = config.model.options
    rule = config.build_rule()
    phases = training_phases(config.rule, rule)
    return estimated_costs(layers, shapes_of(config), rule, config.data.batch_size, phases)


def _virtual_costs(config: Config, partition: Sequence[int]) -> Costs:
    """Return the planned times of virtual stages."""
    milliseconds = [config.parallel.action_costs(stage) for stage in range(len(partition))]
    times = [{Kind(kind): each / 1e3 for kind, each in stage.items()} for stage in milliseconds]
    rule = config.build_rule()
    return given_costs(partition, times, training_phases(config.rule, rule), rule.flow())


def pipeline_of(config: Config, in_flight: Iterable[int], *, measured: bool) -> Pipeline:
    """Return what predictions for a configuration start from."""
    from dtp_dist.profiling.links import measured_link

    link = measured_link(config) if measured else LinkModel()
    found = _pipeline(config, costs_of(config, in_flight, measured=measured), link)
    if config.rule.name == BACKPROP:
        return found
    twin = replace(config, rule=RULES[BACKPROP]())
    costs = costs_of(twin, (), measured=measured, seconds=BACKPROP_SECONDS)
    return replace(found, backprop=_pipeline(twin, without_inverses(costs), link))


def _pipeline(config: Config, costs: Costs, link: LinkModel) -> Pipeline:
    from dtp_dist.runtime.stage.link_encoding import message_bytes

    rule, columns = config.build_rule(), label_columns(config)

    def messages(layer: int, phase: Phase) -> tuple[int, int]:
        return message_bytes(config, rule, layer, phase, columns)

    return Pipeline(costs, link, messages, config.data.batch_size, flow=rule.flow())
