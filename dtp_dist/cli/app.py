"""The application that the commands register with, and what they share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup


class Interrupted(Exception):  # noqa: N818 - an order, not an error
    """Ctrl-C or a signal; typer's versions differ in what they make of a KeyboardInterrupt."""


ORDER = ("train", "resume", "eval", "export", "plan", "tune", "runs", "report", "config")
"""As ``--help`` lists the commands."""


class _Commands(TyperGroup):
    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return [name for name in ORDER if name in self.commands]

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted(str(error)) from error


app = typer.Typer(
    cls=_Commands,
    help="Train deep networks by Difference Target Propagation, layer-parallel.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(emoji=False)
err = Console(stderr=True, emoji=False)

ConfigPath = Annotated[Path, typer.Argument(help="Configuration file (YAML).", metavar="CONFIG.yaml")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Dotted overrides, e.g. train.epochs=3.", metavar="[key=value ...]")
]
RunDir = Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN_DIR")]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Import the user modules that the run names.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def set_debug(debug: bool) -> None:
    """Show tracebacks from now on, in this process and in those it starts."""
    if debug:
        os.environ["DTP_DIST_DEBUG"] = "1"
