"""Slow work of a driver, done in a thread of its own while the driver listens to its stages."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class Errands:
    """One piece of work after the other; what follows from each is done by whoever calls ``finish``."""

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._open: deque[tuple[str, Callable[[Any], None]]] = deque()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def begin(self, purpose: str, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Do ``work`` in the thread; ``purpose`` says in an error what it is for."""
        if self._thread is None:  # a daemon: a disk that hangs must not keep the process from ending
            self._thread = threading.Thread(target=self._serve, name="errands", daemon=True)
            self._thread.start()
        self._open.append((purpose, then))
        self._todo.put(work)

    def finish(self) -> None:
        """Call ``then`` with the result of all work that is done by now, or raise what the work raised."""
        while self._open:
            try:
                result, error = self._done.get_nowait()
            except queue.Empty:
                return
            _, then = self._open.popleft()
            if error is not None:
                raise error
            then(result)

    @property
    def current(self) -> str | None:
        """What the oldest unfinished work is for, None if there is none."""
        return self._open[0][0] if self._open else None

    def close(self, seconds: float) -> None:
        """Begin nothing more, and wait at most so long for the work that is being done."""
        self._closed.set()
        if self._thread is not None:
            self._todo.put(lambda: None)
            self._thread.join(seconds)

    def _serve(self) -> None:
        while True:
            work = self._todo.get()
            if self._closed.is_set():
                return
            try:
                self._done.put((work(), None))
            except BaseException as error:
                self._done.put((None, error))
