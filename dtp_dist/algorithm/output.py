"""The output's loss and error, of one pass or averaged over several sampled ones.

Shapes: logits ``[B, classes]``, labels ``[B]`` int64.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss


class OutputMeasure:
    """Cross-entropy and error of minibatches that each come ``passes`` times in a row.

    With several passes the output probabilities are averaged before they are judged, as Lee et al. 2015
    (section 3.3) and Raiko et al. 2015 do for networks of binary samples.
    """

    def __init__(self, passes: int = 1) -> None:
        self.passes = passes
        self._seen = 0
        self._sum: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Tensor) -> tuple[float, float] | None:
        """Return (mean cross-entropy, error in percent), or None before a minibatch's last pass."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.passes > 1:
            probabilities = torch.softmax(wide, dim=-1)
            self._sum = probabilities if self._sum is None else self._sum.add_(probabilities)
            self._seen += 1
            if self._seen < self.passes:
                return None
            tiny = torch.finfo(wide.dtype).tiny
            wide, self._sum, self._seen = (self._sum / self.passes).clamp_min_(tiny).log_(), None, 0
            loss = nll_loss(wide, labels)
        else:
            loss = cross_entropy(wide, labels)
        wrong = (wide.argmax(dim=-1) != labels).sum().to(loss.dtype)
        values = torch.stack([loss, wrong]).tolist()
        return values[0], 100.0 * values[1] / len(labels)
