"""``report`` and ``runs``: what earlier runs were, in pictures and in a table."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dtp_dist.cli.app import Debug, app, say, screen, set_debug

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
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    debug: Debug = False,
) -> None:
    """Write one HTML file about runs: curves, layers, stages, timeline, differences, events."""
    set_debug(debug)
    from dtp_dist.report.write import free_name, runs_of, write_report

    found = runs_of(run_dirs)
    if target is None:
        target = REPORT if force else free_name(REPORT)
    write_report(found, target, replace=force)
    states = ", ".join(f"{run.path} {run.state}" for run in found)
    say(f"{target}: {states}")


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
