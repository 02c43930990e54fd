"""What every runtime does: run segments, save and load, report what happened when, and end cleanly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from dtp_dist.data import Examples
from dtp_dist.runtime.layout import Layout
from dtp_dist.runtime.segment import Report, Segment, SegmentResult
from dtp_dist.schedule import Span
from dtp_dist.storage.checkpoint import FileEntry

OnReport = Callable[[Report], None]
Say = Callable[[str], None]
"""Takes what a runtime is waiting for while it starts, in words."""

OnSaved = Callable[[list[FileEntry]], None]
Result = TypeVar("Result")


class Runtime(ABC):
    """The stages of one run, ready to run segments; a context manager that leaves nothing behind."""

    layout: Layout

    @abstractmethod
    def run(self, segment: Segment) -> SegmentResult:
        """Run one segment in all stages until the pipeline is drained.

        Raises:
            StageError: a stage died, froze or raised.
            NonFiniteError: a loss became NaN or infinite.
            LinkError, MessageError: a link failed.
        """

    @abstractmethod
    def save(self, directory: Path, done: OnSaved) -> None:
        """Write all layers' states as they are now into ``directory``; training may continue meanwhile.

        ``done`` is called with all files, in layer order, when they are whole: during a later call of this
        runtime, at the latest in ``flush``.
        """

    def aside(self, purpose: str, work: Callable[[], Result], then: Callable[[Result], None]) -> None:
        """Do slow work while the stages continue; then, in the caller's thread, what follows from its result.

        ``then`` is called during a later call of this runtime, at the latest in ``flush``; here, where nobody
        is to be watched meanwhile, both are done at once. ``purpose`` says in an error what it is for.
        """
        del purpose
        then(work())

    @abstractmethod
    def flush(self) -> None:
        """Wait until everything that is being saved or done aside is done.

        Raises:
            StorageError: it can't be written.
        """

    @abstractmethod
    def load(self, directory: Path) -> None:
        """Put back all layers' states from ``directory``."""

    @abstractmethod
    def spans(self) -> list[list[Span]]:
        """Return every stage's last actions and waits."""

    @abstractmethod
    def examples(self, split: str, count: int) -> Examples:
        """Return the first examples of a split, or all there are, from the stage that has the data."""

    @abstractmethod
    def close(self) -> None:
        """End every stage; a second call does nothing."""

    def processes(self) -> list[int]:
        """Return the stages' process ids, none where they have no process of their own."""
        return []

    @abstractmethod
    def devices(self) -> list[str]:
        """Return the name of every stage's device, e.g. "cpu" or "cuda:0 (NVIDIA L4)"."""

    def nodes(self) -> list[str]:
        """Return host name and address of every stage's node, nothing where all is on this machine."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
