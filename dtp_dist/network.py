"""The trained forward network as plain torch modules, from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.layers import LayerOptions
from dtp_dist.checkpoint import read_layers
from dtp_dist.config import Config, shapes_of
from dtp_dist.errors import CheckpointError


def load_network(config: Config, checkpoint: Path) -> nn.Sequential:
    """Return the forward network with a checkpoint's weights, on the CPU and in evaluation mode.

    Keys: every layer adds its torch modules in order, a dense layer a ``Linear`` and its activation, so that
    an ordinary ``nn.Sequential(nn.Linear(784, 240), nn.Tanh(), ...)`` loads them.

    Raises:
        CheckpointError: a file is missing, damaged or of another network.
    """
    modules: list[nn.Module] = []
    layers, shapes = config.model.options, shapes_of(config)
    states = read_layers(checkpoint, len(layers))
    for index, (options, state) in enumerate(zip(layers, states, strict=True), 1):
        forward, _ = options.maps(shapes[index - 1], torch.Generator(), inverse=False)
        try:
            forward.module.load_state_dict(_forward_state(state, forward.module))
        except (RuntimeError, KeyError) as error:
            text = str(error).splitlines()[-1].strip()
            raise CheckpointError(
                f"{checkpoint}: layer {index} does not fit {_name(options)}: {text}"
            ) from None
        modules.extend(forward.torch_modules())
    return nn.Sequential(*modules).eval()


def _name(options: LayerOptions) -> str:
    return f"the {options.kind} layer of the configuration"


def _forward_state(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    buffers = {name for name, _ in module.named_buffers()}
    return {
        name: state[f"forward.buffer.{name}" if name in buffers else f"forward.{name}"]
        for name in module.state_dict()
    }


def state_dict_of(network: nn.Sequential) -> Mapping[str, Tensor]:
    """Return the network's state dict, each tensor contiguous and on the CPU."""
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def describe(modules: Sequence[nn.Module]) -> str:
    """Return the Python expression that makes the modules, where ``extra_repr`` tells all their arguments."""
    return f"nn.Sequential({', '.join(_expression(module) for module in modules)})"


def _expression(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        bias = "" if module.bias is not None else ", bias=False"
        return f"nn.Linear({module.in_features}, {module.out_features}{bias})"
    path = type(module).__module__
    return f"{'nn' if path.startswith('torch.nn.') else path}.{type(module).__name__}({module.extra_repr()})"
