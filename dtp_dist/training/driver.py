"""The driver of a run: segments, drains, checkpoints, evaluations, and recovery from a lost stage."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtp_dist.config import Config
from dtp_dist.config.batches import Data
from dtp_dist.data import Examples
from dtp_dist.errors import CallbackError, DataError, LinkError, StageLostError, StartError, StorageError
from dtp_dist.monitor import Collector, Monitors, write_trace
from dtp_dist.runtime.base import Runtime
from dtp_dist.runtime.registry import start_runtime
from dtp_dist.schedule import Phase
from dtp_dist.storage.checkpoint import (
    FileEntry,
    Manifest,
    complete_checkpoint,
    has_checkpoint,
    new_checkpoint,
    newest_checkpoint,
)
from dtp_dist.storage.origin import origin_of
from dtp_dist.storage.run_dir import TRACE, advice_at_end
from dtp_dist.storage.starting_weights import given_weights
from dtp_dist.system.interruption import asked, check
from dtp_dist.training.best import judge, out_of_patience, why_ended
from dtp_dist.training.doubts import doubts
from dtp_dist.training.evaluate import evaluate_splits
from dtp_dist.training.parts import Part, check_schedules, parts
from dtp_dist.training.result import result_of
from dtp_dist.training.totals import Totals

if TYPE_CHECKING:
    from dtp_dist.monitor.tensorboard.pictures import Pictures

MENDABLE = (StageLostError, LinkError, StartError)
"""What a restart can mend; a NaN or a bug would come back, and so would a start that has never come off."""


@dataclass(frozen=True)
class _Kept:
    """What an end would not lose: the updates of ``step`` minibatches, and what came before ``since``."""

    step: int = 0
    since: float = field(default_factory=time.monotonic)


class Driver:
    """Takes one run to its end.

    ``checkpoint`` is the newest of the run; ``normalized``, in the end, an example of the training split that
    says how pixels were standardized, None where they were not.

    Args:
        config: resolved.
        run_dir: its folder; the newest checkpoint in it is where the run continues after a loss.
        data: those of the run, whose sizes alone are needed.
        start: the checkpoint to start from, None for fresh weights.
        fresh: whether the folder was made for this attempt, and goes if the data turn out to be bad.
        pictures: what shows timelines and checkpoints, None for nobody.
    """

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        monitors: Monitors,
        data: Data,
        start: tuple[Path, Manifest] | None = None,
        pictures: Pictures | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        self._pictures = pictures
        self.config, self.run_dir, self.monitors = config, run_dir, monitors
        self._origin = origin_of(config)
        self.checkpoint: Path | None = None
        self.normalized: Examples | None = None
        self.totals = Totals()
        self._counts = {split: each.count for split, each in data.batches.items()}
        self._data, self._fresh = data, fresh
        self._generation, self._virtual = 0, config.parallel.virtual
        self._kept = _Kept()
        self._stopped_early, self._asked = False, ""
        assert config.parallel.partition is not None
        self._stages = len(config.parallel.partition)
        any_units = config.build_loss().grows_with_labels
        self._collector = Collector(monitors, self._stages, config.data.batch_size, any_units=any_units)
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
        """Start all stages, continue from the checkpoint where there is one, and run to the end."""
        report, say = self._collector.report, self.monitors.say
        check_schedules(self.config, self._counts["train"], self.totals.step)
        with start_runtime(self.config, report, self._generation, say, self._data.given) as runtime:
            layers = [runtime.layout.describe(stage) for stage in range(self._stages)]
            started: dict[str, Any] = {"stages": layers, "partition": list(runtime.layout.partition)}
            started |= {"devices": runtime.devices(), "nodes": runtime.nodes()}
            started |= {"virtual": True} if self._virtual else {}
            self._event("started", **started, processes=runtime.processes(), generation=self._generation)
            for text in doubts(self.config, self._data) if not self._generation else ():
                self._event("warning", message=text)
            if self.checkpoint is not None:
                runtime.load(self.checkpoint)
            self._kept = _Kept(self.totals.step)
            if self._generation:
                self._event("recovered", restarts=self._generation)
            if self._pictures is not None:
                self._pictures.begin(runtime, self.totals.step)
            for part in parts(self.config, self._counts["train"], self.totals.step):
                if why := self._why_to_end():
                    self._stopped_early = True
                    self._event("stopped early", message=why)
                    break
                self._run_part(runtime, part)
            runtime.flush()
            self._trace(runtime)
            if self.config.data.normalize != "none":
                self.normalized = runtime.examples("train", 1)
            return self._result(runtime)

    def _why_to_end(self) -> str:
        """Return in words why training ends before its last epoch, "" if it does not."""
        if out_of_patience(self.config.train, self.totals):
            return why_ended(self.config.train, self.totals)
        return f"asked for by {self._asked}" if self._asked else ""

    def _trace(self, runtime: Runtime) -> None:
        last = self.config.monitor.trace_minibatches
        path, spans = self.run_dir / TRACE, runtime.spans()
        write_trace(path, spans, runtime.layout, minibatches=last, virtual=self._virtual)

    def _recover(self, error: Exception) -> None:
        """Go back to the newest checkpoint, or to the start; raise the error if that was done too often."""
        parallel = self.config.parallel
        if self._generation >= parallel.max_restarts or parallel.runtime == "inprocess":
            raise error
        if isinstance(error, StartError) and self._generation == 0:
            raise error
        self._generation += 1
        self._asked = ""
        self._event("stage lost", message=str(error), restarts=self._generation)
        self._collector.forget()
        try:
            self._go_back_to(*newest_checkpoint(self.run_dir, self._origin, self._pass_over))
        except StorageError:
            if given_weights(self.config):  # those of step 0 are gone, and fresh ones are other weights
                raise
            self.checkpoint, self.totals = None, Totals()

    def _pass_over(self, said: str) -> None:
        self._event("passed over", message=said)

    def _go_back_to(self, folder: Path, manifest: Manifest) -> None:
        self.checkpoint = folder
        self.totals = Totals.from_state(manifest.totals, manifest.step, manifest.epoch)
        best = self.totals.best
        if best is not None and not has_checkpoint(self.run_dir, best.step):  # train.keep_best was false
            self.totals.best = None

    def _tell_end(self, error: BaseException) -> None:
        """Report that the run ended early, what is left of it, what is lost and what to type.

        A full disk must not hide the error.
        """
        name = "interrupted" if isinstance(error, KeyboardInterrupt) or asked() else "failed"
        told: dict[str, Any] = {"message": str(error), "run_dir": str(self.run_dir)}
        told["checkpoint"] = str(self.checkpoint) if self.checkpoint is not None else None
        told["removed"] = self._fresh and self.checkpoint is None and isinstance(error, DataError)
        if not self._virtual and not told["removed"]:
            told["lost_minibatches"] = max(0, self._collector.reached - self._kept.step)
            told["lost_seconds"] = round(time.monotonic() - self._kept.since, 1)
            told["advice"] = advice_at_end(self.config, self.run_dir, error)
        with suppress(OSError, StorageError, CallbackError):
            self._event(name, **told)

    def _event(self, name: str, **details: Any) -> None:
        self.monitors.event(self.totals.step, self.totals.epoch + 1, name, **details)

    def _run_part(self, runtime: Runtime, part: Part) -> None:
        totals = self.totals
        totals.epoch = part.segments[-1].epoch
        for segment in part.segments:
            check()
            self._collector.begin(segment.first)
            totals.count(runtime.run(segment), learns=segment.phase is not Phase.INVERSE)
        totals.step = part.end
        if self._pictures is not None:
            self._pictures.drained(runtime, totals.step, totals.epoch)
        values = self._evaluate(runtime) if part.evaluate and not self._virtual else {}
        best = bool(values) and judge(self.config.train, totals)
        told = {**totals.epoch_values(), **values}
        if part.ends_epoch or part.evaluate:
            self.monitors.values(totals.step, totals.epoch + 1, told)
        if part.ends_epoch:
            totals.end_epoch()
        due = part.checkpoint or best or out_of_patience(self.config.train, totals)
        if due and not self._virtual:
            self._save(runtime, part, best=best)
        if part.ends_epoch and self._asked_to_stop(runtime, told) and not self._virtual:
            self._end_with(runtime, part, saved=due)

    def _asked_to_stop(self, runtime: Runtime, values: dict[str, float]) -> bool:
        """Report an epoch that has ended; returns whether a monitor asks to end training with it."""
        try:
            asking = self.monitors.end_epoch(self.totals.step, self.totals.epoch + 1, values)
        except CallbackError:
            runtime.flush()  # the epoch's checkpoint is not lost with it
            raise
        self._asked = ", ".join(asking)
        return bool(asking)

    def _end_with(self, runtime: Runtime, part: Part, *, saved: bool) -> None:
        """Make up for what the last part of a run has besides."""
        best = False
        if not part.evaluate:
            values = self._evaluate(runtime)
            best = judge(self.config.train, self.totals)
            self.monitors.values(self.totals.step, self.totals.epoch + 1, values)
        if not saved or not part.evaluate:
            self._save(runtime, part, best=best)

    def _evaluate(self, runtime: Runtime) -> dict[str, float]:
        totals, passes = self.totals, self.config.train.evaluate_passes
        totals.evaluated, sent = evaluate_splits(runtime, self._counts, totals.epoch, passes)
        totals.bytes_sent += sent
        return totals.evaluated

    def _save(self, runtime: Runtime, part: Part, *, best: bool) -> None:
        """Begin a checkpoint; it is one when all its files are whole, while training continues."""
        runtime.flush()
        kept = _Kept(self.totals.step)
        folder = new_checkpoint(self.run_dir, self.totals.step)
        manifest = Manifest(
            step=self.totals.step,
            epoch=self.totals.epoch,
            phase=part.segments[-1].phase,
            seed=self._origin.seed,
            config_sha256=self._origin.config_sha256,
            files=(),
            totals=self.totals.state(),
        )

        def done(files: list[FileEntry]) -> None:
            whole, train = replace(manifest, files=tuple(files)), self.config.train
            complete = partial(
                complete_checkpoint, folder, whole, train.keep_checkpoints, keep_best=train.keep_best
            )
            runtime.aside(str(folder), complete, told)

        def told(_: None) -> None:
            self.checkpoint, self._kept = folder, kept
            details = {"path": str(folder.relative_to(self.run_dir)), **({"best": True} if best else {})}
            self.monitors.event(manifest.step, manifest.epoch + 1, "checkpoint", **details)
            if self._pictures is not None:
                self._pictures.saved(runtime, folder, manifest)

        runtime.save(folder, done)

    def _result(self, runtime: Runtime) -> dict[str, Any]:
        return result_of(
            self.config,
            self.totals,
            runtime.layout,
            self.checkpoint,
            seconds=self.monitors.seconds,
            stopped_early=self._stopped_early,
            restarts=self._generation,
            run_dir=self.run_dir,
        )
