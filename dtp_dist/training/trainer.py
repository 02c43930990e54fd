"""Training and resuming: what lies between a configuration and a run's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from dtp_dist.algorithm.layers import BoundInstance
from dtp_dist.algorithm.losses import classes_in
from dtp_dist.algorithm.losses.metrics import Metrics
from dtp_dist.config import Config, shapes_of, to_yaml
from dtp_dist.config.batches import Data, ensured
from dtp_dist.config.check import check
from dtp_dist.config.load import checked
from dtp_dist.data import GIVEN, Batches, Given
from dtp_dist.errors import ConfigError, StorageError
from dtp_dist.monitor import MetricsLog, Monitor, Monitors
from dtp_dist.profiling.resolve import resolve
from dtp_dist.runtime.devices import settled
from dtp_dist.runtime.registry import start_runtime
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
from dtp_dist.storage.starting_weights import check_weights, starting_checkpoint, with_whole_paths
from dtp_dist.system.interruption import held
from dtp_dist.system.paths import absolute
from dtp_dist.training.driver import Driver
from dtp_dist.training.parts import evaluation, total_steps

if TYPE_CHECKING:
    from dtp_dist.monitor.tensorboard.pictures import Pictures
    from dtp_dist.monitor.tensorboard.writer import TensorBoardLog

Modules = Mapping[int, tuple[nn.Module, nn.Module | None]]
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
    watch: Sequence[MakeMonitor] = (),
) -> Trained:
    """Train as the configuration says and leave everything in its run directory.

    Args:
        config: from ``load_config``.
        modules: for layers of ``kind: instance``, by 1-based number: (forward, inverse or None).
        data: in place of ``data.name``, with ``parallel.runtime=inprocess``: a mapping with ``train`` and,
            optionally, ``valid`` and ``test``, each a map-style data set of (x, y) or a pair of tensors or
            NumPy arrays, and ``classes``, their names or number.
        watch: makers of further monitors; each is called with (steps, epochs) of the run.

    Raises:
        DtpDistError: its subclasses say what went wrong; the newest checkpoint stays.
    """
    config = checked(_placed(_with_given(config, data)))
    bound = resolve(_bind(config, modules or {}))
    placed = settled(bound)
    found = ensured(bound, data)
    check_weights(bound)
    with new_run_dir(config) as run_dir, locked(run_dir):
        written = replace(config, parallel=bound.parallel, run_dir=str(run_dir.absolute()))
        write_text(run_dir / CONFIG, to_yaml(written))
        write_facts(run_dir, found.splits)
        return _drive(placed, run_dir, found, watch, starting_checkpoint(placed, run_dir))


def resume(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    *,
    modules: Modules | None = None,
    data: Given | None = None,
    allow_code: bool = False,
    watch: Sequence[MakeMonitor] = (),
) -> Trained:
    """Resume a run from its newest checkpoint, in the same folder; from the start where it has none yet.

    Args:
        run_dir: the folder of a run that was trained, or partly trained.
        overrides: dotted; where and how long it runs, not what it computes.
        modules: as in ``train``.
        data: as in ``train``, the same as then.
        allow_code: import the user modules that the run names.
        watch: as in ``train``.

    Raises:
        ConfigError: an override would make it another experiment, or nothing is left to train.
        DataError: the data are not those that it began with.
        StorageError: its checkpoints are damaged or gone, or another process trains in the folder.
        DtpDistError: as ``train``.
    """
    run_dir = Path(run_dir)
    moved = [text for text in overrides if text.startswith("code_dir=")]  # without it, nothing can be read
    old = _placed(open_run_dir(run_dir, moved, allow_code=allow_code))
    written = _with_given(_placed(open_run_dir(run_dir, overrides, allow_code=allow_code)), data)
    config = resolve(_bind(written, modules or {}))
    written = replace(written, parallel=config.parallel, run_dir=str(run_dir.absolute()))
    notes, placed = compare(old, written), settled(config)
    with locked(run_dir):
        passed_over: list[str] = []
        start = _where_to_go_on(run_dir, config, passed_over.append)
        start = start or starting_checkpoint(config, run_dir)
        found = ensured(config, data)
        check_same(run_dir, found.splits, config.data.root)
        per_epoch = found.batches["train"].count
        steps = total_steps(config, per_epoch)
        done = start[1].step if start else 0
        if done >= steps and (run_dir / RESULT).exists():
            more = resume_command(run_dir, *_more(config, per_epoch, done))
            raise ConfigError(f"{run_dir}: is trained to its end, step {done}; train for longer: {more}")
        write_text(run_dir / CONFIG, to_yaml(written))
        name = start[0].name if start else None
        details = {"overrides": list(overrides), "checkpoint": name, "notes": [*passed_over, *notes]}
        return _drive(placed, run_dir, found, watch, start, details)


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


def _more(config: Config, per_epoch: int, done: int) -> list[str]:
    """Return the overrides that let a finished run go on."""
    train, more = config.train, []
    if train.max_steps is not None and train.max_steps <= done:
        more.append("train.max_steps=null")
    if train.epochs * per_epoch <= done:
        more.append(f"train.epochs={done // per_epoch + 1}")
    return more


def _with_given(config: Config, data: Given | None) -> Config:
    """Return the configuration of a run whose data were handed over; they stay in this process."""
    if data is None:
        return config
    if config.parallel.runtime != "inprocess":
        text = "data that are handed over in Python stay in this process"
        advice = "write inprocess, or data.name=package.module:function and a function that returns them"
        raise ConfigError(f"parallel.runtime: {text}; {advice}")
    return replace(config, data=replace(config.data, name=GIVEN))


def _placed(config: Config) -> Config:
    """Return the configuration with places of data, modules and weights that are the same from everywhere."""
    data = replace(config.data, root=absolute("data.root", config.data.root))
    code_dir = None if config.code_dir is None else absolute("code_dir", config.code_dir)
    return replace(config, data=data, code_dir=code_dir, model=with_whole_paths(config.model))


def evaluate(
    run_dir: str | Path, split: str = "test", *, data: Given | None = None, allow_code: bool = False
) -> tuple[dict[str, float], int]:
    """Return ``loss`` and the metrics of a run's newest weights (docs/losses.md), and their step.

    They are computed as the run itself does, in this process; ``data`` are as in ``train``.

    Raises:
        ConfigError: there is no such split.
        DataError: the data have other classes than those that the run began with.
        DtpDistError: as ``resume``.
    """
    run_dir = Path(run_dir)
    config = open_run_dir(run_dir, ["parallel.runtime=inprocess"], allow_code=allow_code)
    if config.parallel.device == "cuda":  # maybe the cluster's alone
        config = replace(config, parallel=replace(config.parallel, device="auto"))
    config = resolve(config)
    folder, manifest = newest_checkpoint(run_dir, origin_of(config))
    found = ensured(config, data)
    batches = found.batches
    check_same(run_dir, found.splits, config.data.root, whole=False)
    if split not in batches:
        raise ConfigError(
            f"--split: {split!r} is not allowed; it must be one of {', '.join(sorted(batches))}"
        )
    runtime = start_runtime(config, lambda report: None, given=data)
    try:
        runtime.load(folder)
        segment = evaluation(split, manifest.epoch, batches[split].count, config.train.evaluate_passes)
        return runtime.run(segment).means, manifest.step
    finally:
        runtime.close()


def _drive(
    config: Config,
    run_dir: Path,
    data: Data,
    watch: Sequence[MakeMonitor],
    start: tuple[Path, Manifest] | None = None,
    resumed: Mapping[str, Any] | None = None,
) -> Trained:
    """Run the driver with all monitors and leave its result."""
    steps = total_steps(config, data.batches["train"].count)
    listeners: list[Monitor] = [MetricsLog(run_dir / METRICS)]
    told = resumed is not None and not resumed["overrides"]
    board = _board(config, run_dir, start[1].step if start else 0, _metrics(config, data.batches), told=told)
    if board is not None:
        listeners.append(board)
    monitors = Monitors(listeners)
    try:
        with held():  # a view that has begun is one that will be closed
            for make in watch:
                monitors.add(make(steps, config.train.epochs))
        pictures = _pictures(config, data, board, monitors, steps)
        fresh = resumed is None
        driver = Driver(config, run_dir, monitors, data, start, pictures, fresh=fresh)
        if resumed is not None:
            monitors.event(driver.totals.step, driver.totals.epoch + 1, "resumed", **resumed)
        result = driver.go()
        write_facts(run_dir, data.splits, driver.normalized)
        write_result(run_dir, result)
        monitors.event(
            result["steps"], config.train.epochs, "finished", weights_sha256=result["weights_sha256"]
        )
        kept = driver.checkpoint
        return Trained(result, None if kept is None else load_network(config, kept, driver.normalized))
    finally:
        monitors.close()


def _metrics(config: Config, batches: Mapping[str, Batches]) -> Metrics:
    """Return what the run's outputs are measured by."""
    labels, outputs = batches["train"].examples.labels, shapes_of(config)[-1][0]
    return config.build_loss().metrics(classes_in(labels, outputs))


