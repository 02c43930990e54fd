"""What a run came to: the content of ``result.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dtp_dist.algorithm.state import weights_sha256
from dtp_dist.config import Config
from dtp_dist.runtime.layout import Layout
from dtp_dist.storage.checkpoint import read_layers
from dtp_dist.training.best import judged_by
from dtp_dist.training.totals import Totals

ALWAYS = ("train_loss", "train_error", "valid_error", "test_error")
"""What it has of the outputs in any case, null where it was not measured."""


def result_of(
    config: Config,
    totals: Totals,
    layout: Layout,
    checkpoint: Path | None,
    *,
    stopped_early: bool,
    seconds: float,
    restarts: int,
    run_dir: Path,
) -> dict[str, Any]:
    """Return the result; a virtual run has no losses, metrics and weights.

    Errors are there in any run, null where labels are no classes; all else is there where it is measured.

    Args:
        config: resolved.
        totals: of the whole run.
        layout: of its stages.
        checkpoint: its last one, None in a virtual run.
        stopped_early: whether training ended before the epochs asked for.
        seconds: since this process began the run.
        restarts: how often it lost a stage.
        run_dir: its folder.
    """
    trained = {f"train_{name}": value for name, value in totals.last_epoch().items()}
    return {
        "name": config.name,
        "steps": totals.step,
        "stopped_early": stopped_early,
        "virtual": config.parallel.virtual,
        **dict.fromkeys(ALWAYS),
        **trained,
        **totals.evaluated,
        **_best(config, totals),
        "seconds": seconds,
        "samples_per_second": totals.samples_per_second,
        "stages": layout.stages,
        "in_flight": layout.in_flight,
        "partition": list(layout.partition),
        "runtime": config.parallel.runtime,
        "stage_busy": totals.busy_shares(),
        "reading": totals.reading_share,
        "messages_bytes": totals.bytes_sent,
        "restarts": restarts,
        "weights_sha256": _weights_sha256(config, checkpoint),
        "seed": config.seed,
        "run_dir": str(run_dir),
    }


def _best(config: Config, totals: Totals) -> dict[str, Any]:
    """Return where the best checkpoint is and what it reached, nothing where none is kept."""
    best = totals.best
    if best is None or not config.train.keep_best:
        return {}
    return {
        "best_step": best.step,
        "best_epoch": best.epoch + 1,
        f"best_{judged_by(totals.evaluated)}": best.value,
    }


def _weights_sha256(config: Config, checkpoint: Path | None) -> str | None:
    """Return the hash of the last checkpoint's weights, None in a virtual run, which has none."""
    if config.parallel.virtual:
        return None
    assert checkpoint is not None
    return weights_sha256(read_layers(checkpoint, len(config.model.options)))
