"""What a person sees: a live view on a terminal, plain lines otherwise."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live

from dtp_dist.monitor.base import Line, Monitor
from dtp_dist.monitor.live import View

PLAIN_SECONDS = 5.0
REFRESH_SECONDS = 0.5  # drawing takes milliseconds that a stage may need; no thread draws
_SHOWN = {
    "train_loss": ("train loss", "{:.4f}"),
    "train_error": ("train error", "{:.2f} %"),
    "valid_error": ("valid error", "{:.2f} %"),
    "test_error": ("test error", "{:.2f} %"),
    "samples_per_second": ("samples/s", "{:.0f}"),
}


def in_words(line: Line) -> str:
    """Return a line's main values as text."""
    shown = [
        f"{label} {form.format(line.values[name])}"
        for name, (label, form) in _SHOWN.items()
        if name in line.values
    ]
    if "phase" in line.details:
        losses = [value for name, value in line.values.items() if name.endswith("inverse_loss")]
        shown = [f"inverse pass, minibatch {line.details['minibatch']}"]
        if losses:
            shown.append(f"mean inverse loss {sum(losses) / len(losses):.4f}")
    return ", ".join(shown)


class ConsoleMonitor(Monitor):
    """Progress of ``steps`` minibatches in ``epochs`` epochs."""

    def __init__(self, console: Console, steps: int, epochs: int) -> None:
        self._console, self._steps, self._epochs = console, steps, epochs
        self._last, self._drawn = 0.0, 0.0
        self._virtual = False
        self._view = View(steps, epochs)
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(self._view, console=console, auto_refresh=False)
            self._live.start(refresh=True)

    def write(self, line: Line) -> None:
        """Show the line: epochs always, events always, other values live or every few seconds."""
        self._draw(line)
        if line.event is not None:
            self._virtual = line.details.get("virtual", self._virtual)
            if line.event in ("failed", "interrupted"):
                kept, run = line.details.get("checkpoint"), line.details["run_dir"]
                text = (
                    f"{line.event} at step {line.step}; run in {run}, newest checkpoint: {kept or 'none yet'}"
                )
                text += f"; go on with: dtp-dist resume {run}" if kept else ""
                self._console.print(text, highlight=False, soft_wrap=True, markup=False)
            elif line.event in ("stage lost", "recovered", "resumed"):
                said = line.details.get("message") or "; ".join(line.details.get("notes", []))
                text = f"{line.event} at step {line.step}" + (f": {said}" if said else "")
                self._console.print(text, highlight=False, soft_wrap=True, markup=False)
            return
        text = in_words(line)
        ends_epoch = "test_error" in line.values
        if ends_epoch or (self._live is None and line.time - self._last >= PLAIN_SECONDS):
            self._last = line.time
            place = f"{'virtual ' if self._virtual else ''}epoch {line.epoch}/{self._epochs}"
            shown = f"{place}  step {line.step}/{self._steps}  {text}  ({line.time:.0f} s)"
            self._console.print(shown, highlight=False, soft_wrap=True, markup=False)

    def _draw(self, line: Line) -> None:
        """Let the live view take the line, and draw it unless it was drawn just now."""
        self._view.take(line)
        now = time.monotonic()
        if self._live is not None and now - self._drawn >= REFRESH_SECONDS:
            self._drawn = now
            self._live.refresh()

    def close(self) -> None:
        """End the live view, whose last state stays."""
        if self._live is not None:
            self._live.refresh()
            self._live.stop()
            self._live = None
