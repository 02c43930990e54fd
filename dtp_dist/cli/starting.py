"""``init``: a first configuration for data of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtp_dist.cli.app import PROGRAM, Debug, app, say, set_debug
from dtp_dist.system.garbage import importing
from dtp_dist.text.shell import typed


@app.command()
def init(
    place: Annotated[
        Path, typer.Argument(help="Folder or file that holds the data.", metavar="[DIR]")
    ] = Path(),
    target: Annotated[
        Path | None,
        typer.Option("--out", help="File to write; DIR.yaml here by default.", metavar="FILE.yaml"),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a commented configuration for data of your own, from what lies in a folder."""
    set_debug(debug)
    with importing():
        from dtp_dist.scaffold.write import write_start

    written, found = write_start(place, target)
    say(f"{written}: a configuration for {found.in_words}; train it: {typed(PROGRAM, 'train', written)}")
