"""``plan``: how fast a configuration will train, and where to cut it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtp_dist.cli.app import ConfigPath, Debug, Overrides, app, screen, set_debug
from dtp_dist.errors import ConfigError
from dtp_dist.system.garbage import importing

if TYPE_CHECKING:
    from dtp_dist.config import Config
    from dtp_dist.planning.plan import Plan

WIDTH = 160  # where the output is no terminal


@app.command()
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    stages: Annotated[
        str | None,
        typer.Option(help="Numbers of stages, e.g. 1,2,4,8; the fastest in detail.", metavar="N,N,..."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure nothing, count work by shapes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    page: Annotated[
        Path | None, typer.Option("--out", help="Write a page for a browser.", metavar="PLAN.html")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write the predicted trace.", metavar="TRACE.json")
    ] = None,
    debug: Debug = False,
) -> None:
    """Measure layer costs and messages here; print the fastest partition and the predicted speed."""
    set_debug(debug)
    with importing():
        from dtp_dist.config import load_config
        from dtp_dist.planning.plan import make_plan, plain
        from dtp_dist.profiling.costs import pipeline_of
        from dtp_dist.profiling.resolve import resolve

    settings = load_config(config, overrides or [])
    if settings.parallel.virtual:
        settings = resolve(settings)  # the planned times are those of its stages
    layers = len(settings.model.options)
    counts = usual_counts(settings) if stages is None else counts_of(stages, layers)
    depths = {min(settings.parallel.in_flight, count) for count in counts}
    pipeline = pipeline_of(settings, depths, measured=not quick)
    keep = settings.monitor.trace_minibatches if trace else 0
    found = make_plan(settings, pipeline, counts, keep=keep)
    if page is not None:
        from dtp_dist.planning.page import plan_page

        page.write_text(plan_page(found))
    if trace is not None:
        _write_trace(trace, found)
    if as_json:
        sys.stdout.write(json.dumps(plain(found)) + "\n")
    else:
        _tell(found)


def usual_counts(config: Config) -> list[int]:
    """Return 1, 2, 4, ... stages up to what fits the layers and this machine, that most, and the run's own.

    A cluster and virtual devices are not bound by this machine.
    """
    from dtp_dist.profiling.resolve import stages_of

    most = len(config.model.options)
    if config.parallel.runtime != "ray" and not config.parallel.virtual:
        most = stages_of(replace(config, parallel=replace(config.parallel, stages="auto", partition=None)))
    powers = {2**power for power in range(most.bit_length())}
    return sorted(powers | {most, stages_of(config)})


def counts_of(asked: str, layers: int) -> list[int]:
    """Return the numbers of stages that were asked for, in order."""
    try:
        counts = [int(text) for text in asked.split(",")]
    except ValueError:
        raise ConfigError(f"--stages: {asked!r} is not a list of numbers; write e.g. 1,2,4") from None
    for count in counts:
        if not 1 <= count <= layers:
            text = f"{count} is not allowed; it must be from 1 to {layers}, the number of layers"
            raise ConfigError(f"--stages: {text}")
    return sorted(set(counts))


def _write_trace(path: Path, plan: Plan) -> None:
    """Write what the simulation predicts in the form of a run's trace, its phases one after the other."""
    from dtp_dist.monitor.trace import write_trace
    from dtp_dist.planning.timing import NANOSECONDS
    from dtp_dist.runtime.layout import Layout
    from dtp_dist.schedule import Span

    chosen = plan.chosen
    rows: list[list[Span]] = [[] for _ in chosen.partition]
    start = 0.0
    for simulation in chosen.simulations.values():
        for row, spans in zip(rows, simulation.spans(), strict=True):
            row.extend(span.moved(start) for span in spans)
        start += simulation.total / NANOSECONDS
    write_trace(path, rows, Layout(chosen.partition, chosen.in_flight, plan.pipeline.flow))


def _tell(plan: Plan) -> None:
    """Print the plan in words and tables."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from dtp_dist.planning.text import count_table, heading, remarks, stage_table

    _line(heading(plan))
    for title, rows in (stage_table(plan), count_table(plan)):
        table = Table(title=escape(title), title_justify="left", title_style="", box=box.SIMPLE_HEAD)
        for name in rows[0]:
            table.add_column(name, justify="right")
        for row in rows[1:]:
            table.add_row(*map(escape, row))
        Console(width=None if screen().is_terminal else WIDTH).print(table)
    _line(plan.drawing())
    for line in ("", *remarks(plan)):
        _line(line)


def _line(text: str) -> None:
    screen().print(text, highlight=False, markup=False, soft_wrap=True)
