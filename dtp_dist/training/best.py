"""Which evaluation is the best so far, by the chief metric on the validation split, and how long ago."""

from __future__ import annotations

from collections.abc import Container
from math import isfinite

from dtp_dist.config.schema import TrainConfig
from dtp_dist.storage.manifest import Mark, TotalsState
from dtp_dist.text.measures import MEASURES, chief_metric
from dtp_dist.training.totals import Totals


def judged_by(known: Container[str]) -> str:
    """Return the name of the value that evaluations are compared by, the lower the better.

    ``known``: the names of all that an evaluation has measured.
    """
    return f"valid_{chief_metric(known)}"


def judge(train: TrainConfig, totals: Totals) -> bool:
    """Compare the newest evaluation with those before it.

    Returns whether it is the best, as the first is, and its checkpoint is to be kept.
    """
    value = totals.evaluated.get(judged_by(totals.evaluated))
    if value is None or not isfinite(value):
        return False
    mark = Mark(totals.step, totals.epoch, value)
    _wait(train, totals, mark)
    if not train.keep_best or (totals.best is not None and value >= totals.best.value):
        return False
    totals.best = mark
    return True


def _wait(train: TrainConfig, totals: Totals, mark: Mark) -> None:
    """Count the epochs since the last improvement, where somebody asks for them."""
    if train.patience is None:
        totals.improved = None
    elif totals.improved is None or mark.value < totals.improved.value - train.min_delta:
        totals.improved = mark
    totals.waited = mark.epoch - totals.improved.epoch if totals.improved is not None else 0


def out_of_patience(train: TrainConfig, totals: Totals | TotalsState) -> bool:
    """Return whether training ends with the newest evaluation: none has been better for too long."""
    return train.patience is not None and totals.waited >= train.patience


def why_ended(train: TrainConfig, totals: Totals) -> str:
    """Return in words why training has ended early."""
    best = totals.improved
    assert best is not None, "an evaluation has been waited for"
    metric = chief_metric(totals.evaluated)
    less = f" by more than {train.min_delta:g}" if train.min_delta else ""
    reached = f"{MEASURES[metric].title} is not below {MEASURES[metric].written(best.value)}{less}"
    return f"the validation {reached} since epoch {best.epoch + 1} (train.patience={train.patience})"
