"""``predict``: what a run's network makes of new examples."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtp_dist.cli.app import AllowCode, Best, Debug, RunDir, app, screen, set_debug
from dtp_dist.errors import ConfigError
from dtp_dist.system.garbage import importing
from dtp_dist.text.printable import printable

if TYPE_CHECKING:
    from dtp_dist.prediction.predict import Prediction

WIDE = 160  # where the output is no terminal


@app.command()
def predict(
    run_dir: RunDir,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Images, folders of images, .npy or .npz files, or tables, as the run's data are.",
            metavar="IMAGES...",
        ),
    ],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with the value of every output.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with the value of every output.")
    ] = False,
    target: Annotated[
        Path | None, typer.Option("--out", help="File to write instead: .csv or .json.", metavar="FILE")
    ] = None,
    convert: Annotated[
        bool, typer.Option("--convert", help="Resize images and convert their colours where they differ.")
    ] = False,
    best: Best = False,
    allow_code: AllowCode = False,
    debug: Debug = False,
) -> None:
    """Print what a run's newest weights predict of new images: labels with probabilities, or numbers."""
    set_debug(debug)
    form = _form(as_csv, as_json, target)
    with importing():
        from dtp_dist.prediction import output
        from dtp_dist.prediction.predict import predict as apply
        from dtp_dist.storage.files import write_file

    found = apply(run_dir, files, convert=convert, allow_code=allow_code, best=best)
    if form == "":
        _print(found)
        return
    text = output.as_csv(found) if form == "csv" else output.as_json(found)
    if target is None:
        sys.stdout.write(printable(text, keep="\n"))
    else:
        write_file(target, text.encode(errors="surrogateescape"))


def _form(as_csv: bool, as_json: bool, target: Path | None) -> str:
    """Return csv, json, or "" for a table.

    Raises:
        ConfigError: the options do not fit one another, or the file can't be written.
    """
    if as_csv and as_json:
        raise ConfigError("--csv: goes without --json; write one of the two")
    asked = "csv" if as_csv else "json" if as_json else ""
    if target is None:
        return asked
    if target.exists() or target.is_symlink():
        raise ConfigError(f"--out: {target} exists; name another file or remove it")
    if not target.parent.is_dir():
        raise ConfigError(f"--out: {target}: there is no folder {target.parent}; make it, or name another")
    form = asked or target.suffix.lower().removeprefix(".")
    if form not in ("csv", "json"):
        raise ConfigError(f"--out: {target} is neither .csv nor .json; write --csv or --json as well")
    return form


def _print(found: list[Prediction]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from dtp_dist.prediction.output import rows

    head, *body = rows(found)
    table = Table(*map(printable, head), box=box.SIMPLE_HEAD)
    for row in body:
        table.add_row(*(Text(printable(cell)) for cell in row))
    width = screen().width if screen().is_terminal or "COLUMNS" in os.environ else WIDE
    Console(width=width, emoji=False).print(table)
