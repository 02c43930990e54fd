"""``metrics.jsonl``: every line of a run as one JSON object."""

from __future__ import annotations

import json
import mmap
from contextlib import suppress
from pathlib import Path
from typing import Any

from dtp_dist.monitor.base import Line, Monitor, writing
from dtp_dist.text.foreign import open_log


class MetricsLog(Monitor):
    """Appends each line at once, so that a killed run keeps what it measured; never leaves half a line.

    One that an earlier process left is ended or cut off before anything is appended.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            self._file = open_log(path)
            self._end_last_line()

    def write(self, line: Line) -> None:
        """Append the line; ``details`` and values lie next to ``step``, ``epoch`` and ``time``."""
        record: dict[str, Any] = {"step": line.step, "epoch": line.epoch, "time": round(line.time, 3)}
        if line.event is not None:
            record["event"] = line.event
        record.update(line.details)
        record.update({name: float(f"{value:.6g}") for name, value in line.values.items()})
        with writing(self._path):
            self._append((json.dumps(record) + "\n").encode())

    def _end_last_line(self) -> None:
        """End the last line of an earlier attempt if nothing but its end is missing, else cut it off."""
        if not self._file.tell():
            return
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            whole = content.rfind(b"\n") + 1
            rest = content[whole:]
        if not rest:
            return
        if _is_record(rest):
            self._file.write(b"\n")
        else:
            self._file.truncate(whole)
            self._file.seek(whole)

    def _append(self, data: bytes) -> None:
        whole = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(whole)
                self._file.seek(whole)
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _is_record(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
