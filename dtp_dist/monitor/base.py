"""One interface for everything that listens to a run."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtp_dist.storage.files import unwritable
from dtp_dist.system.interruption import held


@dataclass(frozen=True)
class Line:
    """One line of what happened.

    Attributes:
        step: minibatches whose last update is done.
        epoch: 1-based.
        time: seconds since the run's start.
        values: measured values by name (losses, errors in percent, shares of time, samples/s).
        event: its name, None for a line of values.
        details: the event's, or ``minibatch`` and ``phase`` of an inverse pass.
    """

    step: int
    epoch: int
    time: float
    values: Mapping[str, float] = field(default_factory=dict)
    event: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write ``path`` (no space, no right) into one line that names it.

    Raises:
        StorageError: it can't be written.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from None


class Monitor(ABC):
    """Someone who is told every line."""

    @abstractmethod
    def write(self, line: Line) -> None:
        """Take one line."""

    def say(self, text: str) -> None:
        """Take what the run is waiting for while it starts."""
        del text  # most don't care

    @abstractmethod
    def close(self) -> None:
        """Finish; a second call does nothing."""


class Monitors:
    """All listeners of a run, and its clock."""

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self._monitors = list(monitors)
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the run's start."""
        return time.monotonic() - self._start

    def values(self, step: int, epoch: int, values: Mapping[str, float], **details: Any) -> None:
        """Tell measured values."""
        self._write(Line(step, epoch, self.seconds, values, None, details))

    def event(self, step: int, epoch: int, name: str, **details: Any) -> None:
        """Tell an event."""
        self._write(Line(step, epoch, self.seconds, {}, name, details))

    @held()
    def say(self, text: str) -> None:
        """Tell what the run is waiting for while it starts: for whoever watches, it is kept nowhere."""
        for monitor in self._monitors:
            monitor.say(text)

    def add(self, monitor: Monitor) -> None:
        """Let one more listen from now on."""
        self._monitors.append(monitor)

    @held()
    def _write(self, line: Line) -> None:
        for monitor in self._monitors:
            monitor.write(line)

    @held()
    def close(self) -> None:
        """Finish all."""
        for monitor in self._monitors:
            monitor.close()
