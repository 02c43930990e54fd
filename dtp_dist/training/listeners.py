"""Who listens to a run, as its configuration asks: TensorBoard, pictures, experiment trackers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dtp_dist.algorithm.losses import classes_in
from dtp_dist.algorithm.losses.metrics import Metrics
from dtp_dist.config import Config, shapes_of
from dtp_dist.config.batches import Data
from dtp_dist.config.references import without_seen
from dtp_dist.data import Batches
from dtp_dist.loggers.base import Tracked
from dtp_dist.loggers.parameters import parameters_of
from dtp_dist.loggers.table import make_logger
from dtp_dist.monitor import Monitors
from dtp_dist.storage.run_dir import CONFIG
from dtp_dist.text.foreign import TEXT_BYTES, parse_yaml, read_file

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


def track(config: Config, run_dir: Path, monitors: Monitors) -> None:
    """Let the trackers of ``monitor.loggers`` listen, each in a thread of its own."""
    if not config.monitor.loggers:
        return
    from dtp_dist.monitor.tracking import Tracking

    written = parse_yaml(read_file(run_dir / CONFIG, TEXT_BYTES))
    run = Tracked(config.name, run_dir, parameters_of(written, os.environ, without_seen))
    for name in config.monitor.loggers:
        monitors.add_aside(Tracking(name, make_logger(name), run, monitors.warn, monitors.say))