def _board(
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


def _pictures(
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


def _bind(config: Config, modules: Modules) -> Config:
    """Return the configuration with module instances in their places."""
    layers = list(config.model.options)
    for number, pair in modules.items():
        if not 1 <= number <= len(layers) or layers[number - 1].kind != "instance":
            raise ConfigError(f"modules: layer {number} is not of kind instance in the configuration")
        old = layers[number - 1]
        layers[number - 1] = BoundInstance(
            inverse=old.inverse, optimizer=old.optimizer, weights=old.weights, pair=pair
        )
    _refuse_shared(modules)
    for number, layer in enumerate(layers, 1):
        if layer.kind == "instance" and not isinstance(layer, BoundInstance):
            raise ConfigError(
                f"model.layers.{number}.kind: an instance needs train(config, modules={{{number}: ...}})"
            )
    bound = replace(config, model=replace(config.model, layers=layers))
    if modules:
        check(bound)
    return bound


def _refuse_shared(modules: Modules) -> None:
    """Refuse a parameter of two layers: each layer learns by itself, with an optimizer of its own."""
    owners: dict[nn.Parameter, int] = {}
    for number, pair in modules.items():
        for module in filter(None, pair):
            for parameter in module.parameters():
                if owners.setdefault(parameter, number) != number:
                    text = f"layers {owners[parameter]} and {number} share a parameter"
                    raise ConfigError(f"modules: {text}; give each layer its own")
