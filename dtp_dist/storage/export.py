"""The trained forward network as plain torch modules, from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from dtp_dist.algorithm import plain
from dtp_dist.algorithm.build import weights_generator
from dtp_dist.algorithm.layers import LayerOptions
from dtp_dist.algorithm.state import load_module
from dtp_dist.config import Config, shapes_of
from dtp_dist.config.batches import load_batches
from dtp_dist.data import Examples
from dtp_dist.data.batches import fits
from dtp_dist.errors import StorageError
from dtp_dist.storage.checkpoint import best_checkpoint, newest_checkpoint, read_layers
from dtp_dist.storage.data_file import normalized_like
from dtp_dist.storage.manifest import Manifest
from dtp_dist.storage.origin import origin_of
from dtp_dist.storage.run_files import DATA


@dataclass(frozen=True)
class Part:
    """Modules of the network, and where they come from.

    Attributes:
        modules: in their order.
        sources: for those modules, and for the ones in them, that users' functions make: what to import, and
            the expression that makes them.
    """

    modules: list[nn.Module]
    sources: Mapping[nn.Module, tuple[str, str]] = field(default_factory=dict)


def load_network(config: Config, checkpoint: Path, images: Examples | None = None) -> nn.Sequential:
    """Return the forward network with a checkpoint's weights, on the CPU and in evaluation mode.

    It takes pixels in [0, 1], shaped ``[B, *model.input]``. Keys: where ``images``, of the run's training
    split, are standardized, a first module does that; then every layer adds its torch modules in order, a
    dense layer a ``Linear`` and its activation, so that ``nn.Sequential(nn.Linear(784, 240), nn.Tanh(),
    ...)`` loads them.

    Args:
        images: of the training split; needed unless ``data.normalize=none``.

    Raises:
        StorageError: a file is missing, damaged or of another network.
    """
    return network_of(load_parts(config, checkpoint, images))


def parts_of_run(run_dir: Path, config: Config, *, best: bool = False) -> tuple[Manifest, list[Part]]:
    """Return the manifest of a run's newest or best checkpoint, and the parts of its network.

    They are as ``load_network`` makes them. Where a run with ``data.normalize`` is not at its end, the data
    set is read again for mean and deviation.

    Raises:
        StorageError: there is no whole checkpoint, or ``data.json`` is damaged.
        DataError: the data set is needed and missing.
    """
    folder, manifest = (best_checkpoint if best else newest_checkpoint)(run_dir, origin_of(config))
    seen = None
    if config.data.normalize != "none":
        seen = normalized_like(run_dir)
        seen = load_batches(config)["train"].examples if seen is None else seen
        if not fits(seen.shape, config.model.shape):
            raise StorageError(f"{run_dir / DATA}: is damaged (its shape does not fit model.input)")
    return manifest, load_parts(config, folder, seen)


def network_of(parts: list[Part]) -> nn.Sequential:
    """Return the parts in sequence, in evaluation mode."""
    return nn.Sequential(*(module for part in parts for module in part.modules)).eval()


def load_parts(config: Config, checkpoint: Path, images: Examples | None = None) -> list[Part]:
    """Return the parts of the network that ``load_network`` returns.

    Raises:
        StorageError: as ``load_network``.
    """
    layers, shapes = config.model.options, shapes_of(config)
    parts = [Part([each]) for each in _first(images, shapes[0])]
    states = read_layers(checkpoint, len(layers))
    for index, (options, state) in enumerate(zip(layers, states, strict=True), 1):
        generator = weights_generator(config.seed, index)
        forward, _ = options.maps(shapes[index - 1], generator, inverse=False)
        try:
            load_module(forward.module, "forward", state)
        except (RuntimeError, KeyError) as error:
            text = str(error).splitlines()[-1].strip()
            raise StorageError(f"{checkpoint}: layer {index} does not fit {_name(options)}: {text}") from None
        parts.append(Part(forward.torch_modules(), options.sources(shapes[index - 1], forward)))
    return parts


def _first(images: Examples | None, shape: tuple[int, ...]) -> Iterator[nn.Module]:
    """Yield what standardizes inputs of ``shape`` as the images are, if they are."""
    if images is not None and images.mean is not None and images.deviation is not None:
        module = plain.Standardize(*shape)
        for buffer, value in ((module.mean, images.mean), (module.deviation, images.deviation)):
            each = value.view(-1, *[1] * (len(images.shape) - 1))
            buffer.copy_(each.expand(images.shape).reshape(shape))
        yield module


def _name(options: LayerOptions) -> str:
    return f"the {options.kind} layer of the configuration"


def state_dict_of(network: nn.Sequential) -> Mapping[str, Tensor]:
    """Return the network's state dict on the CPU, each tensor contiguous and in memory of its own.

    A weight under two names is there twice.
    """
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
