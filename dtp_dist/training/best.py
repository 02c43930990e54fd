"""Which evaluation is the best so far, by the run's chief metric on the validation split."""

from __future__ import annotations

from collections.abc import Container
from math import isfinite

from dtp_dist.config.schema import TrainConfig
from dtp_dist.storage.manifest import Mark
from dtp_dist.text.measures import chief_metric
from dtp_dist.training.totals import Totals


def judged_by(known: Container[str]) -> str:
    """Return the name of the value that evaluations are compared by, the lower the better.

    ``known``: the names of all that an evaluation has measured.
    """
    return f"valid_{chief_metric(known)}"


def judge(train: TrainConfig, totals: Totals) -> bool:
    """Compare the newest evaluation with those before it; returns whether it is the best, as the first is."""
    value = totals.evaluated.get(judged_by(totals.evaluated))
    if not train.keep_best or value is None or not isfinite(value):
        return False
    if totals.best is not None and value >= totals.best.value:
        return False
    totals.best = Mark(totals.step, totals.epoch, value)
    return True
