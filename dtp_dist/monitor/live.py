"""The live view on a terminal: a row for each stage, and below them where the run stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import accumulate, pairwise

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dtp_dist.monitor.base import Line
from dtp_dist.text.measures import MEASURES, SPLITS, chief_metric
from dtp_dist.text.numbers import percent, short, whole

ROWS = 16
OTHER_LINES = 5  # of the view: the head, the totals, and a free one
BAR, LONG_BAR = 16, 16


class View:
    """What the last lines of a run say, as a rich renderable of at most 80 columns.

    Args:
        steps: minibatches of the run.
        epochs: of the run.
    """

    def __init__(self, steps: int, epochs: int) -> None:
        self._steps, self._epochs = steps, epochs
        self._stages: list[range] = []
        self._virtual = False
        self._values: dict[str, float] = {}
        self._line: Line | None = None
        self._first: Line | None = None
        self._minibatch = 0
        self._doing = "starting"

    def say(self, text: str) -> None:
        """Remember what is waited for, until the stages have started."""
        self._doing = text

    def take(self, line: Line) -> None:
        """Remember what a line says; values of an earlier one stay until they are measured again."""
        if line.event == "started":
            ends = [0, *accumulate(line.details.get("partition", ()))]
            self._stages = [range(low + 1, high + 1) for low, high in pairwise(ends)]
            self._virtual = line.details.get("virtual", False)
            self._first, self._doing = None, ""
        if line.event is not None:
            return
        self._values = {**self._values, **line.values}
        self._minibatch = int(line.details.get("minibatch", line.step))
        self._line = line
        self._first = self._first or line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        rows = max(1, min(ROWS, options.max_height - OTHER_LINES))
        yield Group(self._table(rows), self._progress(), self._totals())

    def _table(self, rows: int) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("stage", justify="right", no_wrap=True)
        table.add_column("layers", no_wrap=True)
        table.add_column("busy", no_wrap=True)
        table.add_column("", justify="right", no_wrap=True, min_width=5)
        table.add_column("waits", justify="right", no_wrap=True)
        table.add_column("minibatch", justify="right", no_wrap=True)
        table.add_column("inverse loss", justify="right", no_wrap=True)
        count = len(self._stages)
        single = count if count <= rows else rows - 1
        for stage in range(single):
            table.add_row(*self._row(range(stage, stage + 1)))
        if single < count:
            table.add_row(*self._row(range(single, count)))
        return table

    def _row(self, stages: range) -> Sequence[RenderableType]:
        """Return the cells of a stage, or of several in one row, by their means."""
        layers = range(self._stages[stages[0]][0], self._stages[stages[-1]][-1] + 1)
        busy, waits = (
            _mean(self._values, [f"stage/{stage}/{name}" for stage in stages]) for name in ("busy", "waiting")
        )
        inverse = _mean(self._values, [f"layer/{layer}/inverse_loss" for layer in layers])
        return (
            _span(stages) if len(stages) == 1 else f"... {_span(stages)}",
            _span(layers),
            ProgressBar(total=1.0, completed=busy or 0.0, width=BAR),
            _percent(busy),
            _percent(waits),
            str(self._minibatch),
            "-" if inverse is None else short(inverse),
        )

    def _progress(self) -> Table:
        line, grid = self._line, Table.grid(padding=(0, 2, 0, 0))
        step, epoch = (line.step, line.epoch) if line is not None else (0, 1)
        grid.add_row(
            f"{'virtual ' if self._virtual else ''}epoch {epoch}/{self._epochs}",
            ProgressBar(total=self._steps, completed=step, width=LONG_BAR),
            f"step {step}/{self._steps}",
            self._left(),
        )
        return grid

    def _left(self) -> str:
        first, last = self._first, self._line
        if first is None or last is None or last.step <= first.step:
            return ""
        seconds = (last.time - first.time) / (last.step - first.step) * (self._steps - last.step)
        return f"{timedelta(seconds=max(0, round(seconds)))} left"

    def _totals(self) -> Text:
        said = []
        loss, speed = self._newest("train_loss"), self._newest("samples_per_second")
        if loss is not None:
            said.append(f"train loss {short(loss)}")
        said += self._metric()
        if speed is not None:
            said.append(f"{whole(speed)} samples/s")
        return Text(self._doing or ", ".join(said) or "no metrics yet", no_wrap=True, overflow="ellipsis")

    def _metric(self) -> Iterator[str]:
        """Yield the run's chief metric of each split that has one."""
        name = chief_metric(self._values)
        measure, known = MEASURES[name], {split: self._newest(f"{split}_{name}") for split in SPLITS}
        shown = [f"{split} {measure.bare(value)}" for split, value in known.items() if value is not None]
        if shown:
            yield f"{measure.title}{' %' if measure.percent else ''} {' '.join(shown)}"

    def _newest(self, name: str) -> float | None:
        """Return a value since the last line, else its mean of the epoch or of the run so far."""
        names = (name, f"{name}_of_epoch", f"{name}_so_far")
        return next((self._values[each] for each in names if each in self._values), None)


def _percent(share: float | None) -> str:
    return "-" if share is None else percent(share)


def _span(numbers: range) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"


def _mean(values: Mapping[str, float], names: Sequence[str]) -> float | None:
    """Return the mean of those that have been measured, None if none has."""
    found = [values[name] for name in names if name in values]
    return sum(found) / len(found) if found else None
