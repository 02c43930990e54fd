"""The application that the commands register with, and what they share."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from dtp_dist.cli import completion
from dtp_dist.text.printable import printable
from dtp_dist.version import VERSION

if TYPE_CHECKING:
    from rich.console import Console

PROGRAM = "dtp-dist"
ORDER = (
    *("init", "train", "resume", "eval", "predict", "export", "plan", "compare", "tune"),
    *("runs", "report", "config"),
)
"""As ``--help`` lists the commands."""


class _Commands(TyperGroup):
    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return [name for name in ORDER if name in self.commands]


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[
    Path,
    typer.Argument(
        help="Configuration file (YAML), or the name of one of the package's (config --list).",
        metavar="CONFIG",
        autocompletion=completion.configs,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Dotted overrides, e.g. train.epochs=3.",
        metavar="[key=value ...]",
        autocompletion=completion.keys,
    ),
]
RunDir = Annotated[
    Path, typer.Argument(help="Folder of a run.", metavar="RUN_DIR", autocompletion=completion.runs)
]
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


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"{PROGRAM} {VERSION}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Train deep networks by Difference Target Propagation, layer-parallel."""
