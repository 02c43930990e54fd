"""The driver of a run: segments, drains, checkpoints, evaluations, and recovery from a lost stage."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtp_dist.algorithm.state import weights_sha256
from dtp_dist.checkpoint import (
    FileEntry,
    Manifest,
    complete_checkpoint,
    new_checkpoint,
    newest_checkpoint,
    read_layers,
)
from dtp_dist.config import Config
from dtp_dist.data import Batches
from dtp_dist.errors import CheckpointError, LinkError, StageLostError
from dtp_dist.monitor import Collector, Monitors, write_trace
from dtp_dist.plan import Part, evaluation, parts
from dtp_dist.run_dir import CONFIG, TRACE
from dtp_dist.runtime.base import Runtime
from dtp_dist.runtime.segment import SegmentResult
from dtp_dist.runtime.start import start_runtime
from dtp_dist.schedule import Phase, Schedule
from dtp_dist.totals import Totals

if TYPE_CHECKING:
    from dtp_dist.monitor.pictures import Pictures

MENDABLE = (StageLostError, LinkError)
"""What a restart can mend; a NaN or a bug would come back."""


@cache
def validate_schedule(stages: int, in_flight: int, phase: Phase, count: int) -> None:
    """Check the schedule of a segment before it runs; each of a run's few different ones is checked once.

    Raises:
        ScheduleError: it breaks a rule.
    """
    Schedule(stages, range(count), in_flight, phase).validate()


class Driver:
    """Takes one run to its end.

    Args:
        config: resolved.
        run_dir: its folder; the newest checkpoint in it is where the run goes on after a loss.
        batches: the minibatches by split.
        start: the checkpoint to start from, None for fresh weights.
        pictures: what shows timelines and checkpoints, None for nobody.
    """

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        monitors: Monitors,
        batches: Mapping[str, Batches],
        start: tuple[Path, Manifest] | None = None,
        pictures: Pictures | None = None,
    ) -> None:
        self._pictures = pictures
        self.config, self.run_dir, self.monitors = config, run_dir, monitors
        self.checkpoint: Path | None = None
        self.totals = Totals()
        self._counts = {split: each.count for split, each in batches.items()}
        self._batches = batches
        self._generation, self._virtual = 0, config.parallel.virtual
        assert config.parallel.partition is not None
        self._stages = len(config.parallel.partition)
        self._collector = Collector(monitors, self._stages, config.data.batch_size)
        if start is not None:
            self._go_back_to(*start)

    def go(self) -> dict[str, Any]:
        """Run everything and return the result.

        Raises:
            DtpDistError: what ended the run for good.
        """
        try:
            while True:
                try:
                    return self._attempt()
                except MENDABLE as error:
                    self._recover(error)
        except BaseException as error:
            self._tell_end(error)
            raise

    def _attempt(self) -> dict[str, Any]:
        """Start all stages, go on from the checkpoint where there is one, and run to the end."""
        report = self._collector.report
        with start_runtime(self.config, self._batches, report, self._generation) as runtime:
            layers = [runtime.layout.describe(stage) for stage in range(self._stages)]
            started: dict[str, Any] = {"stages": layers, "partition": list(runtime.layout.partition)}
            started |= {"virtual": True} if self._virtual else {}
            self._event("started", **started, processes=runtime.processes(), generation=self._generation)
            if self.checkpoint is not None:
                runtime.load(self.checkpoint)
            if self._generation:
                self._event("recovered", restarts=self._generation)
            if self._pictures is not None:
                self._pictures.begin(self.totals.step)
            for part in parts(self.config, self._counts["train"], self.totals.step):
                self._run_part(runtime, part)
            runtime.flush()
            self._trace(runtime)
            return self._result(runtime)

    def _trace(self, runtime: Runtime) -> None:
        last = self.config.monitor.trace_minibatches
        path, spans = self.run_dir / TRACE, runtime.spans()
        write_trace(path, spans, runtime.layout, minibatches=last, virtual=self._virtual)

    def _recover(self, error: Exception) -> None:
        """Go back to the newest checkpoint, or to the start; raise the error if that was done too often."""
        parallel = self.config.parallel
        if self._generation >= parallel.max_restarts or parallel.runtime == "inprocess":
            raise error
        self._generation += 1
        self._event("stage lost", message=str(error), restarts=self._generation)
        self._collector.forget()
        try:
            self._go_back_to(*newest_checkpoint(self.run_dir))
        except CheckpointError:
            self.checkpoint, self.totals = None, Totals()

    def _go_back_to(self, folder: Path, manifest: Manifest) -> None:
        self.checkpoint = folder
        self.totals = Totals.from_state(manifest.totals, manifest.step, manifest.epoch)

    def _tell_end(self, error: BaseException) -> None:
        """Tell that the run ended early and what is left of it; a full disk must not hide the error."""
        kept = str(self.checkpoint) if self.checkpoint is not None else None
        name = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with suppress(OSError, CheckpointError):
            self._event(name, message=str(error), run_dir=str(self.run_dir), checkpoint=kept)

    def _event(self, name: str, **details: Any) -> None:
        self.monitors.event(self.totals.step, self.totals.epoch + 1, name, **details)

    def _run_part(self, runtime: Runtime, part: Part) -> None:
        totals = self.totals
        totals.epoch = part.segments[-1].epoch
        for segment in part.segments:
            self._collector.begin(segment.first)
            validate_schedule(runtime.layout.stages, runtime.layout.in_flight, segment.phase, segment.count)
            totals.count(runtime.run(segment), learns=segment.phase is not Phase.INVERSE)
        totals.step = part.end
        if self._pictures is not None:
            self._pictures.drained(runtime, totals.step, totals.epoch)
        values = self._evaluate(runtime) if part.evaluate and not self._virtual else {}
        if part.ends_epoch or part.evaluate:
            self.monitors.values(totals.step, totals.epoch + 1, {**totals.epoch_values(), **values})
        if part.ends_epoch:
            totals.end_epoch()
        if part.checkpoint and not self._virtual:
            self._save(runtime, part)

    def _evaluate(self, runtime: Runtime) -> dict[str, float]:
        """Return the errors (percent) and losses of the validation and the test split."""
        values: dict[str, float] = {}
        for split in ("valid", "test"):
            if split in self._counts:
                segment = evaluation(
                    split, self.totals.epoch, self._counts[split], self.config.train.evaluate_passes
                )
                result: SegmentResult = runtime.run(segment)
                self.totals.bytes_sent += result.bytes_sent
                values[f"{split}_error"] = self.totals.errors[split] = result.means["error"]
                values[f"{split}_loss"] = result.means["loss"]
        return values

    def _save(self, runtime: Runtime, part: Part) -> None:
        """Begin a checkpoint; it is one when all its files are whole, while training goes on."""
        runtime.flush()
        folder = new_checkpoint(self.run_dir, self.totals.step)
        manifest = Manifest(
            step=self.totals.step,
            epoch=self.totals.epoch,
            phase=str(part.segments[-1].phase),
            seed=self.config.seed,
            config_sha256=hashlib.sha256((self.run_dir / CONFIG).read_bytes()).hexdigest(),
            files=(),
            totals=self.totals.state(),
        )

        def done(files: list[FileEntry]) -> None:
            complete_checkpoint(
                folder, replace(manifest, files=tuple(files)), self.config.train.keep_checkpoints
            )
            self.checkpoint = folder
            path = str(folder.relative_to(self.run_dir))
            self.monitors.event(manifest.step, manifest.epoch + 1, "checkpoint", path=path)
            if self._pictures is not None:
                self._pictures.saved(folder, manifest)

        runtime.save(folder, done)

    def _result(self, runtime: Runtime) -> dict[str, Any]:
        """Return the content of ``result.json``; a virtual run has no losses, errors and weights."""
        totals, layout, means = self.totals, runtime.layout, self.totals.last_epoch()
        return {
            "name": self.config.name,
            "steps": totals.step,
            "virtual": self._virtual,
            "train_loss": means.get("loss"),
            "train_error": means.get("error"),
            "valid_error": totals.errors.get("valid"),
            "test_error": totals.errors.get("test"),
            "seconds": self.monitors.seconds,
            "samples_per_second": totals.samples_per_second,
            "stages": layout.stages,
            "in_flight": layout.in_flight,
            "partition": list(layout.partition),
            "runtime": self.config.parallel.runtime,
            "stage_busy": totals.busy_shares(),
            "messages_bytes": totals.bytes_sent,
            "restarts": self._generation,
            "weights_sha256": self._weights_sha256(),
            "seed": self.config.seed,
            "run_dir": str(self.run_dir),
        }

    def _weights_sha256(self) -> str | None:
        """Return the hash of the last checkpoint's weights, None in a virtual run, which has none."""
        if self._virtual:
            return None
        assert self.checkpoint is not None
        return weights_sha256(read_layers(self.checkpoint, len(self.config.model.options)))
