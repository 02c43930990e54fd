"""``report`` and ``runs``: what earlier runs were, in pictures and in a table."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtp_dist.cli.app import Debug, app, say, screen, set_debug

if TYPE_CHECKING:
    from dtp_dist.report.read import Run

REPORT = Path("report.html")
WIDE = 180
"""Columns of a table that no terminal limits."""


@app.command()
def report(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs, or folders with runs below them.", metavar="RUN_DIR..."),
    ],
    target: Annotated[
        Path | None,
        typer.Option(
            "--out", help="HTML file to write; report.html, or report-2.html, ..., where it is there."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--csv", help="Write the curves' data, too: a file (.csv), or a folder.", metavar="FILE|DIR"
        ),
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option("--png", help="Write the curves as pictures, too.", metavar="DIR")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    debug: Debug = False,
) -> None:
    """Write one HTML file about runs: curves, layers, stages, timeline, differences, events."""
    set_debug(debug)
    from dtp_dist.report.write import check_any, check_free, free_name, runs_of, write_report

    found = runs_of(run_dirs)
    check_any(found)
    more = _more_files(found, data, pictures)
    for option, files in more.items():
        check_free(files, option, replace=force)
    if target is None:
        target = REPORT if force else free_name(REPORT)
    write_report(found, target, replace=force)
    states = ", ".join(f"{run.path} {run.state}" for run in found)
    say(f"{target}: {states}")
    for option, place in (("--csv", data), ("--png", pictures)):
        if place is not None:
            _write_more(more[option], place, option, replace=force)


def _more_files(runs: list[Run], data: Path | None, pictures: Path | None) -> dict[str, dict[Path, bytes]]:
    """Return what is to be written besides the page, by the option that asks for it."""
    found: dict[str, dict[Path, bytes]] = {}
    if data is None and pictures is None:
        return found
    from dtp_dist.report.files import csv_files, drawing, picture_files
    from dtp_dist.report.groups import grouped

    groups = grouped(runs)
    if data is not None:
        found["--csv"] = csv_files(groups, data)
    if pictures is not None:
        found["--png"] = picture_files(groups, pictures, drawing("--png"))
    return found


def _write_more(files: dict[Path, bytes], place: Path, option: str, *, replace: bool) -> None:
    from dtp_dist.report.files import make_folder
    from dtp_dist.report.write import write_new

    if place not in files:
        make_folder(place, option)
    for path, content in files.items():
        write_new(path, content, option, replace=replace)
    say(f"{place}: {len(files)} files" if place not in files else f"{place}")


@app.command("runs")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Folder to look below.", metavar="[DIR]")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every known fact.")] = False,
    debug: Debug = False,
) -> None:
    """List all runs below a folder, the newest last."""
    set_debug(debug)
    from rich.console import Console

    from dtp_dist.report.listing import facts, find_runs, run_table

    found = [facts(run) for run in find_runs(folder)]
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1, default=str) + "\n")
        return
    if not found:
        say(f"no run below {folder}")
        return
    width = screen().width if screen().is_terminal or "COLUMNS" in os.environ else WIDE
    Console(width=width, emoji=False).print(run_table(found, folder, width))
