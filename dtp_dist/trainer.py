"""A whole run: data, stages, segments, checkpoints, evaluations, and what is left in the run's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from dtp_dist.algorithm.layers import BoundInstance
from dtp_dist.algorithm.meter import Meter
from dtp_dist.algorithm.state import weights_sha256
from dtp_dist.checkpoint import Manifest, complete_checkpoint, new_checkpoint, read_layers
from dtp_dist.config import Config, to_yaml
from dtp_dist.config.check import check
from dtp_dist.data import Batches
from dtp_dist.errors import CheckpointError, ConfigError
from dtp_dist.monitor import Collector, MetricsLog, Monitor, Monitors, write_trace
from dtp_dist.network import load_network
from dtp_dist.plan import Part, evaluation, parts, total_steps
from dtp_dist.run_dir import CONFIG, METRICS, TRACE, make_run_dir, write_result, write_text
from dtp_dist.runtime.base import Runtime
from dtp_dist.runtime.feed import load_batches
from dtp_dist.runtime.layout import resolve
from dtp_dist.runtime.segment import SegmentResult
from dtp_dist.runtime.start import start_runtime
from dtp_dist.schedule import Phase, Schedule

Modules = Mapping[int, tuple[nn.Module, nn.Module | None]]
MakeMonitor = Callable[[int, int], Monitor]


class Trained(NamedTuple):
    """What a run ends with: the content of ``result.json`` and the forward network."""

    result: dict[str, Any]
    network: nn.Sequential


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
    written = replace(config, parallel=bound.parallel)
    batches = load_batches(bound)
    run_dir = make_run_dir(config)
    write_text(run_dir / CONFIG, to_yaml(replace(written, run_dir=str(run_dir))))
    steps = total_steps(bound, batches["train"].count)
    listeners: list[Monitor] = [MetricsLog(run_dir / METRICS)]
    if config.monitor.tensorboard:
        from dtp_dist.monitor.tensorboard import TensorBoardLog

        listeners.append(TensorBoardLog(run_dir))
    listeners += [make(steps, config.train.epochs) for make in watch]
    monitors = Monitors(listeners)
    try:
        return _Run(bound, run_dir, monitors, batches).go()
    finally:
        monitors.close()


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


@cache
def validate_schedule(stages: int, in_flight: int, phase: Phase, count: int) -> None:
    """Check the schedule of a segment before it runs; each of a run's few different ones is checked once.

    Raises:
        ScheduleError: it breaks a rule.
    """
    Schedule(stages, range(count), in_flight, phase).validate()


class _Run:
    """The state of one run in the driver."""

    def __init__(
        self, config: Config, run_dir: Path, monitors: Monitors, batches: Mapping[str, Batches]
    ) -> None:
        self.config, self.run_dir, self.monitors = config, run_dir, monitors
        self.counts = {split: each.count for split, each in batches.items()}
        self.step, self.epoch = 0, 0
        self.bytes_sent, self.examples, self.seconds = 0, 0, 0.0
        self.busy: list[float] = []
        self.epoch_meter, self.last_epoch = Meter(), Meter()
        self.errors: dict[str, float] = {}
        self.sha256 = ""
        self.checkpoint: Path | None = None
        assert config.parallel.partition is not None
        self.collector = Collector(monitors, len(config.parallel.partition), config.data.batch_size)
        self._batches = batches

    def go(self) -> Trained:
        """Run everything and return what it ends with."""
        try:
            with start_runtime(self.config, self._batches, self.collector.report) as runtime:
                self._batches = {}
                self.busy = [0.0] * runtime.layout.stages
                layers = [runtime.layout.describe(stage) for stage in range(runtime.layout.stages)]
                self._event("started", stages=layers, processes=runtime.processes())
                for part in parts(self.config, self.counts["train"]):
                    self._run_part(runtime, part)
                write_trace(self.run_dir / TRACE, runtime.spans(), runtime.layout)
                result = self._result(runtime)
        except BaseException as error:
            self._tell_end(error)
            raise
        write_result(self.run_dir, result)
        self._event("finished", weights_sha256=self.sha256)
        assert self.checkpoint is not None
        return Trained(result, load_network(self.config, self.checkpoint))

    def _tell_end(self, error: BaseException) -> None:
        """Tell that the run ended early and what is left of it; a full disk must not hide the error."""
        kept = str(self.checkpoint) if self.checkpoint is not None else None
        name = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with suppress(OSError, CheckpointError):
            self._event(name, message=str(error), run_dir=str(self.run_dir), checkpoint=kept)

    def _event(self, name: str, **details: Any) -> None:
        self.monitors.event(self.step, self.epoch + 1, name, **details)

    def _run_part(self, runtime: Runtime, part: Part) -> None:
        self.epoch = part.segments[-1].epoch
        for segment in part.segments:
            self.collector.begin(segment.first)
            validate_schedule(runtime.layout.stages, runtime.layout.in_flight, segment.phase, segment.count)
            self._count(runtime.run(segment), learns=segment.phase is not Phase.INVERSE)
        self.step = part.end
        values: dict[str, float] = {}
        if part.evaluate:
            values.update(self._evaluate(runtime))
        if part.ends_epoch or part.evaluate:
            self._tell_epoch(values)
        if part.checkpoint:
            self._save(runtime, part)
        if part.ends_epoch:
            self.last_epoch = self.epoch_meter.take()

    def _count(self, result: SegmentResult, *, learns: bool) -> None:
        self.seconds += result.seconds
        self.bytes_sent += result.bytes_sent
        self.busy = [total + stage.busy for total, stage in zip(self.busy, result.stages, strict=True)]
        if learns:
            self.examples += result.examples
            self.epoch_meter.add_all(result.means, result.examples)

    def _evaluate(self, runtime: Runtime) -> dict[str, float]:
        """Return the errors (percent) and losses of the validation and the test split."""
        values: dict[str, float] = {}
        for split in ("valid", "test"):
            if split in self.counts:
                result = runtime.run(evaluation(split, self.epoch, self.counts[split]))
                self.bytes_sent += result.bytes_sent
                values[f"{split}_error"] = self.errors[split] = result.means["error"]
                values[f"{split}_loss"] = result.means["loss"]
        return values

    def _tell_epoch(self, values: dict[str, float]) -> None:
        means = self.epoch_meter.means()
        speed = self.examples / max(self.seconds, 1e-9)
        told = {"train_loss": means["loss"], "train_error": means["error"], **values}
        self.monitors.values(self.step, self.epoch + 1, {**told, "samples_per_second": speed})

    def _save(self, runtime: Runtime, part: Part) -> None:
        folder = new_checkpoint(self.run_dir, self.step)
        files = runtime.save(folder)
        manifest = Manifest(
            step=self.step,
            epoch=self.epoch,
            phase=str(part.segments[-1].phase),
            seed=self.config.seed,
            config_sha256=hashlib.sha256((self.run_dir / CONFIG).read_bytes()).hexdigest(),
            files=tuple(files),
        )
        complete_checkpoint(folder, manifest, self.config.train.keep_checkpoints)
        self.checkpoint = folder
        self._event("checkpoint", path=str(folder.relative_to(self.run_dir)))

    def _result(self, runtime: Runtime) -> dict[str, Any]:
        assert self.checkpoint is not None
        last = self.epoch_meter if self.epoch_meter.weight("loss") else self.last_epoch
        self.sha256 = weights_sha256(read_layers(self.checkpoint, len(self.config.model.options)))
        means = last.means()
        return {
            "name": self.config.name,
            "steps": self.step,
            "train_loss": means["loss"],
            "train_error": means["error"],
            "valid_error": self.errors.get("valid"),
            "test_error": self.errors.get("test"),
            "seconds": self.monitors.seconds,
            "samples_per_second": self.examples / max(self.seconds, 1e-9),
            "stages": runtime.layout.stages,
            "in_flight": runtime.layout.in_flight,
            "partition": list(runtime.layout.partition),
            "runtime": self.config.parallel.runtime,
            "stage_busy": [busy / max(self.seconds, 1e-9) for busy in self.busy],
            "messages_bytes": self.bytes_sent,
            "weights_sha256": self.sha256,
            "seed": self.config.seed,
            "run_dir": str(self.run_dir),
        }
