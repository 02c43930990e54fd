"""Runs that start from given weights (``model.weights``, and a layer's own ``weights``): checked, then kept.

What a run starts from is its checkpoint of step 0, written before its stages start: so every runtime starts
from it as it resumes from any other, and neither a resumed nor a recovered run needs the given files again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dtp_dist.algorithm.build import build_layer
from dtp_dist.algorithm.layers import Layer
from dtp_dist.algorithm.state import Tensors, layer_state
from dtp_dist.config import Config, shapes_of
from dtp_dist.config.schema import ModelConfig
from dtp_dist.errors import ConfigError
from dtp_dist.schedule import Phase
from dtp_dist.storage.checkpoint import complete_checkpoint, new_checkpoint, write_layer
from dtp_dist.storage.manifest import Manifest, TotalsState
from dtp_dist.storage.origin import origin_of
from dtp_dist.storage.weights_file import WeightsFile, file_of_layer, layers_in
from dtp_dist.system.paths import absolute

FORWARD, INVERSE, BUFFER, OPTIMIZER = "forward.", "inverse.", "forward.buffer.", ".optimizer."
STANDARDIZE = {"0.mean", "0.deviation"}
"""What an exported network begins with whose pixels were standardized."""

Names = Mapping[str, str]
"""Names in a layer's state by those in a file."""


@dataclass(frozen=True)
class Given:
    """Where one layer's weights are from: the key that says so, and the file or folder that it names."""

    key: str
    path: Path


def given_weights(config: Config) -> dict[int, Given]:
    """Return where each layer's weights are from, by its 1-based number; those without start fresh."""
    model, found = config.model, {}
    if model.weights.file is not None:
        given = Given("model.weights", Path(model.weights.file))
        found = dict.fromkeys(model.weights.layers or range(1, len(model.options) + 1), given)
    for index, options in enumerate(model.options, 1):
        if options.weights is not None:
            found[index] = Given(f"model.layers.{index}.weights", Path(options.weights))
    return found


def with_whole_paths(model: ModelConfig) -> ModelConfig:
    """Return a model whose files of weights have names that mean the same ones from everywhere.

    Raises:
        ConfigError: as ``absolute``.
    """
    weights = replace(model.weights, file=_whole("model.weights", model.weights.file))
    layers = [
        replace(each, weights=_whole(f"model.layers.{number}.weights", each.weights))
        for number, each in enumerate(model.options, 1)
    ]
    return replace(model, weights=weights, layers=layers)


def _whole(key: str, path: str | None) -> str | None:
    return None if path is None else absolute(key, path)


def check_weights(config: Config) -> None:
    """Check that all that a run starts from is there and fits the network; nothing is written.

    Raises:
        ConfigError: a file is missing or none of weights, or a name is missing, unknown or ill-shaped.
    """
    if given_weights(config) and not any(_unbound(each) for each in config.model.options):
        for _ in starting_states(config):
            pass


def _unbound(options: object) -> bool:
    return getattr(options, "kind", None) == "instance" and not hasattr(options, "pair")


def starting_checkpoint(config: Config, run_dir: Path) -> tuple[Path, Manifest] | None:
    """Write the checkpoint of step 0 of a run that starts from given weights, None for any other.

    Raises:
        ConfigError: as ``check_weights``.
        StorageError: it can't be written.
    """
    if not given_weights(config) or config.parallel.virtual:
        return None
    folder = new_checkpoint(run_dir, 0)
    files = [write_layer(folder, index, state) for index, state in starting_states(config)]
    origin = origin_of(config)
    manifest = Manifest(
        step=0,
        epoch=0,
        phase=Phase.BOTH,
        seed=origin.seed,
        config_sha256=origin.config_sha256,
        files=tuple(files),
        totals=TotalsState(0, 0, 0.0, [], {}, {}, {}),
    )
    complete_checkpoint(folder, manifest, config.train.keep_checkpoints)
    return folder, manifest


def starting_states(config: Config) -> Iterator[tuple[int, Tensors]]:
    """Yield each layer's number and the state that it starts with, without that of optimizers.

    Raises:
        ConfigError: as ``check_weights``, at the latest after the last layer.
    """
    given, shapes, rule = given_weights(config), shapes_of(config), config.build_rule()
    reading, first = _Reading(config), 0
    for index, options in enumerate(config.model.options, 1):
        layer = build_layer(options, index, shapes, rule, config.optimizer.pair, seed=config.seed)
        state = layer_state(layer)
        count = len(layer.f.torch_modules())
        if index in given:
            state |= reading.of_layer(given[index], layer, state, range(first, first + count))
        yield index, state
        first += count
    reading.refuse_rest(given)


