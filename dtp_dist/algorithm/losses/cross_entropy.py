"""Cross-entropy of softmax, for classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dtp_dist.algorithm.losses.base import Loss
from dtp_dist.algorithm.precision import widened


class CrossEntropy(Loss):
    """``-sum_k q_k log softmax(o)_k`` with ``q = (1 - s) onehot(label) + s / K``; torch's ``cross_entropy``.

    Args:
        smoothing: s, the share of the label that is spread evenly over all classes.
    """

    predictions = ("softmax(logits)", "the probability of each class")

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing

    def gap(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """``q - softmax(o)``."""
        probabilities = torch.softmax(widened(outputs), dim=-1).neg_()
        if self.smoothing:
            probabilities += self.smoothing / outputs.shape[-1]
        probabilities[torch.arange(len(labels), device=labels.device), labels] += 1 - self.smoothing
        return probabilities.to(outputs.dtype)

    def mean(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, labels, label_smoothing=self.smoothing)

    def predicted(self, outputs: Tensor) -> Tensor:
        """The classes' probabilities."""
        return torch.softmax(outputs, dim=-1)

    def outputs(self, predicted: Tensor) -> Tensor:
        return predicted.clamp_min(torch.finfo(predicted.dtype).tiny).log()
