"""``metrics.jsonl``: every line of a run as one JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dtp_dist.monitor.base import Line, Monitor


class MetricsLog(Monitor):
    """Appends and flushes each line, so that a killed run keeps what it measured."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: Line) -> None:
        """Append the line; ``details`` and values lie beside ``step``, ``epoch`` and ``time``."""
        record: dict[str, Any] = {"step": line.step, "epoch": line.epoch, "time": round(line.time, 3)}
        if line.event is not None:
            record["event"] = line.event
        record.update(line.details)
        record.update({name: float(f"{value:.6g}") for name, value in line.values.items()})
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
