"""Binary cross-entropy, a sigmoid for each output: several labels at once, or a class against all others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dtp_dist.algorithm.losses.base import Loss, desired
from dtp_dist.algorithm.losses.metrics import LabelMetrics
from dtp_dist.algorithm.precision import widened


class BinaryCrossEntropy(Loss):
    """``-sum_k y_k log sigmoid(o_k) + (1 - y_k) log sigmoid(-o_k)``.

    K times torch's ``binary_cross_entropy_with_logits``, which averages over units too. A class stands for 1
    at its own output and 0 at all others.
    """

    of_numbers = LabelMetrics()
    numbers = "from 0 to 1"
    predictions = ("sigmoid(logits)", "the probability of each label")

    def gap(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """``y - sigmoid(o)``."""
        return (desired(outputs, labels) - torch.sigmoid(widened(outputs))).to(outputs.dtype)

    def mean(self, outputs: Tensor, labels: Tensor) -> Tensor:
        wanted = desired(outputs, labels)
        total: Tensor = functional.binary_cross_entropy_with_logits(outputs, wanted, reduction="sum")
        return total / len(outputs)

    def predicted(self, outputs: Tensor) -> Tensor:
        """The probabilities that a label is present and that it is absent: ``[2, B, K]``."""
        return torch.stack([torch.sigmoid(outputs), torch.sigmoid(-outputs)])

    def outputs(self, predicted: Tensor) -> Tensor:
        logarithms = predicted.clamp_min(torch.finfo(predicted.dtype).tiny).log()
        return logarithms[0] - logarithms[1]

    def shown(self, predicted: Tensor) -> Tensor:
        """The probability that each label is present."""
        return predicted[0]

    def allowed(self, labels: Tensor) -> Tensor:
        return (labels >= 0) & (labels <= 1)
