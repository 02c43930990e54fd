"""A user's monitor among ours: what goes wrong in it ends the run in one line that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dtp_dist.errors import CallbackError, ConfigError, in_one_line
from dtp_dist.monitor.base import Epoch, Line, Monitor, Start


class Guest(Monitor):
    """Hands on to a user's monitor; once one of its methods has raised, only ``close`` is called.

    Raises:
        CallbackError: its methods raise this where the monitor's raise anything.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor, self._failed = monitor, False

    def __str__(self) -> str:
        return type(self._monitor).__qualname__

    def begin(self, start: Start) -> None:
        with self._named("begin"):
            self._monitor.begin(start)

    def write(self, line: Line) -> None:
        if not self._failed:
            with self._named("write"):
                self._monitor.write(line)

    def end_epoch(self, epoch: Epoch) -> bool | None:
        with self._named("end_epoch"):
            return self._monitor.end_epoch(epoch)

    def say(self, text: str) -> None:
        with self._named("say"):
            self._monitor.say(text)

    def close(self) -> None:
        with self._named("close"):
            self._monitor.close()

    @contextmanager
    def _named(self, method: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._failed = True
            said = in_one_line(error)
            raise CallbackError(f"monitors: {self}.{method}{_place(error)} raised {said}") from error


def _place(error: BaseException) -> str:
    """Return the line of the monitor's own method in which an error came up, in words."""
    trace = error.__traceback__
    own = trace and trace.tb_next and trace.tb_next.tb_next  # past _named and Guest
    return f" ({own.tb_frame.f_code.co_filename}, line {own.tb_lineno})" if own else ""


def guests(monitors: object) -> list[Guest]:
    """Return a list of users' monitors as guests.

    Raises:
        ConfigError: it is no list, or one of them no monitor.
    """
    if not isinstance(monitors, list | tuple):
        raise ConfigError(f"monitors: {monitors!r} is no list; write monitors=[...]")
    found = []
    for monitor in monitors:
        if isinstance(monitor, type) and issubclass(monitor, Monitor):
            name = monitor.__qualname__
            raise ConfigError(f"monitors: {name} is a class; write {name}()")
        if not isinstance(monitor, Monitor):
            text = f"{type(monitor).__qualname__} is no monitor; derive the class from dtp_dist.Monitor"
            raise ConfigError(f"monitors: {text}")
        found.append(Guest(monitor))
    return found
