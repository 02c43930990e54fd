"""TensorBoard's event files, written by the driver alone."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

import torch
from PIL.Image import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard import summary

from dtp_dist.config import Config
from dtp_dist.monitor import hparams
from dtp_dist.monitor.base import Line, Monitor, writing
from dtp_dist.monitor.tags import charts, tags_of

CONFIG, EVENTS, CHECKPOINTS = "run/resolved_config", "run/events", "run/written_checkpoints"
BINS = 60
_scalar: Callable[[str, float], Any] = summary.scalar
_text: Callable[[str, str], Any] = summary.text
_layout: Callable[[Any], Any] = summary.custom_scalars


class TensorBoardLog(Monitor):
    """A run's values as scalars (``tags.py``), its events as text, and whatever else the driver shows.

    Written line by line, not by ``SummaryWriter``, whose thread loses the last seconds of a killed run and
    prints a traceback when the disk is full. Where a run goes back to an earlier step, TensorBoard is told to
    drop what came after it, so that the curves go on from there.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._file = _new_file(folder)
        self._records = RecordWriter(self._file)
        self._events: list[str] = []
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def introduce(self, config: Config, written: str, step: int) -> None:
        """Say which run this is, from ``step`` on: its configuration, settings to compare, and charts.

        ``written``: the resolved configuration as YAML.
        """
        self._summary(step, _named_text(CONFIG, f"```yaml\n{written}\n```"))
        self._summary(step, hparams.experiment(config))
        self._summary(step, hparams.session_start(config))
        self._summary(step, _layout(charts(config)))

    def write(self, line: Line) -> None:
        """Add the line; the step of an inverse pass is its minibatch."""
        step = int(line.details.get("minibatch", line.step))
        if line.event is not None:
            self._event(line)
        values = tags_of(line.values, inverse_pass="phase" in line.details)
        self._summary(step, *(_scalar(tag, value) for tag, value in values.items()))

    def _event(self, line: Line) -> None:
        """Tell an event: checkpoints by themselves, all others in one list that grows.

        TensorBoard keeps one text a tag and step, and several events may share a step.
        """
        details = ", ".join(f"{name}: {value}" for name, value in line.details.items())
        if line.event in ("recovered", "resumed"):
            self._purge(line.step)
        if line.event == "checkpoint":
            self._summary(line.step, _named_text(CHECKPOINTS, details))
            return
        self._events.append(f"- {line.time:.0f} s, step {line.step}: **{line.event}** {_one_line(details)}")
        self._summary(line.step, _named_text(EVENTS, "\n".join(self._events)))
        if line.event in ("finished", "failed", "interrupted"):
            self._summary(line.step, hparams.session_end(well=line.event == "finished"))

    def _purge(self, step: int) -> None:
        """Drop what was shown for later steps than ``step``: the run does them again."""
        self._add(
            Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START))
        )

    def histogram(self, step: int, tag: str, values: Tensor) -> None:
        """Add a histogram of finite values, at least one, of any shape."""
        self._summary(step, histogram(tag, values))

    def picture(self, step: int, tag: str, image: Image, description: str) -> None:
        """Add a picture; the description, Markdown, is what the page shows beside it."""
        with io.BytesIO() as data:
            image.save(data, format="PNG")
            encoded = data.getvalue()
        parts = [str(image.width).encode(), str(image.height).encode(), encoded]
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(parts))])
        tensor = TensorProto(dtype="DT_STRING", string_val=parts, tensor_shape=shape)
        metadata = create_summary_metadata(tag, description)
        self._summary(step, Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)]))

    def _summary(self, step: int, *summaries: Any) -> None:
        self._add(*(Event(wall_time=time.time(), step=step, summary=each) for each in summaries))

    def _add(self, *events: Any) -> None:
        with writing(self._path):
            for event in events:
                self._records.write(event.SerializeToString())
            self._file.flush()

    def close(self) -> None:
        """Close the file; what could not be written was told by then."""
        with suppress(OSError):
            self._file.close()


def _new_file(folder: Path) -> tuple[Path, IO[bytes]]:
    """Open a new file; a process that opens several in one second numbers them in their order."""
    stem = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
    for number in count():
        path = folder / f"{stem}.{number}"
        with suppress(FileExistsError):
            return path, path.open("xb")
    raise AssertionError


def _named_text(tag: str, text: str) -> Any:
    """Return a text under the very tag, without the suffix that torch gives it."""
    found = _text(tag, text)
    found.value[0].tag = tag
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())


def histogram(tag: str, values: Tensor) -> Any:
    """Return the summary of a histogram of ``BINS`` equal bins over the values' range."""
    flat = values.detach().flatten().to(torch.float32)
    low, high = (float(each) for each in torch.aminmax(flat))
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = torch.histc(flat, BINS, low, high).tolist()
    limits = torch.linspace(low, high, BINS + 1, dtype=torch.float64).tolist()
    total, squares = float(flat.sum()), float(flat.square().sum())
    make: Callable[..., Any] = summary.histogram_raw
    return make(tag, low, high, flat.numel(), total, squares, limits, [0.0, *counts])
