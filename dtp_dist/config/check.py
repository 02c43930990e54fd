"""Checks across sections: whether the parts of a configuration fit one another."""

from __future__ import annotations

from dtp_dist.algorithm.build import layer_shapes
from dtp_dist.algorithm.layers.base import Shape
from dtp_dist.algorithm.options import RangeError
from dtp_dist.config.parse import range_error, unknown_key
from dtp_dist.config.schema import Config, ParallelConfig
from dtp_dist.errors import ConfigError
from dtp_dist.schedule import Kind


def shapes_of(config: Config) -> list[Shape]:
    """Return the shapes of h_0 .. h_L, one example each.

    Raises:
        ConfigError: a layer does not fit the one below it.
    """
    try:
        return layer_shapes(config.model.shape, config.model.options)
    except RangeError as error:
        raise range_error("model.layers", error) from None


def check(config: Config) -> None:
    """Check what no section can check alone.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    layers = len(config.model.options)
    parallel = config.parallel
    if layers < 2:
        raise ConfigError(
            "model.layers: one layer is not enough; write at least two, the last for the classes"
        )
    if parallel.stages != "auto" and parallel.stages > layers:
        text = f"{parallel.stages} is not allowed; it must be at most {layers}, the number of layers"
        raise ConfigError(f"parallel.stages: {text}")
    if parallel.partition is not None:
        _check_partition(parallel.partition, parallel.stages, layers)
    _check_virtual_costs(parallel)
    instances = [i for i, layer in enumerate(config.model.options, 1) if layer.kind == "instance"]
    if instances and parallel.runtime != "inprocess":
        text = f"layer {instances[0]} is a module instance, which only parallel.runtime=inprocess can run"
        raise ConfigError(f"model.layers.{instances[0]}.kind: {text}; name an import path for other runtimes")
    if not instances or all(hasattr(config.model.options[i - 1], "pair") for i in instances):
        _check_network(config)


def _check_partition(partition: list[int], stages: object, layers: int) -> None:
    if sum(partition) != layers:
        text = f"{partition} holds {sum(partition)} layers, but the model has {layers}"
        raise ConfigError(f"parallel.partition: {text}")
    if stages not in ("auto", len(partition)):
        text = f"{partition} has {len(partition)} stages, but parallel.stages is {stages}"
        raise ConfigError(f"parallel.partition: {text}")


def _check_virtual_costs(parallel: ParallelConfig) -> None:
    costs, stages = parallel.virtual_costs, parallel.stages
    stages = len(parallel.partition) if parallel.partition else stages
    if isinstance(costs, list) and len(costs) != stages:
        text = f"has costs of {len(costs)} stages, but parallel.stages is {stages}"
        raise ConfigError(f"parallel.virtual_costs: {text}; write one entry for each stage")
    kinds = [kind.value for kind in Kind]
    for each in costs if isinstance(costs, list) else [costs]:
        for name in each if isinstance(each, dict) else ():
            if name not in kinds:
                raise unknown_key(f"parallel.virtual_costs.{name}", kinds)


def _check_network(config: Config) -> None:
    shapes = shapes_of(config)
    if len(shapes[-1]) != 1:
        text = f"gives {list(shapes[-1])}, but the last layer must give one number per class"
        raise ConfigError(f"model.layers.{len(shapes) - 1}: {text}")
    layers = config.model.options
    for index in config.rule.build(len(layers)).inverses():
        if not layers[index - 1].has_inverse(shapes[index - 1]):
            text = f"rule.name={config.rule.name} needs an inverse of layer {index}, which has none"
            raise ConfigError(
                f"model.layers.{index}.kind: {text}; return (forward, inverse) from its function"
            )
