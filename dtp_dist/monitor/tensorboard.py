"""TensorBoard's event files, written by the driver alone."""

from __future__ import annotations

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from dtp_dist.monitor.base import Line, Monitor


class TensorBoardLog(Monitor):
    """Values as scalars, grouped as ``learning``, ``layer`` and ``stage``; events as text."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder), flush_secs=10)

    def write(self, line: Line) -> None:
        """Add the line; the step of an inverse pass is its minibatch."""
        step = int(line.details.get("minibatch", line.step))
        for name, value in line.values.items():
            tag = name if "/" in name else f"learning/{name}"
            self._writer.add_scalar(tag, value, step)
        if line.event is not None:
            text = ", ".join(f"{name}: {value}" for name, value in line.details.items())
            self._writer.add_text("events", f"{line.event}: {text}", step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()
