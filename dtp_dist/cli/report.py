"""``report`` and ``runs``: what earlier runs were, in pictures and in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtp_dist.cli.app import Debug, app, out, set_debug


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
    states = ", ".join(f"{run.path.name} {run.state}" for run in found)
    out.print(f"{target}: {states}", highlight=False, soft_wrap=True, markup=False)
