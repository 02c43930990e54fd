"""The output's loss and metrics, of one pass or averaged over several sampled ones.

Shapes: outputs ``[B, K]``; labels int64 ``[B]`` or float32 ``[B, K]``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dtp_dist.algorithm.losses.base import Loss, classes_in
from dtp_dist.algorithm.losses.metrics import R2Sums
from dtp_dist.algorithm.precision import widened


class OutputMeasure:
    """Loss and metrics of minibatches that each come ``passes`` times in a row.

    With several passes what the outputs predict (probabilities, or numbers) is averaged before it is judged,
    as Lee et al. 2015 (section 3.3) and Raiko et al. 2015 do for networks of binary samples.

    Args:
        whole: the minibatches are a whole split, each example once, so that it has metrics of its own.
    """

    def __init__(self, loss: Loss, passes: int = 1, *, whole: bool = False) -> None:
        self.loss, self.passes = loss, passes
        self._seen = 0
        self._sum: Tensor | None = None
        self._whole = whole
        self._r2: R2Sums | None = None

    def __call__(self, outputs: Tensor, labels: Tensor) -> dict[str, float] | None:
        """Return ``loss`` and the metrics, means over examples, or None before a minibatch's last pass."""
        wide = self._averaged(widened(outputs))
        if wide is None:
            return None
        metrics = self.loss.metrics(classes_in(labels, outputs.shape[1]))
        mean = self.loss.mean(wide, labels)
        sums = [each.to(mean.dtype) for each in metrics.sums(wide, labels)]
        loss, *values = torch.stack([mean, *sums]).tolist()
        if self._whole and metrics.of_split:
            self._r2 = self._r2 or R2Sums()
            self._r2.add(wide, labels)
        means = [metrics.scale * value / len(labels) for value in values]
        return {"loss": loss, **dict(zip(metrics.names, means, strict=True))}

    def of_split(self) -> dict[str, float]:
        """Return what only a whole split has, once all of it has come."""
        return {} if self._r2 is None else {"r2_score": self._r2.score()}

    def _averaged(self, wide: Tensor) -> Tensor | None:
        """Return the outputs to be judged, None before a minibatch's last pass."""
        if self.passes == 1:
            return wide
        predicted = self.loss.predicted(wide)
        self._sum = predicted if self._sum is None else self._sum + predicted
        self._seen += 1
        if self._seen < self.passes:
            return None
        mean, self._sum, self._seen = self._sum / self.passes, None, 0
        return self.loss.outputs(mean)
