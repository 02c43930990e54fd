"""Training and resuming: what lies between a configuration and a run's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from dtp_dist.config import Config, to_yaml
from dtp_dist.config.batches import Data, ensured
from dtp_dist.config.load import checked
from dtp_dist.data import Given
from dtp_dist.errors import ConfigError, StorageError
from dtp_dist.loggers.table import check_loggers
from dtp_dist.monitor import Guest, MetricsLog, Monitor, Monitors, Start, guests
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.devices import settled
from dtp_dist.storage.checkpoint import Manifest, newest_checkpoint, no_checkpoint_yet
from dtp_dist.storage.data_file import check_same, write_facts
from dtp_dist.storage.export import load_network
from dtp_dist.storage.lock import locked
from dtp_dist.storage.origin import compare, origin_of
from dtp_dist.storage.run_dir import (
    CONFIG,
    METRICS,
    RESULT,
    again_command,
    new_run_dir,
    open_run_dir,
    resume_command,
    write_result,
    write_text,
)
from dtp_dist.storage.starting_weights import check_weights, starting_checkpoint
from dtp_dist.system.interruption import held
from dtp_dist.training.best import out_of_patience
from dtp_dist.training.driver import Driver
from dtp_dist.training.given import Modules, bound, placed, with_given
from dtp_dist.training.listeners import metrics_of, pictures, tensorboard, track
from dtp_dist.training.parts import total_steps

MakeMonitor = Callable[[int, int], Monitor]


class Trained(NamedTuple):
    """What a run ends with: the content of ``result.json`` and the forward network (None if virtual)."""

    result: dict[str, Any]
    network: nn.Sequential | None


def train(
    config: Config,
    *,
    modules: Modules | None = None,
    data: Given | None = None,
    monitors: Sequence[Monitor] = (),
    watch: Sequence[MakeMonitor] = (),
) -> Trained:
    """Train as the configuration says and leave everything in its run directory.

    Args:
        config: from ``load_config``.
        modules: for layers of ``kind: instance``, by 1-based number: (forward, inverse or None).
        data: in place of ``data.name``, with ``parallel.runtime=inprocess``: a mapping with ``train`` and,
            optionally, ``valid`` and ``test``, each a map-style data set of (x, y) or a pair of tensors or
            NumPy arrays, and ``classes``, their names or number.
        monitors: callbacks that are told what happens (docs/callbacks.md).
        watch: makers of what shows the run; each is called with (steps, epochs) of the run.

    Raises:
        CallbackError: a monitor has raised.
        DtpDistError: its subclasses say what went wrong; the newest checkpoint stays.
    """
    heard = guests(monitors)
    config = checked(placed(with_given(config, data)))
    resolved = resolve(bound(config, modules or {}))
    on_devices = settled(resolved)
    found = ensured(resolved, data)
    check_weights(resolved)
    check_loggers(resolved.monitor.loggers)
    with new_run_dir(config) as run_dir, locked(run_dir):
        written = replace(config, parallel=resolved.parallel, run_dir=str(run_dir.absolute()))
        write_text(run_dir / CONFIG, to_yaml(written))
        write_facts(run_dir, found.splits)
        start = starting_checkpoint(on_devices, run_dir)
        return _drive(on_devices, run_dir, found, heard, watch, start)


def resume(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    *,
    modules: Modules | None = None,
    data: Given | None = None,
    allow_code: bool = False,
    monitors: Sequence[Monitor] = (),
    watch: Sequence[MakeMonitor] = (),
) -> Trained:
    """Resume a run from its newest checkpoint, in the same folder; from the start where it has none yet.

    Args:
        run_dir: the folder of a run that was trained, or partly trained.
        overrides: dotted; where and how long it runs, not what it computes.
        modules: as in ``train``.
        data: as in ``train``, the same as then.
        allow_code: import the user modules that the run names.
        monitors: as in ``train``.
        watch: as in ``train``.

    Raises:
        ConfigError: an override would make it another experiment, or nothing is left to train.
        DataError: the data are not those that it began with.
        StorageError: its checkpoints are damaged or gone, or another process trains in the folder.
        DtpDistError: as ``train``.
    """
    run_dir, heard = Path(run_dir), guests(monitors)
    moved = [text for text in overrides if text.startswith("code_dir=")]  # without it, nothing can be read
    old = placed(open_run_dir(run_dir, moved, allow_code=allow_code))
    written = with_given(placed(open_run_dir(run_dir, overrides, allow_code=allow_code)), data)
    config = resolve(bound(written, modules or {}))
    written = replace(written, parallel=config.parallel, run_dir=str(run_dir.absolute()))
    notes, on_devices = compare(old, written), settled(config)
    check_loggers(config.monitor.loggers)
    with locked(run_dir):
        passed_over: list[str] = []
        start = _where_to_go_on(run_dir, config, passed_over.append)
        start = start or starting_checkpoint(config, run_dir)
        found = ensured(config, data)
        check_same(run_dir, found.splits, config.data.root)
        more = _more(config, found.batches["train"].count, start[1]) if start else []
        if start and more and (run_dir / RESULT).exists():
            text = f"is trained to its end, step {start[1].step}; train for longer"
            raise ConfigError(f"{run_dir}: {text}: {resume_command(run_dir, *more)}")
        write_text(run_dir / CONFIG, to_yaml(written))
        name = start[0].name if start else None
        details = {"overrides": list(overrides), "checkpoint": name, "notes": [*passed_over, *notes]}
        return _drive(on_devices, run_dir, found, heard, watch, start, details)


def _where_to_go_on(
    run_dir: Path, config: Config, passed_over: Callable[[str], None]
) -> tuple[Path, Manifest] | None:
    """Return the newest checkpoint, None for a run that was ended before its first one.

    Raises:
        StorageError: there were checkpoints, and none is whole.
    """
    if no_checkpoint_yet(run_dir) and not (run_dir / RESULT).exists():
        return None
    try:
        return newest_checkpoint(run_dir, origin_of(config), passed_over)
    except StorageError as error:
        text = f"train it anew: {again_command(run_dir)}"
        raise StorageError(f"{error}; {text}") from None


def _more(config: Config, per_epoch: int, reached: Manifest) -> list[str]:
    """Return the overrides that let a finished run continue, none where it has not come to its end."""
    train, done, more = config.train, reached.step, []
    if train.max_steps is not None and train.max_steps <= done:
        more.append("train.max_steps=null")
    if train.epochs * per_epoch <= done:
        more.append(f"train.epochs={done // per_epoch + 1}")
    if out_of_patience(train, reached.totals):
        more += ["train.patience=null", *(["train.min_delta=0"] if train.min_delta else [])]
    return more


def _drive(
    config: Config,
    run_dir: Path,
    data: Data,
    heard: Sequence[Guest],
    watch: Sequence[MakeMonitor],
    start: tuple[Path, Manifest] | None = None,
    resumed: Mapping[str, Any] | None = None,
) -> Trained:
    """Run the driver with all monitors and leave its result."""
    steps = total_steps(config, data.batches["train"].count)
    listeners: list[Monitor] = [MetricsLog(run_dir / METRICS)]
    told = resumed is not None and not resumed["overrides"]
    at = start[1].step if start else 0
    board = tensorboard(config, run_dir, at, metrics_of(config, data.batches), told=told)
    if board is not None:
        listeners.append(board)
    monitors = Monitors(listeners, heard)
    with monitors.closed():
        with held():  # what has begun is closed
            track(config, run_dir, monitors)
            for make in watch:
                monitors.add(make(steps, config.train.epochs))
        monitors.begin(Start(config.name, run_dir, steps, config.train.epochs, at))
        shown = pictures(config, data, board, monitors, steps)
        fresh = resumed is None
        driver = Driver(config, run_dir, monitors, data, start, shown, fresh=fresh)
        if resumed is not None:
            monitors.event(driver.totals.step, driver.totals.epoch + 1, "resumed", **resumed)
        result = driver.go()
        write_facts(run_dir, data.splits, driver.normalized)
        write_result(run_dir, result)
        monitors.event(
            result["steps"], driver.totals.epoch + 1, "finished", weights_sha256=result["weights_sha256"]
        )
        kept = driver.checkpoint
        return Trained(result, None if kept is None else load_network(config, kept, driver.normalized))
