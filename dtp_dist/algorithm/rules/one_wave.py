"""Rules whose targets are a stream of their own: T reads nothing of F, and the two meet in U.

A *signal* c_l takes the place of a displacement: the last stage makes c_L, and c_{l-1} follows from c_l
through g_l. What it has rows for is the rule's to say; for the shapes of one row, h_l's hold.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from dtp_dist.algorithm.layers.base import Layer
from dtp_dist.algorithm.losses.base import Loss
from dtp_dist.algorithm.maps.base import Call
from dtp_dist.algorithm.rules.base import LocalStep, Rule
from dtp_dist.flow import Flow


class OneWaveRule(Rule):
    """F and T of a minibatch run at the same time; forward maps and inverses learn in U."""

    def flow(self) -> Flow:
        """T needs nothing of F, inverses learn in U."""
        return Flow(inverse_in="U", target_reads_forward=False)

    @abstractmethod
    def target_rows(self, outputs: int) -> int:
        """Return how many rows a signal has, given the number of outputs."""

    @abstractmethod
    def first_signal(self, outputs: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return c_L, ``[rows, outputs]``, the same in every minibatch."""

    @abstractmethod
    def next_signal(self, layer: Layer, signal: Tensor, call: Call) -> Tensor:
        """Return c_{l-1} from c_l."""

    def output(self, outputs: Tensor, labels: Tensor, loss: Loss) -> Tensor:
        """Never called: there are no displacements."""
        raise AssertionError("the last stage begins with first_signal")

    def propagate(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> Tensor:
        """Never called: there are no displacements."""
        raise AssertionError("a layer answers with next_signal")

    def forward_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, delta: Tensor, call: Call) -> LocalStep:
        """Never called: U has more to tell than a displacement."""
        raise AssertionError("forward maps learn in forward_update")

    def inverse_step(self, layer: Layer, h_in: Tensor, h_out: Tensor, sigma: float, call: Call) -> LocalStep:
        """Never called: there is no I."""
        raise AssertionError("inverses learn in inverse_update")
