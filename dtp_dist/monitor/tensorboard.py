"""TensorBoard's event files, written by the driver alone."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from dtp_dist.monitor.base import Line, Monitor, writing

_scalar: Callable[[str, float], Any] = summary.scalar
_text: Callable[[str, str], Any] = summary.text


class TensorBoardLog(Monitor):
    """Values as scalars, grouped as ``learning``, ``layer`` and ``stage``; events as text.

    Written line by line, not by ``SummaryWriter``, whose thread loses the last seconds of a killed run and
    prints a traceback when the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file = self._path.open("wb")
        self._records = RecordWriter(self._file)
        self._add([Event(wall_time=time.time(), file_version="brain.Event:2")])

    def write(self, line: Line) -> None:
        """Add the line; the step of an inverse pass is its minibatch."""
        step = int(line.details.get("minibatch", line.step))
        summaries = [
            _scalar(name if "/" in name else f"learning/{name}", value) for name, value in line.values.items()
        ]
        if line.event is not None:
            details = ", ".join(f"{name}: {value}" for name, value in line.details.items())
            summaries.append(_text("events", f"{line.event}: {details}"))
        self._add([Event(wall_time=time.time(), step=step, summary=each) for each in summaries])

    def _add(self, events: Sequence[Any]) -> None:
        with writing(self._path):
            for event in events:
                self._records.write(event.SerializeToString())
            self._file.flush()

    def close(self) -> None:
        """Close the file; what could not be written was told by then."""
        with suppress(OSError):
            self._file.close()
