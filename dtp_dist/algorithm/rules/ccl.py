"""Counter-current learning (Kao, Hariharan 2024, arXiv 2409.19841), as the authors' code for classes has it.

A second stream runs from the labels down, ``c_{l-1} = g_l(c_l)``, with one row for each of the K classes, and
each hidden layer draws what it computes of an example towards the row of its class, and that row towards it.

Reduction: the mean over the minibatch and the K classes, divided by the layer's width, times ``scale``; the
output's loss is a mean over the minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.options import Positive, option
from dtp_dist.algorithm.precision import widened
from dtp_dist.algorithm.rules.base import LocalStep, Rule, RuleOptions, Seen, pull_forward
from dtp_dist.algorithm.rules.one_wave import OneWaveRule
from dtp_dist.phase import Phase


class CounterCurrentLearning(OneWaveRule):
    """``scale / width_l mean_{b,k} (<h_l(b), c_l(k)> - [class of b is k])^2`` trains f_l and g_{l+1}."""

    classes_alone = True

    def __init__(self, options: CCLOptions, layers: int) -> None:
        self.options, self.layers = options, layers

    def inverses(self) -> range:
        """g_2 .. g_L; the code has a g_1 as well, whose values nothing reads."""
        return range(2, self.layers + 1)

    def reads_input(self, layer: int, phase: Phase) -> bool:
        """The inverse's loss alone does."""
        return layer in self.inverses() and phase is not Phase.FORWARD

    def target_rows(self, outputs: int) -> int:
        """One for each class."""
        return outputs

    def first_signal(self, outputs: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """``c_L``: the classes' one-hot vectors."""
        return torch.eye(outputs, dtype=dtype, device=device)

    def next_signal(self, layer: Layer, signal: Tensor, call: Call) -> Tensor:
        """``c_{l-1} = g_l(c_l)``."""
        return layer.g(signal, call)

    def forward_update(self, layer: Layer, seen: Seen, call: Call) -> LocalStep:
        """Lower the layer's loss at today's weights and the stored input, c_l constant; f_L by its loss."""
        pullback = pull_forward(layer, seen.h_in, seen.h_out, call, stored=False)
        if layer.is_output:
            gap = seen.loss.gap(pullback.output, seen.labels) / len(seen.labels)
            return LocalStep(seen.loss.mean(widened(pullback.output), seen.labels), pullback.parameters(-gap))
        loss, slope = self._loss(pullback.output, seen.above, seen.labels)
        cotangent = (slope @ widened(seen.above).flatten(1)).to(pullback.output.dtype)
        return LocalStep(loss, pullback.parameters(cotangent.view_as(pullback.output)))

    def inverse_update(self, layer: Layer, seen: Seen, call: Call) -> LocalStep:
        """Lower the loss of the layer below by today's ``c_{l-1} = g_l(c_l)``, h_{l-1} constant."""
        pullback = layer.g.linearize(seen.above, call)
        loss, slope = self._loss(seen.h_in, pullback.output, seen.labels)
        cotangent = (slope.t() @ widened(seen.h_in).flatten(1)).to(pullback.output.dtype)
        return LocalStep(loss, pullback.parameters(cotangent.view_as(pullback.output)))

    def inverse_work(self, f: float, g: float, *, affine: bool) -> float:
        """g once forth and once back, each of as many rows as there are classes."""
        del f, affine
        return 2 * g

    def _loss(self, h: Tensor, signal: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return a layer's loss and its gradient by the products ``<h(b), c(k)>``, ``[B, K]``."""
        h, signal = widened(h).flatten(1), widened(signal).flatten(1)
        misses = h @ signal.t()
        misses[torch.arange(len(labels), device=labels.device), labels] -= 1.0
        factor = self.options.scale / (h.shape[1] * misses.numel())
        return misses.square().sum() * factor, misses * (2.0 * factor)


@dataclass(frozen=True, kw_only=True)
class CCLOptions(RuleOptions):
    """Counter-current learning."""

    name: str = option("ccl", doc="ccl")
    scale: Positive = option(
        128.0,
        doc="factor of the hidden layers' losses; the authors have 0.5 times 256, whatever the minibatch",
    )

    def build(self, layers: int) -> Rule:
        """Return the rule."""
        return CounterCurrentLearning(self, layers)
