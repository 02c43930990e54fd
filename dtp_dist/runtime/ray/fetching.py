"""Which files of a checkpoint the driver still has to fetch: one at a time, so that no link is filled."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import NamedTuple

from dtp_dist.storage.checkpoint import FileEntry


class Wanted(NamedTuple):
    """One file of one stage, for one folder."""

    stage: int
    directory: str
    entry: FileEntry


class FilesToFetch:
    """The files in the order in which they were announced."""

    def __init__(self) -> None:
        self._waiting: deque[Wanted] = deque()
        self._of: dict[tuple[int, str], list[FileEntry]] = {}
        self._under_way: Wanted | None = None

    def add(self, stage: int, directory: str, entries: list[FileEntry]) -> None:
        """Announce all files of a stage."""
        self._of[stage, directory] = entries
        self._waiting.extend(Wanted(stage, directory, entry) for entry in entries)

    def next(self) -> Wanted | None:
        """Return the file to fetch now, None if one is under way or none is left."""
        if self._under_way is not None or not self._waiting:
            return None
        self._under_way = self._waiting.popleft()
        return self._under_way

    @property
    def current(self) -> Path:
        """Where the file that is under way belongs."""
        assert self._under_way is not None
        return Path(self._under_way.directory) / self._under_way.entry.name

    def done(self) -> tuple[int, str, list[FileEntry]] | None:
        """Note that it is written; return its stage, folder and all files if it was the stage's last."""
        assert self._under_way is not None
        stage, directory, entry = self._under_way
        self._under_way = None
        entries = self._of[stage, directory]
        if entry != entries[-1]:
            return None
        del self._of[stage, directory]
        return stage, directory, entries
