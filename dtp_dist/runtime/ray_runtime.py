"""One Ray actor per stage: Ray places, starts and stops them; tensors go from actor to actor over ZeroMQ."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dtp_dist.config import Config, to_dict
from dtp_dist.data import Batches
from dtp_dist.errors import StageError
from dtp_dist.runtime import ray_cluster
from dtp_dist.runtime.base import OnReport
from dtp_dist.runtime.ray_actor import RayStage
from dtp_dist.runtime.ray_metrics import RayMetrics
from dtp_dist.runtime.segment import Report, Segment, SegmentResult
from dtp_dist.runtime.setup import StageSetup
from dtp_dist.runtime.supervised import Heard, SupervisedRuntime, host_endpoint, thread_variables

PASSED = ("DTP_DIST_FAULT", "DTP_DIST_DEBUG")


_remote: Any = ray.remote  # its overloads do not know concurrency groups
_ACTOR: Any = _remote(concurrency_groups={"control": 2})(RayStage)

_SUSPECTS: set[str] = set()
"""Ids of nodes that a stage fell silent on; they may have fallen with it."""


class RayRuntime(SupervisedRuntime):
    """Actors in a placement group; a restart of the run replaces them all under a new generation."""

    def __init__(
        self, config: Config, batches: Mapping[str, Batches], on_report: OnReport, generation: int = 0
    ) -> None:
        del batches  # the first stage reads the data itself
        super().__init__(config, self._report, generation)
        self._tell = on_report
        self._actors: list[Any] = []
        self._places: list[tuple[int, str, str]] = []
        self._pending: dict[Any, tuple[int, str]] = {}
        self._bytes_through_driver: bool | None = None
        ray_cluster.connect(self.layout.stages * config.parallel.threads)
        self._metrics = RayMetrics(config.name, self.layout.stages - 1, config.data.batch_size)
        self._group = ray_cluster.reserve(config, self.layout, _SUSPECTS)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        run_id = os.urandom(16)
        self._actors = [self._place(stage, run_id) for stage in range(self.layout.stages)]
        limit = self._config.parallel.start_timeout
        self._places = self._control("whereabouts", limit)
        self._control("prepare", limit, self._endpoints())
        for stage in range(self.layout.stages):
            self._supervisor.heard(stage)
            self._ask_pulse(stage)
        self._call("build", limit=limit)
        self._link_up()
        self._control("clean", limit)

    def _place(self, stage: int, run_id: bytes) -> Any:
        setup = StageSetup(to_dict(self._config), stage, run_id, self._generation, "")
        need = ray_cluster.bundle(self._config)
        layers = self.layout.describe(stage).partition("(")[2].rstrip(")")
        name = f"dtp stage {stage}: {layers}" + (f" (restart {self._generation})" if self._generation else "")
        variables = thread_variables(self._config)
        variables |= {key: os.environ[key] for key in PASSED if key in os.environ}
        strategy = PlacementGroupSchedulingStrategy(self._group, stage)
        actor = _ACTOR.options(
            name=name,
            num_cpus=need["CPU"],
            num_gpus=need.get("GPU", 0.0),
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=strategy,
            runtime_env={"env_vars": variables},
        )
        return actor.remote(setup, name, [entry for entry in sys.path if entry])

    def _endpoints(self) -> list[str]:
        """Return where each stage binds: a private folder where all share a host, else its node's address."""
        transport = self._config.parallel.transport
        one_host = len({node for _, node, _ in self._places}) == 1
        if transport != "tcp" and (one_host or transport != "auto"):
            folder = os.path.join(tempfile.gettempdir(), f"dtp-dist-{os.urandom(6).hex()}")
            return [host_endpoint(transport, folder)] * self.layout.stages
        return [f"tcp://[{ip}]" if ":" in ip else f"tcp://{ip}" for _, _, ip in self._places]

    def _control(self, method: str, limit: float, arguments: list[str] | None = None) -> list[Any]:
        """Call a control method of every actor and return its results.

        Raises:
            StageLostError: an actor is gone.
            StageError: one does not answer within ``limit`` seconds.
        """
        calls = [
            getattr(actor, method).remote(*([] if arguments is None else [arguments[stage]]))
            for stage, actor in enumerate(self._actors)
        ]
        results = []
        for stage, call in enumerate(calls):
            try:
                results.append(ray.get(call, timeout=limit))
            except GetTimeoutError:
                text = f"its actor did not answer within {limit:g} s (parallel.start_timeout)"
                raise StageError(f"{self._supervisor.where(stage)}: {text}") from None
            except RayError as error:
                raise self._supervisor.died(stage, _reason(error)) from error
        return results

    def _ask(self, stage: int, method: str, arguments: tuple[Any, ...]) -> None:
        self._pending[self._actors[stage].ask.remote(method, arguments)] = (stage, "ask")

    def _ask_pulse(self, stage: int) -> None:
        call = self._actors[stage].pulse.remote(self._supervisor.heartbeat)
        self._pending[call] = (stage, "pulse")

    def _listen(self, seconds: float) -> Iterator[Heard]:
        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=seconds)
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
            return
        self._ask_pulse(stage)
        status, said = result
        for kind, value in said:
            yield Heard(stage, kind, value)
        yield Heard(stage, "alive", status)

    def run(self, segment: Segment) -> SegmentResult:
        self._metrics.begin(segment)
        return super().run(segment)

    def _report(self, report: Report) -> None:
        self._metrics.report(report)
        self._tell(report)

    def _through_driver(self, directory: Path) -> bool:
        """Ask all stages, once, whether they see a file that the driver makes, and may write beside it."""
        if self._bytes_through_driver is None:
            token = f".probe-{os.urandom(6).hex()}"
            (directory / token).touch()
            try:
                seen = self._call("can_write", *self._same(str(directory), token))
            finally:
                (directory / token).unlink()
            self._bytes_through_driver = not all(seen)
        return self._bytes_through_driver

    def processes(self) -> list[int]:
        return [pid for pid, _, _ in self._places]

    def close(self) -> None:
        if not ray.is_initialized():
            return
        for actor in self._actors:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(actor, no_restart=True)  # its node kills the process, frozen or not
        _SUSPECTS.update(
            node for stage, (_, node, _) in enumerate(self._places) if self._supervisor.silent(stage)
        )
        self._actors, self._places, self._pending = [], [], {}
        ray_cluster.release(self._group)


def _reason(error: RayError) -> str:
    """Return why an actor is gone, in a few words: Ray's own run to a page."""
    text = " ".join(str(error).split())
    detail = text.partition("Worker exit detail: ")[2] or text.partition("The actor ")[2] or text
    return f"its actor ended ({type(error).__name__}: {detail.partition('. ')[0][:200].rstrip('.')})"
