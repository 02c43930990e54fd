"""What a person sees: a live view on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live

from dtp_dist.monitor.base import Line, Monitor
from dtp_dist.monitor.live import View
from dtp_dist.monitor.places import places
from dtp_dist.text import measures
from dtp_dist.text.numbers import short, whole
from dtp_dist.text.printable import printable

PLAIN_SECONDS = 5.0
REFRESH_SECONDS = 0.5  # drawing takes milliseconds that a stage may need; no thread draws


def pack(pieces: Sequence[str], console: Console) -> str:
    """Return the pieces, none of which is broken, in as many lines as a terminal needs; else in one."""
    lines = [""]
    for number, piece in enumerate(pieces):
        text = piece if number == len(pieces) - 1 else f"{piece},"
        if console.is_terminal and lines[-1] and len(f"{lines[-1]} {text}") > console.width:
            lines.append(f"  {text}")
        else:
            lines[-1] += f" {text}" if lines[-1] else text
    return "\n".join(lines)


def in_words(line: Line) -> list[str]:
    """Return a line's main values as text, one piece each."""
    values = line.values  # either an epoch's means or those since the last line
    losses = [values[name] for name in ("train_loss", "train_loss_of_epoch") if name in values]
    speeds = [values[name] for name in ("samples_per_second", "samples_per_second_so_far") if name in values]
    shown = [f"train loss {short(each)}" for each in losses]
    shown += [*measures.in_words(values), *(f"samples/s {whole(each)}" for each in speeds)]
    if "phase" in line.details:
        losses = [value for name, value in line.values.items() if name.endswith("inverse_loss")]
        shown = [f"inverse pass, minibatch {line.details['minibatch']}"]
        if losses:
            shown.append(f"mean inverse loss {short(sum(losses) / len(losses))}")
    return shown


def in_words_of_end(line: Line) -> str:
    """Return what is left of a run that ended early, what is lost, and what to type."""
    told = line.details
    if told.get("removed"):
        return f"{line.event} at step {line.step}, before anything was kept; the run's folder is removed"
    kept = f"newest checkpoint: {told.get('checkpoint') or 'none yet'}"
    text = f"{line.event} at step {line.step}; run in {told['run_dir']}, {kept}"
    if "advice" not in told:  # a virtual run
        return text
    since = "since then" if told["checkpoint"] else "since the start"
    lost = (
        f"about {told['lost_minibatches']} minibatches and {whole(told['lost_seconds'])} s {since} are lost"
    )
    return f"{text}; {lost}; {told['advice']}"


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
                self._print(in_words_of_end(line))
            elif line.event == "started":
                for place in places(line.details):
                    self._print(place)
            elif line.event == "warning":
                self._print(f"warning: {line.details['message']}")
            elif line.event in ("stage lost", "passed over", "recovered", "resumed", "stopped early"):
                said = line.details.get("message") or "; ".join(line.details.get("notes", []))
                self._print(f"{line.event} at step {line.step}" + (f": {said}" if said else ""))
            return
        ends_epoch = any(name.startswith("test_") for name in line.values)
        if ends_epoch or (self._live is None and line.time - self._last >= PLAIN_SECONDS):
            self._last = line.time
            place = f"{'virtual ' if self._virtual else ''}epoch {line.epoch}/{self._epochs}"
            pieces = in_words(line) or [""]
            pieces[0] = f"{place}  step {line.step}/{self._steps}  {pieces[0]}"
            pieces[-1] += f"  ({whole(line.time)} s)"
            self._print(pack(pieces, self._console))

    def _print(self, text: str) -> None:
        self._console.print(printable(text, keep="\n"), highlight=False, soft_wrap=True, markup=False)

    def say(self, text: str) -> None:
        """Show what is waited for, in the live view or as a line."""
        self._view.say(text)
        if self._live is None:
            self._print(text)
        else:
            self._live.refresh()

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
