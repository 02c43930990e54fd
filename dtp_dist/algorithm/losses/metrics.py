"""What outputs are measured by, named as torchmetrics names it; ``dtp_dist.text.measures`` has the words.

Shapes: outputs ``[B, K]`` float32 or wider; labels int64 ``[B]`` or float32 ``[B, K]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

TOP = 5


class Metrics(Protocol):
    """What is measured of one kind of labels.

    Attributes:
        names: of the means over examples.
        scale: what a mean of 1 is shown as.
        of_split: of what only a whole split has, from sums over it.
    """

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def scale(self) -> float: ...

    @property
    def of_split(self) -> Sequence[str]: ...

    def sums(self, outputs: Tensor, labels: Tensor) -> list[Tensor]:
        """Return for each of ``names`` the sum over the minibatch's examples, 0-dimensional."""
        ...


class ClassMetrics:
    """Of classes: how often another's output is the largest; with more than five, how often the five largest.

    In percent: 100 less torchmetrics' ``multiclass_accuracy(average="micro")``, with ``top_k`` 1 and 5. Of
    equal outputs the first counts as larger.
    """

    scale, of_split = 100.0, ()

    def __init__(self, classes: int) -> None:
        self.names = ("error", f"top_{TOP}_error") if classes > TOP else ("error",)

    def sums(self, outputs: Tensor, labels: Tensor) -> list[Tensor]:
        wrong = [outputs.argmax(dim=-1) != labels]
        if len(self.names) > 1:
            wrong.append(_outputs_ahead(outputs, labels) >= TOP)
        return [each.sum() for each in wrong]


def _outputs_ahead(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return how many outputs are larger than the label's, or as large and before it: int64 ``[B]``."""
    at = labels.unsqueeze(1)
    own = outputs.gather(1, at)
    earlier = torch.arange(outputs.shape[1], device=outputs.device) < at
    return ((outputs > own) | ((outputs == own) & earlier)).sum(1)


class NumberMetrics:
    """Of numbers: the mean absolute error, and of a whole split the coefficient of determination.

    torchmetrics' ``mean_absolute_error``, over examples and columns, and ``r2_score`` (``uniform_average``).
    """

    names = ("mean_absolute_error",)
    scale, of_split = 1.0, ("r2_score",)

    def sums(self, outputs: Tensor, labels: Tensor) -> list[Tensor]:
        return [(outputs - labels).abs().mean(1).sum()]


class LabelMetrics:
    """Of several labels at once, present (above 0.5) or not: the share of labels and of examples.

    torchmetrics' ``multilabel_hamming_distance``, the share of labels that are wrong, and
    ``multilabel_exact_match``, the share of examples all of whose labels are right. An output above 0, of
    probability 1/2, says present.
    """

    names = ("hamming_distance", "exact_match")
    scale, of_split = 1.0, ()

    def sums(self, outputs: Tensor, labels: Tensor) -> list[Tensor]:
        wrong = ((outputs > 0) != (labels > 0.5)).to(outputs.dtype)
        return [wrong.mean(1).sum(), (wrong.amax(1) == 0).sum()]


class R2Sums:
    """The coefficient of determination of a split, from float64 sums, added up minibatch by minibatch.

    Labels are counted from the first example's, so that what they have in common costs no digits.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None
        self._sums: Tensor | None = None
        self._examples = 0

    def add(self, outputs: Tensor, labels: Tensor) -> None:
        """Count a minibatch: both ``[B, K]``."""
        wide = labels.to(torch.float64)
        if self._first is None:
            self._first = wide[0].clone()
        residual, moved = outputs.to(torch.float64) - wide, wide - self._first
        found = torch.stack([residual.square().sum(0), moved.square().sum(0), moved.sum(0)])
        self._sums = found if self._sums is None else self._sums + found
        self._examples += len(labels)

    def score(self) -> float:
        """Return ``1 - sum (y - o)^2 / sum (y - mean y)^2``, averaged over the columns.

        A column whose labels are all alike has 1 where the outputs are right and 0 where they are not, as in
        torchmetrics and scikit-learn.
        """
        assert self._sums is not None, "nothing was counted"
        residual, squares, total = self._sums
        spread = (squares - total.square() / self._examples).clamp_min(0.0)
        constant = spread == 0
        share = residual / torch.where(constant, 1.0, spread)
        return float(torch.where(constant, (residual == 0).to(share.dtype), 1.0 - share).mean())