class _Reading:
    """The files that are read, and what of each of them was taken."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._files: dict[Path, WeightsFile] = {}
        self._taken: dict[Path, set[str]] = {}

    def of_layer(self, given: Given, layer: Layer, state: Tensors, modules: range) -> Tensors:
        """Return what a file has in place of a layer's state.

        Args:
            modules: the numbers that the layer's modules have in an exported network.
        """
        path = file_of_layer(given.key, given.path, layer.index)
        file = self._files.get(path) or self._files.setdefault(path, WeightsFile(given.key, path))
        if file.of_layer:
            self._refuse_single(given, file)
            names = _checkpoint_names(file, state)
        else:
            names = self._plain_names(file, layer, modules)
        self._taken.setdefault(path, set()).update(names)
        return {mine: _fitting(file, theirs, state[mine], layer.index) for theirs, mine in names.items()}

    def _refuse_single(self, given: Given, file: WeightsFile) -> None:
        """Refuse one layer's file where that of all layers is due."""
        if given.key == "model.weights" and not given.path.is_dir() and len(self._config.model.options) > 1:
            text = "is one layer's file of a checkpoint; write its folder, or weights of that layer"
            raise file.error(text)

    def _plain_names(self, file: WeightsFile, layer: Layer, modules: range) -> Names:
        """Return the names in an exported network, or in a state dict of the layer's module alone."""
        own = _exported_names(layer)
        alone = {name: mine for (_, name), mine in own.items()} if len({at for at, _ in own}) == 1 else {}
        if alone and set(file.names) == set(alone) and not file.key.startswith("model.weights"):
            return alone
        first = modules.start + self._standardizes(file, layer)
        names = {f"{first + at}.{name}": mine for (at, name), mine in own.items()}
        _require(file, names, layer.index)
        places = {str(first + at) for at in range(len(modules))}
        _refuse(file, [name for name in file.names if name.partition(".")[0] in places and name not in names])
        return names

    def _standardizes(self, file: WeightsFile, layer: Layer) -> bool:
        """Return whether an exported network begins with a module that standardizes pixels."""
        found = set(file.names) >= STANDARDIZE
        if found and layer.index == 1 and self._config.data.normalize == "none":
            text = "is of a network that standardizes its pixels first; write data.normalize: standardize"
            raise file.error(text)
        return found

    def refuse_rest(self, given: Mapping[int, Given]) -> None:
        """Refuse what no layer takes of a file, or folder, that all layers take theirs from."""
        if len({each.path for each in given.values()}) != 1 or len(given) < len(self._config.model.options):
            return
        one = given[1]
        if one.path.is_dir():
            there, due = layers_in(one.path), len(given)
            if there > due:
                text = f"holds {there} layers and the network has {due}; name those to take"
                raise ConfigError(f"{one.key}: {one.path}: {text} with model.weights.layers")
            return
        file = self._files[one.path]
        _refuse(file, [name for name in file.names if name not in self._taken[one.path] | STANDARDIZE])


def _exported_names(layer: Layer) -> dict[tuple[int, str], str]:
    """Return the names in the layer's state by (module, name in its state dict), as ``export`` has them."""
    module = layer.f.module
    mine = {id(value): f"{FORWARD}{name}" for name, value in module.named_parameters()}
    mine |= {id(value): f"{BUFFER}{name}" for name, value in module.named_buffers()}
    return {
        (at, name): mine[id(value)]
        for at, each in enumerate(layer.f.torch_modules())
        for name, value in each.state_dict(keep_vars=True).items()
    }


def _checkpoint_names(file: WeightsFile, state: Tensors) -> Names:
    """Return the names in a layer's file of a checkpoint: all of f's, and g's where both have an inverse."""
    there = [name for name in file.names if OPTIMIZER not in name]
    both = any(name.startswith(INVERSE) for name in there)
    due = [name for name in state if name.startswith(FORWARD) or both]
    names = {name: name for name in due}
    _require(file, names)
    inverse = any(name.startswith(INVERSE) for name in state)
    _refuse(file, [name for name in there if name not in names and (inverse or not name.startswith(INVERSE))])
    return names


def _require(file: WeightsFile, names: Names, index: int | None = None) -> None:
    """Require all names of a layer.

    Raises:
        ConfigError: names the first that is missing.
    """
    missing = [name for name in names if name not in file.names]
    if missing:
        of = "the layer" if index is None else f"layer {index}"
        text = f"has no {missing[0]!r}, which {of} of the configuration needs"
        raise file.error(f"{text}; it holds {_some(file.names)}")


def _refuse(file: WeightsFile, names: Sequence[str]) -> None:
    """Refuse names that the network does not have.

    Raises:
        ConfigError: names them, if there are any.
    """
    if names:
        text = f"holds {_some(names)}, which the network of the configuration does not have"
        raise file.error(f"{text}; name the layers to take with model.weights.layers, or change the model")


def _some(names: Sequence[str]) -> str:
    """Return the first names of many, in words."""
    shown = ", ".join(map(repr, sorted(names)[:3])) or "nothing"
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _fitting(file: WeightsFile, name: str, due: Tensor, index: int) -> Tensor:
    """Return a tensor of a file in the type of the one that it replaces.

    Raises:
        ConfigError: it has another shape or kind of numbers, or is not finite.
    """
    found = file.tensor(name)
    if found.shape != due.shape:
        text = f"{name!r} has the shape {list(found.shape)}, but layer {index} needs {list(due.shape)}"
        raise file.error(text)
    if found.is_floating_point() != due.is_floating_point():
        raise file.error(f"{name!r} has numbers of type {found.dtype}, but layer {index} needs {due.dtype}")
    if not torch.isfinite(found).all():
        raise file.error(f"{name!r} holds numbers that are not finite; take weights from before they were so")
    return found.to(due.dtype)
