"""What runtimes with processes share: call every stage, watch all meanwhile, link them up.

A runtime brings three things: how to start its stages, how to ask one of them something, and what was
heard from any of them. What that means is decided here and in ``supervisor.py``.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dtp_dist import errors
from dtp_dist.config import Config
from dtp_dist.data import Examples, unpacked
from dtp_dist.errors import DtpDistError, StageError, StartError, StorageError
from dtp_dist.runtime.base import OnReport, OnSaved, Result, Runtime, Say
from dtp_dist.runtime.errands import Errands
from dtp_dist.runtime.layout import layout_of
from dtp_dist.runtime.segment import Segment, SegmentResult
from dtp_dist.runtime.stage.handshake import Address, Failure, meeting_point
from dtp_dist.runtime.supervisor import Supervisor
from dtp_dist.schedule import Span
from dtp_dist.storage.checkpoint import FileEntry, layer_bytes
from dtp_dist.system import interruption
from dtp_dist.system.clock import AwakeClock
from dtp_dist.text.numbers import short

POLL = 0.2
LONGEST = 1.0
"""Seconds that a round of the loop that listens counts at most: the driver may have been stopped itself."""
ERRAND_GRACE = 20.0
"""Seconds for what is being written when the run ends early."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def thread_variables(config: Config) -> dict[str, str]:
    """Return the environment that gives a stage's process its threads before it imports torch."""
    return dict.fromkeys(THREAD_VARIABLES, str(config.parallel.threads))


class Heard(NamedTuple):
    """Something a stage said: ``alive``, ``report``, ``saved``, ``reply``, ``failed``; or ``ended`` of it."""

    stage: int
    kind: str
    value: Any = None


class Limit(NamedTuple):
    """How long all stages may take to reply: seconds, the key that says so, and what is raised after that."""

    seconds: float
    key: str
    error: type[StageError]


