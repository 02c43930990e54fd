"""A layer's whole state as named tensors, and the hash by which runs are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.learners import Learner, laid_out_like

Tensors = dict[str, Tensor]


def layer_state(layer: Layer) -> Tensors:
    """Return parameters, buffers and optimizer tensors under ``forward.`` and ``inverse.``, on the CPU.

    Names: ``forward.weight``; buffers ``forward.buffer.NAME``; ``forward.optimizer.0.exp_avg``, where the
    number is the parameter's.
    """
    found: Tensors = {}
    for side, learner in _learners(layer).items():
        module = learner.map.module
        for name, parameter in module.named_parameters():
            found[f"{side}.{name}"] = _copy(parameter)
        for name, buffer in module.named_buffers():
            found[f"{side}.buffer.{name}"] = _copy(buffer)
        for number, values in _optimizer_state(learner).items():
            for name, value in values.items():
                found[f"{side}.optimizer.{number}.{name}"] = _copy(torch.as_tensor(value))
    return found


def load_layer_state(layer: Layer, state: Mapping[str, Tensor]) -> None:
    """Put back what ``layer_state`` returned; weights are copied into place, so their strides stay.

    Raises:
        KeyError: a tensor is missing.
        RuntimeError: a shape does not fit.
    """
    for side, learner in _learners(layer).items():
        module = learner.map.module
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(state[f"{side}.{name}"])
            for name, buffer in module.named_buffers():
                buffer.copy_(state[f"{side}.buffer.{name}"])
        _load_optimizer(learner, f"{side}.optimizer.", state)


def weights_sha256(states: Iterable[Mapping[str, Tensor]]) -> str:
    """Return the hash of all layers' states, in layer order (design, section 4).

    SHA-256 over all forward parameters, then all inverse parameters, then buffers, as little-endian
    float32 bytes.
    """
    layers = list(states)
    digest = hashlib.sha256()
    for chosen in (_is_forward, _is_inverse, _is_buffer):
        for state in layers:
            for name, value in state.items():
                if chosen(name):
                    digest.update(
                        value.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4").tobytes()
                    )
    return digest.hexdigest()


def _is_forward(name: str) -> bool:
    return name.startswith("forward.") and not _is_extra(name)


def _is_inverse(name: str) -> bool:
    return name.startswith("inverse.") and not _is_extra(name)


def _is_extra(name: str) -> bool:
    return name.split(".")[1] in ("optimizer", "buffer")


def _is_buffer(name: str) -> bool:
    return name.split(".")[1] == "buffer"


def _learners(layer: Layer) -> dict[str, Learner]:
    found = {"forward": layer.forward}
    if layer.inverse is not None:
        found["inverse"] = layer.inverse
    return found


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu").clone().contiguous()


def _optimizer_state(learner: Learner) -> dict[int, dict[str, Any]]:
    if learner.optimizer is None:
        return {}
    state = learner.optimizer.state
    return {
        number: {name: value for name, value in state[parameter].items() if value is not None}
        for number, parameter in enumerate(learner.map.parameters())
        if parameter in state
    }


def _load_optimizer(learner: Learner, prefix: str, state: Mapping[str, Tensor]) -> None:
    if learner.optimizer is None:
        if any(name.startswith(prefix) for name in state):
            raise RuntimeError("the layer has no optimizer to load into yet; put it in a stage first")
        return
    for number, parameter in enumerate(learner.map.parameters()):
        start = f"{prefix}{number}."
        learner.optimizer.state[parameter] = {
            name.removeprefix(start): _restored(value, parameter)
            for name, value in state.items()
            if name.startswith(start)
        }


def _restored(value: Tensor, parameter: Tensor) -> Tensor:
    value = value.clone().to(parameter.device)
    return laid_out_like(parameter, value) if value.shape == parameter.shape else value
