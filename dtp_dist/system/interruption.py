"""The signals that ask this process to end: the first is never lost, and no later one disturbs the closing.

A signal raises an exception where the main thread is. Some places drop an exception: a finalizer, a
callback, an import that is half done. So it is noted as well, and whoever waits in a loop asks for it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_SECONDS = 0.05


class Interruption(KeyboardInterrupt):
    """A signal has asked this process to end.

    It has a class of its own because Python kills itself by SIGINT in the end if a plain KeyboardInterrupt
    once left code that was compiled from a string, as that of every named tuple, wherever it was caught.
    """


@dataclass
class _State:
    """What was asked of this process: the first signal, whether it was raised, how many hold it up."""

    asked: signal.Signals | None = None
    raised: bool = False
    holders: int = 0


_state = _State()


def take_signals() -> None:
    """Let a signal end this process in good order; one that the caller has it ignore stays ignored."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _note)
    sys.unraisablehook = _unraisable
    sys.excepthook = _uncaught


def asked() -> signal.Signals | None:
    """Return the signal that has asked this process to end, None if none has."""
    return _state.asked


def check() -> None:
    """Raise what a signal has asked for, in case that the exception was dropped on its way.

    Raises:
        Interruption: a signal has come.
    """
    if _state.asked is not None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        raise Interruption(_words(_state.asked))


@contextmanager
def held() -> Iterator[None]:
    """Hold a signal up while something is done as a whole, such as closing.

    Raises:
        Interruption: the first signal came meanwhile; at the end.
    """
    _state.holders += 1
    try:
        yield
    finally:
        _state.holders -= 1
        _raise_once()


def finish() -> None:
    """Let no signal do anything from now on: this process ends by itself at once.

    They are ignored, since Python puts their defaults back on its way out.
    """
    _state.holders += 1
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _note(number: int, frame: FrameType | None) -> None:
    del frame
    if _state.asked is None:
        _state.asked = signal.Signals(number)
    _raise_once()


def _raise_once() -> None:
    if _state.asked is not None and not _state.raised and not _state.holders:
        _state.raised = True
        raise Interruption(_words(_state.asked))


def _words(number: signal.Signals) -> str:
    return "" if number is signal.SIGINT else f"signal {number.name}"


def _unraisable(what: Any) -> None:
    """Print nothing of an interruption that was dropped, but raise it again soon, in a better place."""
    if not issubclass(what.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(what)
    elif not _state.holders:
        signal.signal(signal.SIGALRM, _again)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)


def _again(number: int, frame: FrameType | None) -> None:
    del number, frame
    _state.raised = False
    _raise_once()


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print nothing of one that native code meets while it is imported."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
