"""A terminal's screen, as far as the live view uses one."""

from __future__ import annotations

import re

PIECES = re.compile(r"\x1b\[([0-9;?]*[A-Za-z])|([^\x1b])")


def shown(written: str, columns: int) -> list[str]:
    """Return the lines that a terminal of so many columns shows in the end, those it has scrolled away too.

    An unknown control sequence, or one that leaves the screen, is an AssertionError.
    """
    lines, row, column = [""], 0, 0
    for control, text in PIECES.findall(written):
        if text == "\r":
            column = 0
        elif text == "\n" or (text and column == columns):
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        if text not in ("", "\r", "\n"):
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + 1 :]
            column += 1
        elif control == "2K":
            lines[row] = ""
        elif control.endswith("A"):
            row -= int(control[:-1] or 1)
            assert row >= 0, "above the screen"
        else:
            assert not control or control[-1] == "m" or control in ("?25l", "?25h"), control
    return [line.rstrip() for line in lines]
