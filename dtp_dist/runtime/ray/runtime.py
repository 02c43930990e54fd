"""One Ray actor per stage: Ray places, starts and stops them; tensors go from actor to actor over ZeroMQ."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dtp_dist import import_path
from dtp_dist.config import Config, to_dict
from dtp_dist.runtime.base import OnReport, Say
from dtp_dist.runtime.devices import settled
from dtp_dist.runtime.layout import Layout
from dtp_dist.runtime.processes import Heard, Limit, ProcessRuntime, thread_variables
from dtp_dist.runtime.ray import cluster
from dtp_dist.runtime.ray.actor import RayStage, Whereabouts
from dtp_dist.runtime.ray.fetching import FilesToFetch
from dtp_dist.runtime.ray.metrics import RayMetrics
from dtp_dist.runtime.segment import Report, Segment, SegmentResult
from dtp_dist.runtime.stage.handshake import Place, StageSetup
from dtp_dist.storage.checkpoint import FileEntry
from dtp_dist.storage.files import write_file
from dtp_dist.system.interruption import held
from dtp_dist.system.short_paths import link_folder
from dtp_dist.transport.table import chosen_transport

PASSED = ("DTP_DIST_FAULT", "DTP_DIST_DEBUG")


_remote: Any = ray.remote  # its overloads do not know concurrency groups
_ACTOR: Any = _remote(concurrency_groups={"control": 2, "bulk": 1})(RayStage)

_SUSPECTS: set[str] = set()
"""Ids of nodes that a stage fell silent on; they may have fallen with it."""


class RayRuntime(ProcessRuntime):
    """Actors in a placement group; a restart of the run replaces them all under a new generation."""

    def __init__(
        self,
        config: Config,
        on_report: OnReport,
        generation: int = 0,
        say: Say = lambda text: None,
    ) -> None:
        if config.parallel.device == "auto":
            config = settled(config)
        super().__init__(config, self._report, generation)
        self._tell = on_report
        self._actors: list[Any] = []
        self._places: list[Whereabouts] = []
        self._pending: dict[Any, tuple[int, str]] = {}
        self._files = FilesToFetch()
        self._bytes_through_driver: bool | None = None
        cluster.connect(self.layout.stages * config.parallel.threads, say)
        self._metrics = RayMetrics(config.name, self.layout.stages - 1, config.data.batch_size)
        self._need = cluster.bundle(config)
        say(f"waiting for room for {self.layout.stages} stages on the cluster")
        self._group = cluster.reserve(config, self._need, self.layout.stages, _SUSPECTS)
        self._start_or_close(self._start, say)

    def _start(self) -> None:
        run_id = os.urandom(16)
        self._actors = [self._place(stage, run_id) for stage in range(self.layout.stages)]
        for stage in range(self.layout.stages):
            self._ask_pulse(stage)  # answered as soon as there is an actor, however late the others come
        limit = self._start_limit
        self._places = self._control("whereabouts", limit)
        self._control("prepare", limit, self._bind_places())
        self._call("build", limit=limit)
        self._supervisor.started()
        self._link_up()
        self._control("clean", limit)

    def _place(self, stage: int, run_id: bytes) -> Any:
        setup = StageSetup(to_dict(self._config), stage, run_id, self._generation)
        name = actor_name(self._config.name, self.layout, stage, run_id, self._generation)
        variables = thread_variables(self._config)
        variables |= {key: os.environ[key] for key in PASSED if key in os.environ}
        strategy = PlacementGroupSchedulingStrategy(self._group, stage)
        actor = _ACTOR.options(
            name=name,
            num_cpus=self._need["CPU"],
            num_gpus=self._need.get("GPU", 0.0),
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=strategy,
            runtime_env={"env_vars": variables},
        )
        return actor.remote(setup, name, import_path.stage_path())

    def _bind_places(self) -> list[Place]:
        """Return where each stage binds: a private folder where all share a host, else its node's address."""
        one_host = len({place.node for place in self._places}) == 1
        transport = chosen_transport(self._config.parallel.transport, one_host=one_host)
        if transport.in_folder:
            return [Place(transport.scheme, link_folder())] * self.layout.stages
        return [Place(transport.scheme, host=each.ip) for each in self._places]

    def _control(self, method: str, limit: Limit, arguments: list[Place] | None = None) -> list[Any]:
        """Call a control method of every actor and return its results, watching them all meanwhile.

        Raises:
            StageLostError: an actor is gone.
            StartError: one does not answer in time.
        """
        for stage, actor in enumerate(self._actors):
            call = getattr(actor, method).remote(*([] if arguments is None else [arguments[stage]]))
            self._pending[call] = (stage, "control")
        return self._gather("to answer as an actor", limit)

    def _ask(self, stage: int, method: str, arguments: tuple[Any, ...]) -> None:
        self._pending[self._actors[stage].ask.remote(method, arguments)] = (stage, "ask")

    def _ask_pulse(self, stage: int) -> None:
        call = self._actors[stage].pulse.remote(self._supervisor.heartbeat)
        self._pending[call] = (stage, "pulse")

    def _listen(self, seconds: float) -> Iterator[Heard]:
        """Return all answers that are there, not only the first: the driver may have been away for long."""
        if ray.wait(list(self._pending), num_returns=1, timeout=seconds)[0]:
            ready, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
            for reference in ready:
                stage, what = self._pending.pop(reference)
                try:
                    result = ray.get(reference)
                except RayError as error:
                    yield Heard(stage, "ended", _reason(error))
                    continue
                yield from self._understand(stage, what, result)

    def _understand(self, stage: int, what: str, result: Any) -> Iterator[Heard]:
        if what == "ask":
            yield Heard(stage, *result)
        elif what == "control":
            yield Heard(stage, "reply", result)
        elif what == "file":
            self._write(result)
        else:
            self._ask_pulse(stage)
            status, said = result
            for kind, value in said:
                yield Heard(stage, kind, value)
            yield Heard(stage, "alive", status)

    def _saved(self, stage: int, directory: str, entries: list[FileEntry]) -> None:
        """Fetch the files first, one at a time, where the stages can't write them themselves."""
        if not self._bytes_through_driver:
            super()._saved(stage, directory, entries)
            return
        self._files.add(stage, directory, entries)
        self._fetch_next()

    def _fetch_next(self) -> None:
        wanted = self._files.next()
        if wanted is not None:
            call = self._actors[wanted.stage].fetch.remote(wanted.entry.name)
            self._pending[call] = (wanted.stage, "file")

    def _write(self, data: bytes) -> None:
        path = self._files.current
        self.aside(str(path), lambda: write_file(path, data), lambda _: self._written())

    def _written(self) -> None:
        whole = self._files.done()
        if whole is not None:
            super()._saved(*whole)
        self._fetch_next()

    def run(self, segment: Segment) -> SegmentResult:
        self._metrics.begin(segment)
        return super().run(segment)

    def _report(self, report: Report) -> None:
        self._metrics.report(report)
        self._tell(report)

    def _through_driver(self, directory: Path) -> bool:
        """Ask all stages, once, whether they see a file that the driver makes, and may write next to it."""
        if self._bytes_through_driver is None:
            token = f".probe-{os.urandom(6).hex()}"
            (directory / token).touch()
            try:
                seen = self._call("can_write", *self._same(str(directory), token), limit=self._action_limit)
            finally:
                (directory / token).unlink()
            self._bytes_through_driver = not all(seen)
        return self._bytes_through_driver

    def processes(self) -> list[int]:
        return [place.pid for place in self._places]

    def nodes(self) -> list[str]:
        return [f"{place.host} ({place.ip})" for place in self._places]

    @held()
    def close(self) -> None:
        if not ray.is_initialized():
            return
        for actor in self._actors:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(actor, no_restart=True)  # its node kills the process, frozen or not
        _SUSPECTS.update(
            place.node for stage, place in enumerate(self._places) if self._supervisor.silent(stage)
        )
        self._actors, self._places, self._pending = [], [], {}
        cluster.release(self._group)
        super().close()


def actor_name(run: str, layout: Layout, stage: int, run_id: bytes, generation: int) -> str:
    """Return what Ray's tools and logs call a stage: no two of a Ray job may be called the same."""
    layers = layout.describe(stage).partition("(")[2].rstrip(")")
    restart = f", restart {generation}" if generation else ""
    return f"dtp stage {stage}: {layers} of {run} ({run_id.hex()[:8]}{restart})"


def _reason(error: RayError) -> str:
    """Return why an actor is gone, in a few words: Ray's own run to a page."""
    text = " ".join(str(error).split())
    detail = text.partition("Worker exit detail: ")[2] or text.partition("The actor ")[2] or text
    return f"its actor ended ({type(error).__name__}: {detail.partition('. ')[0][:200].rstrip('.')})"
