"""A layer's whole state as named tensors, and the hash by which runs are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.optimizers.groups import OptimizedMap
from dtp_dist.algorithm.optimizers.kept import kept_tensors, load_kept

Tensors = dict[str, Tensor]


def layer_state(layer: Layer) -> Tensors:
    """Return parameters, buffers and optimizer tensors under ``forward.`` and ``inverse.``, on the CPU.

    Names: ``forward.weight``; buffers ``forward.buffer.NAME``; ``forward.optimizer.0.exp_avg``, where the
    number is the parameter's (``kept_tensors``).
    """
    found: Tensors = {}
    for side, learner in _learners(layer).items():
        module = learner.map.module
        for name, parameter in module.named_parameters():
            found[f"{side}.{name}"] = _copy(parameter)
        for name, buffer in module.named_buffers():
            found[f"{side}.buffer.{name}"] = _copy(buffer)
        if learner.optimizers:
            for name, value in kept_tensors(learner.optimizers, learner.map.parameters()).items():
                found[f"{side}.optimizer.{name}"] = _copy(value)
    return found


def load_layer_state(layer: Layer, state: Mapping[str, Tensor]) -> None:
    """Put back what ``layer_state`` returned; weights are copied into place, so their strides stay.

    Raises:
        KeyError: a tensor is missing.
        RuntimeError: a shape does not fit.
    """
    for side, learner in _learners(layer).items():
        load_module(learner.map.module, side, state)
        _load_optimizer(learner, f"{side}.optimizer.", state)


def load_module(module: nn.Module, side: str, state: Mapping[str, Tensor]) -> None:
    """Put the parameters and buffers of one ``side`` of a layer's state back into its module.

    Raises:
        KeyError: a tensor is missing.
        RuntimeError: a shape does not fit.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(state[f"{side}.{name}"])
        for name, buffer in module.named_buffers():
            buffer.copy_(state[f"{side}.buffer.{name}"])


def weights_sha256(states: Iterable[Mapping[str, Tensor]]) -> str:
    """Return the hash of all layers' states, in layer order (design, section 4).

    SHA-256 over all forward parameters, then all inverse parameters, then buffers, as little-endian
    float32 bytes. Nothing else is asked of a state, and one tensor at a time.
    """
    layers = list(states)
    digest = hashlib.sha256()
    for chosen in (_is_forward, _is_inverse, _is_buffer):
        for state in layers:
            for name in filter(chosen, state):
                value = state[name].detach().to("cpu", torch.float32).contiguous()
                digest.update(value.numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def _is_forward(name: str) -> bool:
    return name.startswith("forward.") and not _is_extra(name)


def _is_inverse(name: str) -> bool:
    return name.startswith("inverse.") and not _is_extra(name)


def _is_extra(name: str) -> bool:
    return name.split(".")[1] in ("optimizer", "buffer")


def _is_buffer(name: str) -> bool:
    return name.split(".")[1] == "buffer"


def _learners(layer: Layer) -> dict[str, OptimizedMap]:
    found = {"forward": layer.forward}
    if layer.inverse is not None:
        found["inverse"] = layer.inverse
    return found


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu").clone().contiguous()


def _load_optimizer(learner: OptimizedMap, prefix: str, state: Mapping[str, Tensor]) -> None:
    kept = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if learner.optimizers:
        load_kept(learner.optimizers, learner.map.parameters(), kept)
    elif kept:
        raise RuntimeError("the layer has no optimizer to load into yet; put it in a stage first")
