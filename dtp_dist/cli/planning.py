"""``plan``: how fast a configuration will train, and where to cut it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dtp_dist.cli.app import ConfigPath, Debug, Overrides, app, out, set_debug
from dtp_dist.errors import ConfigError

if TYPE_CHECKING:
    from dtp_dist.planning.plan import Plan

WIDTH = 160  # where the output is no terminal


@app.command()
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    stages: Annotated[
        str | None,
        typer.Option(help="Numbers of stages, e.g. 1,2,4,8; the last in detail.", metavar="N,N,..."),
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
    """Measure layer costs and messages here; print the best partition and the predicted speed."""
    set_debug(debug)
    from dtp_dist.config import load_config
    from dtp_dist.planning.plan import make_plan, plain
    from dtp_dist.runtime.layout import resolve, stages_of
    from dtp_dist.runtime.planner import pipeline_of

    settings = load_config(config, overrides or [])
    if settings.parallel.virtual:
        settings = resolve(settings)  # the planned times are those of its stages
    layers = len(settings.model.options)
    counts = _counts(stages, layers, stages_of(settings))
    depths = {min(settings.parallel.in_flight, count) for count in counts}
    pipeline = pipeline_of(settings, depths, measured=not quick)
    keep = settings.monitor.trace_minibatches if trace else 0
    found = make_plan(settings, pipeline, sorted(set(counts)), counts[-1], keep=keep)
    if page is not None:
        from dtp_dist.planning.page import plan_page

        page.write_text(plan_page(found))
    if trace is not None:
        _write_trace(trace, found)
    if as_json:
        sys.stdout.write(json.dumps(plain(found)) + "\n")
    else:
        _tell(found)


def _counts(asked: str | None, layers: int, own: int) -> list[int]:
    """Return the numbers of stages, the one in detail last."""
    if asked is None:
        powers = [2**power for power in range(layers.bit_length()) if 2**power <= layers]
        return [*(count for count in powers if count != own), own]
    try:
        counts = [int(text) for text in asked.split(",")]
    except ValueError:
        raise ConfigError(f"--stages: {asked!r} is not a list of numbers; write e.g. 1,2,4") from None
    for count in counts:
        if not 1 <= count <= layers:
            text = f"{count} is not allowed; it must be from 1 to {layers}, the number of layers"
            raise ConfigError(f"--stages: {text}")
    return counts


def _write_trace(path: Path, plan: Plan) -> None:
    """Write what the simulation foresees in the form of a run's trace, its phases one after the other."""
    from dtp_dist.monitor.trace import write_trace
    from dtp_dist.planning.simulate import NANOSECONDS
    from dtp_dist.runtime.layout import Layout
    from dtp_dist.runtime.segment import Span

    chosen = plan.chosen
    rows: list[list[Span]] = [[] for _ in chosen.partition]
    start = 0.0
    for simulation in chosen.simulations.values():
        for row, spans in zip(rows, simulation.spans(), strict=True):
            row.extend(Span(name, k, start + begun, start + ended) for name, k, begun, ended in spans)
        start += simulation.total / NANOSECONDS
    write_trace(path, rows, Layout(chosen.partition, chosen.in_flight))


def _tell(plan: Plan) -> None:
    """Print the plan in words and tables."""
    from dtp_dist.planning.words import count_table, heading, remarks, stage_table

    _line(heading(plan))
    for title, rows in (stage_table(plan), count_table(plan)):
        table = Table(title=escape(title), title_justify="left", title_style="", box=box.SIMPLE_HEAD)
        for name in rows[0]:
            table.add_column(name, justify="right")
        for row in rows[1:]:
            table.add_row(*map(escape, row))
        Console(width=None if out.is_terminal else WIDTH).print(table)
    _line(plan.drawing())
    for line in ("", *remarks(plan)):
        _line(line)


def _line(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)
