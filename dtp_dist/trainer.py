"""Training and resuming: what lies between a configuration and a run's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from dtp_dist.algorithm.layers import BoundInstance
from dtp_dist.checkpoint import Manifest, newest_checkpoint
from dtp_dist.claim import claimed
from dtp_dist.config import Config, to_yaml
from dtp_dist.config.check import check
from dtp_dist.config.compare import compare
from dtp_dist.data import Batches
from dtp_dist.driver import Driver
from dtp_dist.errors import ConfigError
from dtp_dist.monitor import MetricsLog, Monitor, Monitors
from dtp_dist.network import load_network
from dtp_dist.plan import evaluation, total_steps
from dtp_dist.run_dir import CONFIG, METRICS, RESULT, make_run_dir, open_run_dir, write_result, write_text
from dtp_dist.runtime.feed import load_batches
from dtp_dist.runtime.layout import resolve
from dtp_dist.runtime.start import start_runtime

if TYPE_CHECKING:
    from dtp_dist.monitor.pictures import Pictures
    from dtp_dist.monitor.tensorboard import TensorBoardLog

Modules = Mapping[int, tuple[nn.Module, nn.Module | None]]
MakeMonitor = Callable[[int, int], Monitor]


class Trained(NamedTuple):
    """What a run ends with: the content of ``result.json`` and the forward network (None if virtual)."""

    result: dict[str, Any]
    network: nn.Sequential | None


def train(config: Config, *, modules: Modules | None = None, watch: Sequence[MakeMonitor] = ()) -> Trained:
    """Train as the configuration says and leave everything in its run directory.

    Args:
        config: from ``load_config``.
        modules: for layers of ``kind: instance``, by 1-based number: (forward, inverse or None).
        watch: makers of further monitors; each is called with (steps, epochs) of the run.

    Raises:
        DtpDistError: its subclasses say what went wrong; the newest checkpoint stays.
    """
    bound = resolve(_bind(config, modules or {}))
    batches = load_batches(bound)
    run_dir = make_run_dir(config)
    written = replace(config, parallel=bound.parallel, run_dir=str(run_dir))
    with claimed(run_dir):
        write_text(run_dir / CONFIG, to_yaml(written))
        return _drive(bound, run_dir, batches, watch)


def resume(
    run_dir: Path,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool = False,
    watch: Sequence[MakeMonitor] = (),
) -> Trained:
    """Go on from a run's newest checkpoint, in the same folder.

    Args:
        run_dir: the folder of a run that was trained, or partly trained.
        overrides: dotted; where and how long it runs, not what it computes.
        allow_code: import the user modules that the run names.
        watch: as in ``train``.

    Raises:
        ConfigError: an override would make it another experiment, or nothing is left to train.
        CheckpointError: there is no whole checkpoint, or another process trains in the folder.
        DtpDistError: as ``train``.
    """
    old = open_run_dir(run_dir, allow_code=allow_code)
    config = resolve(open_run_dir(run_dir, overrides, allow_code=allow_code))
    config = replace(config, run_dir=str(run_dir))
    notes = compare(old, config)
    with claimed(run_dir):
        start = newest_checkpoint(run_dir)
        batches = load_batches(config)
        steps = total_steps(config, batches["train"].count)
        if start[1].step >= steps and (run_dir / RESULT).exists():
            raise ConfigError(
                f"{run_dir}: is trained to its end, step {start[1].step}; add train.epochs=N to go on"
            )
        write_text(run_dir / CONFIG, to_yaml(config))
        details = {"overrides": list(overrides), "checkpoint": start[0].name, "notes": notes}
        return _drive(config, run_dir, batches, watch, start, details)


def evaluate(run_dir: Path, split: str, *, allow_code: bool = False) -> tuple[dict[str, float], int]:
    """Return ``loss`` (mean cross-entropy) and ``error`` (percent) of a run's newest weights, and their step.

    They are computed as the run itself does, in this process.

    Raises:
        ConfigError: there is no such split.
        DtpDistError: as ``resume``.
    """
    config = resolve(open_run_dir(run_dir, ["parallel.runtime=inprocess"], allow_code=allow_code))
    folder, manifest = newest_checkpoint(run_dir)
    batches = load_batches(config)
    if split not in batches:
        raise ConfigError(
            f"--split: {split!r} is not allowed; it must be one of {', '.join(sorted(batches))}"
        )
    runtime = start_runtime(config, batches, lambda report: None)
    try:
        runtime.load(folder)
        segment = evaluation(split, manifest.epoch, batches[split].count, config.train.evaluate_passes)
        return runtime.run(segment).means, manifest.step
    finally:
        runtime.close()


def _drive(
    config: Config,
    run_dir: Path,
    batches: Mapping[str, Batches],
    watch: Sequence[MakeMonitor],
    start: tuple[Path, Manifest] | None = None,
    resumed: Mapping[str, Any] | None = None,
) -> Trained:
    """Run the driver with all monitors and leave its result."""
    steps = total_steps(config, batches["train"].count)
    listeners: list[Monitor] = [MetricsLog(run_dir / METRICS)]
    board = _board(config, run_dir, start[1].step if start else 0)
    if board is not None:
        listeners.append(board)
    listeners += [make(steps, config.train.epochs) for make in watch]
    monitors = Monitors(listeners)
    try:
        pictures = _pictures(config, batches, board, monitors, steps)
        driver = Driver(config, run_dir, monitors, batches, start, pictures)
        if resumed is not None:
            monitors.event(driver.totals.step, driver.totals.epoch + 1, "resumed", **resumed)
        result = driver.go()
        write_result(run_dir, result)
        monitors.event(
            result["steps"], config.train.epochs, "finished", weights_sha256=result["weights_sha256"]
        )
        kept = driver.checkpoint
        return Trained(result, None if kept is None else load_network(config, kept))
    finally:
        monitors.close()


def _board(config: Config, run_dir: Path, step: int) -> TensorBoardLog | None:
    """Return TensorBoard's event file, introduced; None where none is wanted."""
    if not config.monitor.tensorboard:
        return None
    from dtp_dist.monitor.tensorboard import TensorBoardLog

    board = TensorBoardLog(run_dir)
    board.introduce(config, (run_dir / CONFIG).read_text(), step)
    return board


def _pictures(
    config: Config,
    batches: Mapping[str, Batches],
    board: TensorBoardLog | None,
    monitors: Monitors,
    steps: int,
) -> Pictures | None:
    """Return who makes pictures for TensorBoard, with validation examples where there are any."""
    if board is None or not (config.monitor.pictures_every or config.monitor.histograms_every):
        return None
    from dtp_dist.monitor.pictures import Pictures

    split = batches.get("valid", batches["test"])
    return Pictures(config, split, board, monitors, per_epoch=batches["train"].count, steps=steps)


def _bind(config: Config, modules: Modules) -> Config:
    """Return the configuration with module instances in their places."""
    layers = list(config.model.options)
    for number, pair in modules.items():
        if not 1 <= number <= len(layers) or layers[number - 1].kind != "instance":
            raise ConfigError(f"modules: layer {number} is not of kind instance in the configuration")
        old = layers[number - 1]
        layers[number - 1] = BoundInstance(inverse=old.inverse, optimizer=old.optimizer, pair=pair)
    for number, layer in enumerate(layers, 1):
        if layer.kind == "instance" and not isinstance(layer, BoundInstance):
            raise ConfigError(
                f"model.layers.{number}.kind: an instance needs train(config, modules={{{number}: ...}})"
            )
    bound = replace(config, model=replace(config.model, layers=layers))
    if modules:
        check(bound)
    return bound
