"""One interface for everything that listens to a run."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtp_dist.storage.files import unwritable
from dtp_dist.system.interruption import held


@dataclass(frozen=True)
class Start:
    """What is known of a run before its stages start.

    Attributes:
        name: of the experiment.
        run_dir: its folder.
        steps: minibatches of the whole run.
        epochs: of the whole run.
        step: minibatches that are done; 0 unless the run is resumed.
    """

    name: str
    run_dir: Path
    steps: int
    epochs: int
    step: int = 0


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


@dataclass(frozen=True)
class Epoch:
    """An epoch that has ended.

    Attributes:
        number: 1-based.
        step: minibatches whose last update is done.
        time: seconds since the run's start.
        values: its means over the training examples (``train_loss_of_epoch``, ``train_error_of_epoch``), its
            speed (``samples_per_second_of_epoch``), and where it is evaluated (``train.evaluate_every``) the
            losses and metrics of ``valid`` and ``test`` (``valid_error``), named as in ``metrics.jsonl``.
    """

    number: int
    step: int
    time: float
    values: Mapping[str, float]

    @property
    def samples_per_second(self) -> float:
        """Training examples per second of its training, without evaluations and checkpoints."""
        return self.values["samples_per_second_of_epoch"]


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


class Monitor:
    """Someone who is told what happens in a run: a subclass overrides what it wants to know.

    All methods are called by the process that trains, or that started the stages, one after the other. The
    run waits for them, so slow work belongs in a thread. None of them changes what is learned.
    """

    def begin(self, start: Start) -> None:
        """Take what is known of the run; called once, before its stages start."""

    def write(self, line: Line) -> None:
        """Take measured values, every ``monitor.every`` minibatches and after epochs, or an event."""

    def end_epoch(self, epoch: Epoch) -> bool | None:
        """Take an epoch that has ended; returns whether training shall end with it (None: it need not)."""

    def say(self, text: str) -> None:
        """Take what the run is waiting for while it starts."""

    def close(self) -> None:
        """Finish, however the run has ended; a second call does nothing."""


class Monitors:
    """All listeners of a run, and its clock.

    Args:
        monitors: our own, which no signal interrupts.
        guests: the user's (``Guest``), told after them; they may be slow, and can be interrupted.
    """

    def __init__(self, monitors: Sequence[Monitor], guests: Sequence[Monitor] = ()) -> None:
        self._monitors, self._guests, self._aside = list(monitors), list(guests), list[Monitor]()
        self._warnings: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._place = (0, 1)
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the run's start."""
        return time.monotonic() - self._start

    def begin(self, start: Start) -> None:
        """Report what is known of the run."""
        self._tell(lambda each: each.begin(start))

    def values(self, step: int, epoch: int, values: Mapping[str, float], **details: Any) -> None:
        """Report measured values."""
        self._write(Line(step, epoch, self.seconds, values, None, details))

    def event(self, step: int, epoch: int, name: str, **details: Any) -> None:
        """Report an event."""
        self._write(Line(step, epoch, self.seconds, {}, name, details))

    def end_epoch(self, step: int, number: int, values: Mapping[str, float]) -> list[str]:
        """Report that an epoch has ended, and return who asks to end training with it."""
        epoch = Epoch(number, step, self.seconds, values)
        return [str(each) for each in (*self._monitors, *self._guests) if each.end_epoch(epoch)]

    def say(self, text: str) -> None:
        """Report what the run is waiting for while it starts: for whoever watches, it is kept nowhere."""
        self._tell(lambda each: each.say(text))

    def add(self, monitor: Monitor) -> None:
        """Let one more listen from now on."""
        self._monitors.append(monitor)

    def add_aside(self, monitor: Monitor) -> None:
        """Let one more listen that works in a thread of its own, and may ``warn``; it is closed first."""
        self._aside.append(monitor)
        self._monitors.append(monitor)

    def warn(self, text: str) -> None:
        """Report a warning, from any thread: it is passed on with the next line."""
        self._warnings.put(text)

    def _write(self, line: Line) -> None:
        self._place = (line.step, line.epoch)
        self._tell(lambda each: each.write(line))
        self._pass_on()

    def _pass_on(self) -> None:
        with suppress(queue.Empty):
            while text := self._warnings.get_nowait():
                self.event(*self._place, "warning", message=text)

    def _tell(self, tell: Callable[[Monitor], None]) -> None:
        with held():
            for monitor in self._monitors:
                tell(monitor)
        for guest in self._guests:
            tell(guest)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Finish all in the end; an error of theirs does not hide one that ends the block."""
        try:
            yield
        except BaseException:
            with suppress(Exception):
                self.close()
            raise
        self.close()

    @held()
    def close(self) -> None:
        """Finish all, also where one of them fails to, whose error is raised in the end."""
        with ExitStack() as due:
            for monitor in reversed((*self._monitors, *self._guests)):
                due.callback(monitor.close)
            due.callback(self._pass_on)
            for monitor in self._aside:
                due.callback(monitor.close)
