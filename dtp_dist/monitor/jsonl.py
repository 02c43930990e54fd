"""``metrics.jsonl``: every line of a run as one JSON object."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from dtp_dist.monitor.base import Line, Monitor, writing


class MetricsLog(Monitor):
    """Appends each line at once, so that a killed run keeps what it measured; never leaves half a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, line: Line) -> None:
        """Append the line; ``details`` and values lie beside ``step``, ``epoch`` and ``time``."""
        record: dict[str, Any] = {"step": line.step, "epoch": line.epoch, "time": round(line.time, 3)}
        if line.event is not None:
            record["event"] = line.event
        record.update(line.details)
        record.update({name: float(f"{value:.6g}") for name, value in line.values.items()})
        with writing(self._path):
            self._append((json.dumps(record) + "\n").encode())

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
