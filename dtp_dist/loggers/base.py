"""What an experiment tracker's file brings: a class that begins a run there, takes its measures, ends it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

Parameters = Mapping[str, str | int | float | bool]
"""Settings by dotted key."""


class Point(NamedTuple):
    """Values that were measured at ``step``, at ``time`` in seconds since 1970."""

    step: int
    time: float
    values: Mapping[str, float]


class State(StrEnum):
    """How a run has ended."""

    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Tracked:
    """A run as a tracker gets to know it.

    Attributes:
        experiment: its name, of which there may be many runs.
        run_dir: its folder.
        parameters: the resolved configuration, without secrets.
    """

    experiment: str
    run_dir: Path
    parameters: Parameters


class Logger(ABC):
    """A run in an experiment tracker.

    All methods are called in one thread, which is not the one that trains. Each may take long, and raise
    anything: that is reported as a warning, and tried again later with whatever has come by then.
    """

    @abstractmethod
    def open(self, run: Tracked, kept: str | None) -> str:
        """Begin a run, or continue that of an earlier process, whose id is ``kept``; returns its id.

        Another id than ``kept`` says that there is no such run any more.
        """

    @abstractmethod
    def log(self, points: Sequence[Point]) -> None:
        """Take measured values; some may come twice, where an earlier call of this method has raised."""

    @abstractmethod
    def end(self, state: State, facts: Mapping[str, str]) -> None:
        """End the run; ``facts`` are what else is known of it then."""
