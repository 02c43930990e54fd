"""What a run takes from whoever starts it, in its place in the configuration: modules, data, whole paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from dtp_dist.algorithm.layers import BoundInstance
from dtp_dist.config import Config
from dtp_dist.config.check import check
from dtp_dist.data import GIVEN, Given
from dtp_dist.errors import ConfigError
from dtp_dist.storage.starting_weights import with_whole_paths
from dtp_dist.system.paths import absolute

Modules = Mapping[int, tuple[nn.Module, nn.Module | None]]


def with_given(config: Config, data: Given | None) -> Config:
    """Return the configuration of a run whose data were handed over; they stay in this process.

    Raises:
        ConfigError: its stages are in other processes.
    """
    if data is None:
        return config
    if config.parallel.runtime != "inprocess":
        text = "data that are handed over in Python stay in this process"
        advice = "write inprocess, or data.name=package.module:function and a function that returns them"
        raise ConfigError(f"parallel.runtime: {text}; {advice}")
    return replace(config, data=replace(config.data, name=GIVEN))


def placed(config: Config) -> Config:
    """Return the configuration with places of data, modules and weights that are the same from everywhere."""
    data = replace(config.data, root=absolute("data.root", config.data.root))
    code_dir = None if config.code_dir is None else absolute("code_dir", config.code_dir)
    return replace(config, data=data, code_dir=code_dir, model=with_whole_paths(config.model))


def bound(config: Config, modules: Modules) -> Config:
    """Return the configuration with module instances in their places.

    Raises:
        ConfigError: a layer of ``kind: instance`` has none, another layer has one, or they don't fit.
    """
    layers = list(config.model.options)
    for number, pair in modules.items():
        if not 1 <= number <= len(layers) or layers[number - 1].kind != "instance":
            raise ConfigError(f"modules: layer {number} is not of kind instance in the configuration")
        old = layers[number - 1]
        layers[number - 1] = BoundInstance(
            inverse=old.inverse, optimizer=old.optimizer, weights=old.weights, pair=pair
        )
    _refuse_shared(modules)
    for number, layer in enumerate(layers, 1):
        if layer.kind == "instance" and not isinstance(layer, BoundInstance):
            raise ConfigError(
                f"model.layers.{number}.kind: an instance needs train(config, modules={{{number}: ...}})"
            )
    found = replace(config, model=replace(config.model, layers=layers))
    if modules:
        check(found)
    return found


def _refuse_shared(modules: Modules) -> None:
    """Refuse a parameter of two layers: each layer learns by itself, with an optimizer of its own."""
    owners: dict[nn.Parameter, int] = {}
    for number, pair in modules.items():
        for module in filter(None, pair):
            for parameter in module.parameters():
                if owners.setdefault(parameter, number) != number:
                    text = f"layers {owners[parameter]} and {number} share a parameter"
                    raise ConfigError(f"modules: {text}; give each layer its own")
