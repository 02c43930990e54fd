"""Squared error, for numbers, and for classes as one-hot numbers."""

from __future__ import annotations

from torch import Tensor

from dtp_dist.algorithm.losses.base import Loss, desired
from dtp_dist.algorithm.losses.metrics import NumberMetrics
from dtp_dist.algorithm.precision import widened


class SquaredError(Loss):
    """``sum_k (o_k - y_k)^2``, without 1/2: K times torch's ``mse_loss``, which averages over units too.

    A class stands for 1 at its own output and 0 at all others.
    """

    of_numbers = NumberMetrics()
    called = "numbers"
    predictions = ("numbers", "in the labels' own units; of classes, the largest is the class")
    slope = 2.0
    grows_with_labels = True

    def gap(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """``2 (y - o)``."""
        return (desired(outputs, labels) - widened(outputs)).mul_(2.0).to(outputs.dtype)

    def mean(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs - desired(outputs, labels)).square().sum(1).mean()

    def predicted(self, outputs: Tensor) -> Tensor:
        """The outputs themselves."""
        return outputs

    def outputs(self, predicted: Tensor) -> Tensor:
        return predicted
