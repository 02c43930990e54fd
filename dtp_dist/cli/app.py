"""The application that the commands register with, and what they share."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from dtp_dist.text.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

ORDER = ("train", "resume", "eval", "export", "plan", "tune", "runs", "report", "config")
"""As ``--help`` lists the commands."""


class _Commands(TyperGroup):
    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return [name for name in ORDER if name in self.commands]


app = typer.Typer(
    cls=_Commands,
    help="Train deep networks by Difference Target Propagation, layer-parallel.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[Path, typer.Argument(help="Configuration file (YAML).", metavar="CONFIG.yaml")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Dotted overrides, e.g. train.epochs=3.", metavar="[key=value ...]")
]
RunDir = Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN_DIR")]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Import the user modules that the file names.")]
Best = Annotated[
    bool, typer.Option("--best", help="Take the best checkpoint (train.keep_best), not the newest.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@cache
def screen(*, stderr: bool = False) -> Console:
    """Return what prints on an output; made on first use, for rich is slow to import and seldom needed."""
    from rich.console import Console

    return Console(stderr=stderr, emoji=False)


def say(text: str) -> None:
    """Print a line, which a terminal may wrap; names in it do nothing to the terminal."""
    screen().print(printable(text), highlight=False, markup=False, soft_wrap=True)


def set_debug(debug: bool) -> None:
    """Show tracebacks from now on, in this process and in those it starts."""
    if debug:
        os.environ["DTP_DIST_DEBUG"] = "1"