class ProcessRuntime(Runtime):
    """Stages in processes of their own, wherever those are."""

    def __init__(self, config: Config, on_report: OnReport, generation: int) -> None:
        self.layout = layout_of(config)
        self._config, self._on_report, self._generation = config, on_report, generation
        self._devices: list[str] = []
        self._saving: dict[str, tuple[dict[int, list[FileEntry]], OnSaved]] = {}
        self._errands = Errands()
        self._supervisor = Supervisor(
            self.layout,
            config.parallel.failure_timeout,
            config.parallel.action_timeout,
            doing=self._doing,
        )

    def _start_or_close(self, start: Callable[[], None], say: Say) -> None:
        """Start all stages; if that fails, nothing of them stays."""
        say(f"starting {self.layout.stages} stages")
        try:
            start()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _ask(self, stage: int, method: str, arguments: tuple[Any, ...]) -> None:
        """Ask one stage for a method of its service; the reply is heard later."""

    @abstractmethod
    def _listen(self, seconds: float) -> Iterable[Heard]:
        """Return all that was heard by now, waiting for something for at most ``seconds``."""

    def _doing(self, stage: int) -> str:
        """Return what a stage was doing, where that is known better than from its signs of life."""
        del stage
        return ""

    def close(self) -> None:
        """Wait for what is being done aside, which may be writing into the run's folder."""
        self._errands.close(ERRAND_GRACE)

    def _link_up(self) -> None:
        """Bind all receiving ends, inform every stage of its neighbours, and shake hands on every link."""
        limit = self._start_limit
        bound: list[Address] = self._call("bind", limit=limit)
        self._devices = [address.device for address in bound]
        above, below = [*bound[1:], None], [None, *bound[:-1]]
        groups = [meeting_point(bound)] * len(bound)
        self._call("connect", *zip(above, below, groups, strict=True), limit=limit)

    def run(self, segment: Segment) -> SegmentResult:
        start = time.perf_counter()
        summaries = self._call("run", *self._same(segment), limit=None)  # each action has one of its own
        return SegmentResult(time.perf_counter() - start, summaries)

    def save(self, directory: Path, done: OnSaved) -> None:
        self._saving[str(directory)] = ({}, done)
        through_driver = self._through_driver(directory)
        self._call("save", *self._same(str(directory), through_driver), limit=self._action_limit)

    def aside(self, purpose: str, work: Callable[[], Result], then: Callable[[Result], None]) -> None:
        self._errands.begin(purpose, work, then)

    def flush(self) -> None:
        clock, limit = AwakeClock(LONGEST), self._config.parallel.action_timeout
        while (purpose := next(iter(self._saving), self._errands.current)) is not None:
            self._hear({})
            self._supervisor.check([])
            if clock() > limit:
                late = f"was not done within {short(limit)} s (parallel.action_timeout)"
                raise StorageError(f"{purpose}: {late}; is the disk slow?")

    def load(self, directory: Path) -> None:
        through_driver = self._through_driver(directory)
        for stage in range(self.layout.stages):
            layers = self.layout.layers(stage)
            files = {index: layer_bytes(directory, index) for index in layers} if through_driver else None
            self._ask(stage, "load", (str(directory), files))
        self._gather("to load", self._action_limit)

    def devices(self) -> list[str]:
        return self._devices

    def _through_driver(self, directory: Path) -> bool:
        """Return whether checkpoints go through the driver, as where a stage can't write to ``directory``."""
        del directory
        return False

    def _saved(self, stage: int, directory: str, entries: list[FileEntry]) -> None:
        """Note that the files of one stage are whole; when all are, the checkpoint is told to be done."""
        saved, done = self._saving[directory]
        saved[stage] = entries
        if len(saved) == self.layout.stages:
            del self._saving[directory]
            done([entry for each in range(self.layout.stages) for entry in saved[each]])

    def spans(self) -> list[list[Span]]:
        return self._call("spans", limit=self._action_limit)

    def examples(self, split: str, count: int) -> Examples:
        return unpacked(self._call("examples", *self._same(split, count), limit=self._action_limit)[0])

    def _same(self, *arguments: Any) -> list[tuple[Any, ...]]:
        return [arguments] * self.layout.stages

    @property
    def _start_limit(self) -> Limit:
        return Limit(self._config.parallel.start_timeout, "start_timeout", StartError)

    @property
    def _action_limit(self) -> Limit:
        return Limit(self._config.parallel.action_timeout, "action_timeout", StageError)

    def _call(self, method: str, *arguments: Sequence[Any], limit: Limit | None) -> list[Any]:
        """Ask every stage for the same method, each with its own arguments; return their replies."""
        for stage in range(self.layout.stages):
            self._ask(stage, method, tuple(arguments[stage]) if arguments else ())
        return self._gather(f"to {method}", limit)

    def _gather(self, purpose: str, limit: Limit | None) -> list[Any]:
        """Return one reply of every stage, watching them all meanwhile.

        Raises:
            StageLostError: a stage dies or freezes.
            StageError: one raises, or the limit passes; StartError where it is the start's.
        """
        replies: dict[int, Any] = {}
        clock = AwakeClock(LONGEST)
        while len(replies) < self.layout.stages:
            self._hear(replies)
            owing = [stage for stage in range(self.layout.stages) if stage not in replies]
            self._supervisor.check(owing)
            if limit is not None and clock() > limit.seconds and owing:
                text = f"did not come {purpose} within {short(limit.seconds)} s (parallel.{limit.key})"
                raise limit.error(f"{self._supervisor.where(owing[0])}: {text}")
        return [replies[stage] for stage in range(self.layout.stages)]

    def _hear(self, replies: dict[int, Any]) -> None:
        """Take all that the stages have said, and what has been done aside, before anybody is judged."""
        interruption.check()
        for heard in self._listen(POLL):
            self._take(heard, replies)
        self._errands.finish()

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
            nodes = self.nodes()
            raise failure_error(value, self.layout.describe(stage), nodes[stage] if nodes else "")


def failure_error(failure: Failure, stage: str, node: str = "") -> DtpDistError:
    """Return a stage's failure as the error to raise here, with its own class where it is one of ours.

    It names the stage, which is ``stage`` in words, and the node where there are several.
    """
    on_node = f" on {node}" if node else ""
    cls = getattr(errors, failure.kind, None)
    if isinstance(cls, type) and issubclass(cls, DtpDistError):
        named = failure.message.startswith("stage ")
        error: DtpDistError = cls(failure.message if named else f"{stage}{on_node}: {failure.message}")
    else:
        error = StageError(f"{failure.where}{on_node}: {failure.kind}: {failure.message}")
    error.add_note(failure.trace)
    return error
