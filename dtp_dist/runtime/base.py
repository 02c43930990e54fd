"""What every runtime does: run segments, save and load, tell what happened when, and end cleanly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from dtp_dist.checkpoint import FileEntry
from dtp_dist.runtime.layout import Layout
from dtp_dist.runtime.segment import Report, Segment, SegmentResult, Span

OnReport = Callable[[Report], None]
OnSaved = Callable[[list[FileEntry]], None]


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
        """Write all layers' states as they are now into ``directory``; training may go on meanwhile.

        ``done`` is called with all files, in layer order, when they are whole: during a later call of this
        runtime, at the latest in ``flush``.
        """

    @abstractmethod
    def flush(self) -> None:
        """Wait until everything that is being saved is done.

        Raises:
            CheckpointError: it can't be written.
        """

    @abstractmethod
    def load(self, directory: Path) -> None:
        """Put back all layers' states from ``directory``."""

    @abstractmethod
    def spans(self) -> list[list[Span]]:
        """Return every stage's last actions and waits."""

    @abstractmethod
    def close(self) -> None:
        """End every stage; a second call does nothing."""

    def processes(self) -> list[int]:
        """Return the stages' process ids, none where they have no process of their own."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
