"""``report`` and ``runs``: what earlier runs were, in pictures and in a table."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dtp_dist.cli.app import Debug, app, out, set_debug

WIDE = 180
"""Columns of a table that no terminal limits."""


@app.command()
def report(
    run_dirs: Annotated[list[Path], typer.Argument(help="Folders of runs.", metavar="RUN_DIR...")],
    target: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("report.html"),
    debug: Debug = False,
) -> None:
    """Write one HTML file about runs: curves, layers, stages, timeline, differences, events."""
    set_debug(debug)
    from dtp_dist.report import read_run, write_report

    found = [read_run(path) for path in run_dirs]
    write_report(found, target)
    states = ", ".join(f"{run.path} {run.state}" for run in found)
    out.print(f"{target}: {states}", highlight=False, soft_wrap=True, markup=False)


@app.command("runs")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Folder to look below.", metavar="[DIR]")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every known fact.")] = False,
    debug: Debug = False,
) -> None:
    """List all runs below a folder, the newest last."""
    set_debug(debug)
    from dtp_dist.report.listing import facts, find_runs, run_table

    found = [facts(run) for run in find_runs(folder)]
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1, default=str) + "\n")
        return
    if not found:
        out.print(f"no run below {folder}", highlight=False, soft_wrap=True, markup=False)
        return
    width = out.width if out.is_terminal or "COLUMNS" in os.environ else WIDE
    Console(width=width, emoji=False).print(run_table(found, folder, width))
