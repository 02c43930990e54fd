"""A checkpoint looked at in the driver, off the stages' path: a few examples go up and down in it.

No stage is built for it, for stages have optimizers, whose first one takes torch seconds to import.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dtp_dist.algorithm.alignment import BACKPROPAGATION, Passage
from dtp_dist.algorithm.build import build_layer
from dtp_dist.algorithm.layers import BoundInstance, LayerOptions
from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.losses import Loss
from dtp_dist.algorithm.maps.base import Call, Mode
from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.algorithm.rules.base import Rule, Seen
from dtp_dist.algorithm.rules.one_wave import OneWaveRule
from dtp_dist.algorithm.state import load_layer_state
from dtp_dist.config import Config, shapes_of
from dtp_dist.data import Batches, Examples
from dtp_dist.storage.checkpoint import Manifest, read_layers

EXAMPLES = 200
PHASE = "probe"  # whose random numbers are no other phase's


@dataclass(frozen=True)
class Found:
    """What a checkpoint does with a minibatch.

    Attributes:
        x: the examples, ``[B, *input_shape]``.
        passages: through each layer, bottom first, after F and T.
    """

    rule: Rule
    x: Tensor
    passages: list[Passage]


class Probe:
    """Layers like the run's, on the CPU, which take the weights of one checkpoint after another.

    Nothing of the run is touched: parameters, buffers and random numbers are its own.
    """

    def __init__(self, config: Config, examples: Examples) -> None:
        options, shapes = config.model.options, shapes_of(config)
        self._seed, self._rule, self._loss = config.seed, config.build_rule(), config.build_loss()
        self._layers = [
            build_layer(_own(each), number, shapes, self._rule, config.optimizer.pair, seed=config.seed)
            for number, each in enumerate(options, 1)
        ]
        self._x, self._labels = Batches(examples, config.model.shape, EXAMPLES, shuffle=False).minibatch(0, 0)

    def look(self, folder: Path, manifest: Manifest) -> Found:
        """Return what the checkpoint in ``folder`` does with the first ``EXAMPLES`` examples.

        Raises:
            StorageError: a file is missing or damaged.
        """
        layers = self._layers
        for layer, state in zip(layers, read_layers(folder, len(layers)), strict=True):
            weights = {name: state[name] for name in state if ".optimizer." not in name}
            load_layer_state(layer, weights)
        calls = [
            Call(Randomness(self._seed, layer.index, manifest.step, PHASE), epoch=manifest.epoch)
            for layer in layers
        ]
        found = passages(self._rule, self._loss, layers, calls, self._x, self._labels)
        return Found(self._rule, self._x, found)


def passages(
    rule: Rule, loss: Loss, layers: Sequence[Layer], calls: Sequence[Call], x: Tensor, labels: Tensor
) -> list[Passage]:
    """Return how a minibatch goes up and down through a whole network, bottom first.

    Args:
        calls: each layer's, in mode LOCAL.
        x: ``[B, *input_shape]``, with labels as the loss takes them.
    """
    activations, at_layer = [x], []
    for layer, call in zip(layers, calls, strict=True):
        h, context = layer.f.with_context(activations[-1], replace(call, mode=Mode.FORWARD))
        activations.append(h)
        at_layer.append(replace(call, context=context))
    descent, signal = BACKPROPAGATION.output(h, labels, loss), _first(rule, loss, h, labels)
    found: list[Passage] = []
    for layer, call in reversed(list(zip(layers, at_layer, strict=True))):
        h_in, h_out = activations[layer.index - 1 : layer.index + 1]
        delta = rule.displacement(layer, h_out, signal, call)
        at = Passage(layer, Seen(h_in, h_out, delta, None, labels, loss), descent, call)
        found.append(at)
        if layer.index > 1:
            signal = _below(rule, at, signal).contiguous()
            descent = at.below()
    return found[::-1]


def _first(rule: Rule, loss: Loss, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return what the rule's T begins with."""
    if isinstance(rule, OneWaveRule):
        return rule.first_signal(outputs.shape[1], outputs.dtype, outputs.device)
    return rule.output(outputs, labels, loss)


def _below(rule: Rule, at: Passage, signal: Tensor) -> Tensor:
    """Return what the rule sends to the layer below."""
    if isinstance(rule, OneWaveRule):
        return rule.next_signal(at.layer, signal, at.call.inverse())
    return rule.propagate(at.layer, at.h_in, at.h_out, signal, at.call)


def _own(options: LayerOptions) -> LayerOptions:
    """Return options that do not make the very modules that train."""
    return replace(options, pair=deepcopy(options.pair)) if isinstance(options, BoundInstance) else options


@contextmanager
def one_thread() -> Iterator[None]:
    """Leave the other cores to the stages."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
