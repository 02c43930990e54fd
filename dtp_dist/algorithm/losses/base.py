"""What a loss decides: its gradient and its value at the output, and what its outputs are measured by.

Every loss is summed over units and averaged over the minibatch, without 1/2.

Shapes: outputs ``[B, K]``; labels, what the data say of each example, int64 ``[B]`` (its class, 0 to K - 1)
or float32 ``[B, K]`` (a number for each output).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from dtp_dist.algorithm.losses.metrics import ClassMetrics, Metrics


class Loss(ABC):
    """A loss of the network's outputs: pure functions of one minibatch's tensors.

    Attributes:
        of_numbers: what is measured where labels are numbers; None for a loss that takes classes alone.
        numbers: what those numbers must be, in words.
        called: what an exported network's outputs are called.
        predictions: the expression of what they predict, and what that is.
        slope: the gap over what is lacking: what is desired, less what is predicted (``shown``).
        grows_with_labels: whether its value is in the labels' own units, so that no number is large as such.
    """

    of_numbers: ClassVar[Metrics | None] = None
    numbers: ClassVar[str] = "that are finite"
    called: ClassVar[str] = "logits"
    predictions: ClassVar[tuple[str, str]]
    slope: ClassVar[float] = 1.0
    grows_with_labels: ClassVar[bool] = False

    @abstractmethod
    def gap(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return minus the gradient of each example's loss, without 1/B: ``[B, K]`` in the outputs' type."""

    @abstractmethod
    def mean(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean of the examples' losses, 0-dimensional; outputs are float32 at least."""

    @abstractmethod
    def predicted(self, outputs: Tensor) -> Tensor:
        """Return what the outputs predict, as it is averaged over several sampled passes; of any shape."""

    @abstractmethod
    def outputs(self, predicted: Tensor) -> Tensor:
        """Return outputs that predict ``predicted``: ``[B, K]``."""

    def shown(self, predicted: Tensor) -> Tensor:
        """Return ``predicted`` as people read it: a probability or a number for each output, ``[B, K]``."""
        return predicted

    def allowed(self, labels: Tensor) -> Tensor:
        """Return which numbers may be labels: bool, of labels' shape."""
        return torch.isfinite(labels)

    def metrics(self, classes: int | None) -> Metrics:
        """Return what outputs are measured by: by so many classes, or by numbers (None)."""
        if classes is not None:
            return ClassMetrics(classes)
        assert self.of_numbers is not None, f"{type(self).__name__} takes classes alone"
        return self.of_numbers


def classes_in(labels: Tensor, outputs: int) -> int | None:
    """Return how many classes labels are of, given the number of outputs; None where they are numbers."""
    return outputs if labels.dim() == 1 else None


def desired(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return what the outputs should be: the labels, or 1 at the class and 0 elsewhere.

    ``[B, K]``, in the outputs' type widened to float32 at least.
    """
    wide = torch.promote_types(outputs.dtype, torch.float32)
    if labels.dim() == 1:
        one_hot = torch.zeros(outputs.shape, dtype=wide, device=outputs.device)
        return one_hot.scatter_(1, labels.unsqueeze(1), 1.0)
    assert labels.shape == outputs.shape, f"labels {list(labels.shape)} of outputs {list(outputs.shape)}"
    return labels.to(wide)
