"""A schedule as text."""

from dtp_dist.schedule.actions import Rows
from dtp_dist.schedule.checking import execute


def draw(rows: Rows) -> str:
    """A table of `rows`: stage 0 on top, a column per tick, `.` where a stage is idle.

    Each action takes one tick and starts once its stage is free and its message, sent at the end of the
    action that made it, is there. Raises ScheduleError where the ends of a link differ in order or stages
    wait in a circle.
    """
    ticks = execute(rows, capacity=1 + max(map(len, rows), default=0))
    length = max((row[-1] + 1 for row in ticks if row), default=0)
    cells = [["."] * length for _ in rows]
    for stage, row in enumerate(rows):
        for tick, action in zip(ticks[stage], row, strict=True):
            cells[stage][tick] = f"{action.kind}{action.minibatch}"
    width = max((len(cell) for line in cells for cell in line), default=0)
    margin = len(str(len(rows) - 1))
    lines = (" ".join(cell.ljust(width) for cell in line) for line in cells)
    return "\n".join(f"stage {s:>{margin}} | {line}".rstrip() for s, line in enumerate(lines))
