"""TensorBoard's event files, written by the driver alone."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import IO, Any

from PIL.Image import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch import Tensor

from dtp_dist.algorithm.losses.metrics import Metrics
from dtp_dist.config import Config
from dtp_dist.monitor.base import Line, Monitor, writing
from dtp_dist.monitor.tensorboard import hparams, summaries
from dtp_dist.monitor.tensorboard.descriptions import Descriptions
from dtp_dist.monitor.tensorboard.history import History
from dtp_dist.monitor.tensorboard.tags import charts, tags_of
from dtp_dist.report.read import read_run
from dtp_dist.text.numbers import whole

CONFIG, EVENT, CHECKPOINTS = "run/resolved_config", "run/event", "run/written_checkpoints"


class TensorBoardLog(Monitor):
    """A run's values as scalars (``tags.py``), its events as text, and whatever else the driver shows.

    Written line by line, not by ``SummaryWriter``, whose thread loses the last seconds of a killed run and
    prints a traceback when the disk is full. Where a run goes back to an earlier step, TensorBoard is told to
    drop what came after it, so that the curves continue from there.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._file = _new_file(folder)
        self._lock = threading.Lock()  # pictures come from a thread of their own
        self.history = History()
        self._events: set[str] = set()
        self._descriptions: Descriptions | None = None
        self._described: set[str] = set()
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def introduce(self, config: Config, written: str, step: int, metrics: Metrics) -> None:
        """Say which run this is, from ``step`` on: its configuration, settings to compare, and charts.

        ``written``: the resolved configuration as YAML; "" where it was told already. ``metrics``: what the
        outputs are measured by.
        """
        self._descriptions = Descriptions(config)
        if step:
            self._remember(step)
        if written:
            self._summary(step, summaries.text(CONFIG, f"```yaml\n{written}\n```"))
        self._summary(step, hparams.experiment(config, metrics))
        self._summary(step, hparams.session_start(config))
        self._summary(step, summaries.layout(charts(config, metrics)))

    def write(self, line: Line) -> None:
        """Add the line; the step of an inverse pass is its minibatch."""
        step = int(line.details.get("minibatch", line.step))
        if line.event is not None:
            self._event(line)
        self.history.listen(line, step)
        values = tags_of(line.values, inverse_pass="phase" in line.details)
        self._summary(step, *(self._scalar(tag, value) for tag, value in values.items()))

    def _remember(self, step: int) -> None:
        """Take the curves of an earlier process, up to a step."""
        earlier = read_run(self._path.parent, trace=False)
        for line in earlier.lines:
            self.history.take(int(line.get("minibatch", line["step"])), line)
        self.history.go_back(step)

    def _scalar(self, tag: str, value: float) -> Any:
        """Return a scalar, with what is said of its tag when that is first shown."""
        if self._descriptions is None or tag in self._described:
            return summaries.scalar(tag, value)
        self._described.add(tag)
        return summaries.scalar(tag, value, self._descriptions.of(tag))

    def _event(self, line: Line) -> None:
        """Write an event under a name of its own, so that each is there once, whatever is read of a tag.

        TensorBoard keeps ten texts a tag, and one a step.
        """
        details = ", ".join(f"{name}: {value}" for name, value in line.details.items())
        if line.event in ("recovered", "resumed"):
            self._purge(line.step)
        if line.event == "checkpoint":
            self._summary(line.step, summaries.text(CHECKPOINTS, details))
            return
        tag = f"{EVENT} {time.strftime('%Y-%m-%d %H:%M:%S')} {line.event}"
        names = chain([tag], (f"{tag} ({number})" for number in count(2)))
        tag = next(name for name in names if name not in self._events)
        self._events.add(tag)
        self._summary(
            line.step, summaries.text(tag, f"{whole(line.time)} s, step {line.step}: {_one_line(details)}")
        )
        if line.event in ("finished", "failed", "interrupted"):
            self._summary(line.step, hparams.session_end(well=line.event == "finished"))

    def _purge(self, step: int) -> None:
        """Drop what was shown for later steps than ``step``: the run does them again."""
        self._add(
            Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START))
        )

    def histogram(self, step: int, tag: str, values: Tensor) -> None:
        """Add a histogram of finite values, at least one, of any shape."""
        self._summary(step, summaries.histogram(tag, values))

    def picture(self, step: int, tag: str, image: Image, description: str) -> None:
        """Add a picture; the description, Markdown, is what the page shows with it."""
        self._summary(step, summaries.picture(tag, image, description))

    def _summary(self, step: int, *summaries: Any) -> None:
        self._add(*(Event(wall_time=time.time(), step=step, summary=each) for each in summaries))

    def _add(self, *events: Any) -> None:
        with self._lock, writing(self._path):
            for event in events:
                summaries.write_record(self._file, event.SerializeToString())
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


def _one_line(text: str) -> str:
    return " ".join(text.split())
