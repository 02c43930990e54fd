"""Who listens to a run, as its configuration asks: files, TensorBoard, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dtp_dist.algorithm.losses import classes_in
from dtp_dist.algorithm.losses.metrics import Metrics
from dtp_dist.config import Config, shapes_of
from dtp_dist.config.batches import Data
from dtp_dist.data import Batches
from dtp_dist.monitor import Monitors
from dtp_dist.storage.run_dir import CONFIG

if TYPE_CHECKING:
    from dtp_dist.monitor.tensorboard.pictures import Pictures
    from dtp_dist.monitor.tensorboard.writer import TensorBoardLog


def metrics_of(config: Config, batches: Mapping[str, Batches]) -> Metrics:
    """Return what the run's outputs are measured by."""
    labels, outputs = batches["train"].examples.labels, shapes_of(config)[-1][0]
    return config.build_loss().metrics(classes_in(labels, outputs))


def tensorboard(
    config: Config, run_dir: Path, step: int, metrics: Metrics, *, told: bool
) -> TensorBoardLog | None:
    """Return TensorBoard's event file, introduced; None where none is wanted.

    ``told``: the file of an earlier process has the configuration already.
    """
    if not config.monitor.tensorboard:
        return None
    from dtp_dist.monitor.tensorboard.writer import TensorBoardLog

    board = TensorBoardLog(run_dir)
    board.introduce(config, "" if told else (run_dir / CONFIG).read_text(), step, metrics)
    return board


def pictures(
    config: Config,
    data: Data,
    board: TensorBoardLog | None,
    monitors: Monitors,
    steps: int,
) -> Pictures | None:
    """Return who makes pictures for TensorBoard, with validation examples where there are any."""
    if board is None or not (config.monitor.pictures_every or config.monitor.histograms_every):
        return None
    from dtp_dist.monitor.tensorboard.pictures import Pictures

    split = "valid" if "valid" in data.batches else "test"
    return Pictures(config, split, board, monitors, per_epoch=data.batches["train"].count, steps=steps)
