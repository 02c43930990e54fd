"""What a person sees: a live line on a terminal, plain lines otherwise."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dtp_dist.monitor.base import Line, Monitor

PLAIN_SECONDS = 5.0
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


def _short(line: Line) -> str:
    """Return what fits beside the bar on a terminal of 80 columns."""
    values = line.values
    loss = f"loss {values['train_loss']:.4f}" if "train_loss" in values else ""
    speed = f"  {values['samples_per_second']:.0f}/s" if "samples_per_second" in values else ""
    return loss + speed


class ConsoleMonitor(Monitor):
    """Progress of ``steps`` minibatches in ``epochs`` epochs."""

    def __init__(self, console: Console, steps: int, epochs: int) -> None:
        self._console, self._steps, self._epochs = console, steps, epochs
        self._last = 0.0
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=16),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"),
                console=console,
            )
            self._task = self._progress.add_task("starting", total=steps, values="")
            self._progress.start()

    def write(self, line: Line) -> None:
        """Show the line: epochs always, events always, other values live or every few seconds."""
        place = f"epoch {line.epoch}/{self._epochs}"
        if line.event is not None:
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
        if self._progress is not None:
            self._progress.update(self._task, completed=line.step, description=place, values=_short(line))
        if ends_epoch or (self._progress is None and line.time - self._last >= PLAIN_SECONDS):
            self._last = line.time
            shown = f"{place}  step {line.step}/{self._steps}  {text}  ({line.time:.0f} s)"
            self._console.print(shown, highlight=False, soft_wrap=True, markup=False)

    def close(self) -> None:
        """End the live line."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
