"""What runtimes with processes share: call every stage, watch all meanwhile, link them up.

A runtime brings three things: how to start its stages, how to ask one of them something, and what was
heard from any of them. What that means is decided here and in ``supervision.py``.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dtp_dist import errors
from dtp_dist.checkpoint import FileEntry, write_file
from dtp_dist.config import Config
from dtp_dist.errors import CheckpointError, DtpDistError, StageError
from dtp_dist.runtime.base import OnReport, OnSaved, Runtime
from dtp_dist.runtime.layout import layout_of
from dtp_dist.runtime.segment import Segment, SegmentResult, Span
from dtp_dist.runtime.setup import Address, Failure, meeting_point
from dtp_dist.runtime.supervision import Supervisor
from dtp_dist.transport import SHARED_MEMORY

POLL = 0.2
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def thread_variables(config: Config) -> dict[str, str]:
    """Return the environment that gives a stage's process its threads before it imports torch."""
    return dict.fromkeys(THREAD_VARIABLES, str(config.parallel.threads))


def host_endpoint(transport: str, folder: str) -> str:
    """Return under which endpoint the stages of one host bind; ``folder`` is for socket files.

    ``transport`` as in the configuration; ``auto`` is shared memory where the system has what it needs.
    """
    if transport == "tcp":
        return "tcp://127.0.0.1"
    scheme = "shm" if transport == "shm" or (transport == "auto" and SHARED_MEMORY) else "ipc"
    return f"{scheme}://{folder}"


class Heard(NamedTuple):
    """Something a stage said: ``alive``, ``report``, ``saved``, ``reply``, ``failed``; or ``ended`` of it."""

    stage: int
    kind: str
    value: Any = None


class SupervisedRuntime(Runtime):
    """Stages in processes of their own, wherever those are."""

    def __init__(self, config: Config, on_report: OnReport, generation: int) -> None:
        self.layout = layout_of(config)
        self._config, self._on_report, self._generation = config, on_report, generation
        self._saving: dict[str, tuple[dict[int, list[FileEntry]], OnSaved]] = {}
        self._supervisor = Supervisor(
            self.layout,
            config.parallel.failure_timeout,
            config.parallel.action_timeout,
            last_seen=self._last_seen,
        )

    @abstractmethod
    def _ask(self, stage: int, method: str, arguments: tuple[Any, ...]) -> None:
        """Ask one stage for a method of its service; the reply is heard later."""

    @abstractmethod
    def _listen(self, seconds: float) -> Iterable[Heard]:
        """Return what was heard, waiting for something for at most ``seconds``."""

    def _last_seen(self, stage: int) -> str:
        """Return what a stage was doing, where that is known better than from its signs of life."""
        del stage
        return ""

    def _link_up(self) -> None:
        """Bind all receiving ends, tell every stage its neighbours, and shake hands on every link."""
        limit = self._config.parallel.start_timeout
        bound: list[Address] = self._call("bind", limit=limit)
        above, below = [*bound[1:], None], [None, *bound[:-1]]
        groups = [meeting_point(bound)] * len(bound)
        self._call("connect", *zip(above, below, groups, strict=True), limit=limit)

    def run(self, segment: Segment) -> SegmentResult:
        start = time.perf_counter()
        summaries = self._call("run", *self._same(segment))
        return SegmentResult(time.perf_counter() - start, summaries)

    def save(self, directory: Path, done: OnSaved) -> None:
        self._saving[str(directory)] = ({}, done)
        through_driver = self._through_driver(directory)
        self._call("save", *self._same(str(directory), through_driver))

    def flush(self) -> None:
        start = time.monotonic()
        limit = self._config.parallel.action_timeout
        while self._saving:
            for heard in self._listen(POLL):
                self._take(heard, {})
            self._supervisor.check([])
            if time.monotonic() - start > limit:
                folder = next(iter(self._saving))
                raise CheckpointError(
                    f"{folder}: was not written within {limit:g} s (parallel.action_timeout)"
                )

    def load(self, directory: Path) -> None:
        files = None
        if self._through_driver(directory):
            files = {path.name: path.read_bytes() for path in directory.glob("*.safetensors")}
        self._call("load", *self._same(str(directory), files))

    def _through_driver(self, directory: Path) -> bool:
        """Return whether checkpoints go through the driver, as where a stage can't write to ``directory``."""
        del directory
        return False

    def _saved(self, stage: int, directory: str, packed: list[tuple[FileEntry, bytes | None]]) -> None:
        """Note the files of one stage; when all have theirs, the checkpoint is told to be done."""
        for entry, data in packed:
            if data is not None:
                write_file(Path(directory) / entry.name, data)
        entries, done = self._saving[directory]
        entries[stage] = [entry for entry, _ in packed]
        if len(entries) == self.layout.stages:
            del self._saving[directory]
            done([entry for each in range(self.layout.stages) for entry in entries[each]])

    def spans(self) -> list[list[Span]]:
        return self._call("spans")

    def _same(self, *arguments: Any) -> list[tuple[Any, ...]]:
        return [arguments] * self.layout.stages

    def _call(self, method: str, *arguments: Sequence[Any], limit: float | None = None) -> list[Any]:
        """Ask every stage for the same method, each with its own arguments; return their replies."""
        for stage in range(self.layout.stages):
            self._ask(stage, method, tuple(arguments[stage]) if arguments else ())
        return self._gather(f"to {method}", limit)

    def _gather(self, purpose: str, limit: float | None) -> list[Any]:
        """Return one reply of every stage, watching them all meanwhile.

        Raises:
            StageLostError: a stage dies or freezes.
            StageError: one raises, or ``limit`` seconds pass.
        """
        replies: dict[int, Any] = {}
        start = time.monotonic()
        while len(replies) < self.layout.stages:
            for heard in self._listen(POLL):
                self._take(heard, replies)
            owing = [stage for stage in range(self.layout.stages) if stage not in replies]
            self._supervisor.check(owing)
            if limit is not None and time.monotonic() - start > limit and owing:
                text = f"did not come {purpose} within {limit:g} s (parallel.start_timeout)"
                raise StageError(f"{self._supervisor.where(owing[0])}: {text}")
        return [replies[stage] for stage in range(self.layout.stages)]

    def _take(self, heard: Heard, replies: dict[int, Any]) -> None:
        stage, kind, value = heard
        if kind == "ended":
            raise self._supervisor.died(stage, value)
        self._supervisor.heard(stage, value if kind == "alive" else None)
        if kind == "report":
            self._on_report(value)
        elif kind == "reply":
            replies[stage] = value
        elif kind == "saved":
            self._saved(stage, *value)
        elif kind == "failed":
            raise failure_error(value)


def failure_error(failure: Failure) -> DtpDistError:
    """Return a stage's failure as the error to raise here, with its own class where it is one of ours."""
    cls = getattr(errors, failure.kind, None)
    if isinstance(cls, type) and issubclass(cls, DtpDistError):
        error: DtpDistError = cls(failure.message)
    else:
        error = StageError(f"{failure.where}: {failure.kind}: {failure.message}")
    error.add_note(failure.trace)
    return error
