"""The report: one HTML file that needs neither network nor scripts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape

from dtp_dist.charts.curve import Chart
from dtp_dist.charts.palette import COLOURS, style
from dtp_dist.charts.style import CSS
from dtp_dist.charts.svg import bars, line_chart
from dtp_dist.report.curves import layers, learning
from dtp_dist.report.differences import differences
from dtp_dist.report.groups import Group, grouped, settings_in
from dtp_dist.report.read import Run
from dtp_dist.report.stages import ROWS, longest_wait, shares, timeline
from dtp_dist.report.tables import events, stamp, summary
from dtp_dist.text.numbers import percent
from dtp_dist.text.printable import printable

WIDE = 1216
OF_SEVERAL = (
    "Runs that differ by their seed alone are one line: their mean, in a band of one standard deviation "
    "(of a sample) to either side."
)


def page(runs: Sequence[Run]) -> str:
    """Return the report as HTML."""
    groups = grouped(runs)
    marks = [_mark(group.name, index) for index, group in enumerate(groups)]
    title = "dtp_dist: " + (groups[0].name if len(groups) == 1 else f"{len(runs)} runs")
    told = f"Written {stamp(time.time())}. Curves and bars show their numbers under the mouse."
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{told}{f' {OF_SEVERAL}' if any(group.several for group in groups) else ''}</p>",
        _section("Runs", summary(groups, marks) + _one_by_one(groups)),
        _section("Learning and speed", _learning(groups, marks)),
        _section("Layers", "".join(_layers(group, mark) for group, mark in zip(groups, marks, strict=True))),
        _section("Stages", _stages(groups, marks)),
    ]
    if len(groups) > 1:
        settings = zip(groups, settings_in(groups), strict=True)
        firsts = [replace(group.first, config=dict(config)) for group, config in settings]
        parts.append(_section("Configurations: what differs", differences(firsts, marks)))
    found = [(mark, events(run)) for mark, run in _each(groups, marks)]
    parts.append(_section("Events", "".join(f"<h3>{mark}</h3>{each}" for mark, each in found if each)))
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{CSS}</style>'
    body = "\n".join(parts)
    html = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'
    return printable(html, keep="\n")


def _each(groups: Sequence[Group], marks: Sequence[str]) -> list[tuple[str, Run]]:
    """Return every run with its mark: its group's, and its seed where that has several."""
    return [
        (f"{mark} {_seed(run)}" if group.several else mark, run)
        for group, mark in zip(groups, marks, strict=True)
        for run in group.runs
    ]


def _seed(run: Run) -> str:
    return escape(f"seed {run.setting('seed')}")


def _one_by_one(groups: Sequence[Group]) -> str:
    """Return a table of all runs, to be opened; "" where every group is a single run."""
    if not any(group.several for group in groups):
        return ""
    runs = [(index, run) for index, group in enumerate(groups) for run in group.runs]
    marks = [_mark(run.path.name, index) for index, run in runs]
    table = summary([Group(run.path.name, (run,)) for _, run in runs], marks)
    return f"<details><summary>each run by itself</summary>{table}</details>"


def _mark(name: str, index: int) -> str:
    """Return a name with its line, as the curves have it."""
    colour, dash = style(index)
    line = (
        f'<line x1="0" x2="26" y1="6" y2="6" stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"/>'
    )
    return f'<span class="run"><svg width="26" height="12" role="img">{line}</svg> {escape(name)}</span>'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body or '<p>Nothing was recorded.</p>'}\n</section>"


def _learning(groups: Sequence[Group], marks: Sequence[str]) -> str:
    drawn = _grid(learning(groups))
    return f'<p class="legend">{" ".join(marks)}</p>{drawn}' if drawn else ""


def _grid(charts: Iterable[Chart]) -> str:
    """Return the charts that have a curve, two in a row; "" where none has."""
    every = (
        line_chart(each.title, each.curves, x_label=each.x_label, legend=each.legend, log=each.log)
        for each in charts
    )
    drawn = "".join(f"<div>{picture}</div>" for picture in every if picture)
    return f'<div class="grid2">{drawn}</div>' if drawn else ""


def _layers(group: Group, mark: str) -> str:
    """Return a chart per measured quantity, with one curve a layer."""
    drawn = _grid(layers(group))
    return f"<h3>{mark}</h3>{drawn}" if drawn else ""


def _stages(groups: Sequence[Group], marks: Sequence[str]) -> str:
    """Return busy shares of a whole run, where the time of its end went, and its timeline.

    Of runs that differ by their seed it is the first; they compute alike.
    """
    parts = []
    for index, (group, mark) in enumerate(zip(groups, marks, strict=True)):
        run = group.judged[0]
        body = _busy(run, style(index)[0]) + _trace(run)
        which = f", of {_seed(run)}" if group.several else ""
        parts.append(f"<h3>{mark}{which}</h3>{body}" if body else "")
    return "".join(parts)


def _busy(run: Run, colour: str) -> str:
    shares_of_run = run.busy()[:ROWS]
    if not shares_of_run:
        return ""
    rows = [(f"stage {stage}", {"busy": share}) for stage, share in enumerate(shares_of_run)]
    idle = 1 - sum(shares_of_run) / len(shares_of_run)
    words = f"Busy share of every stage in training; idle {percent(idle)} in the mean."
    return f"<p>{words}</p>" + bars(rows, {"busy": colour}, WIDE)


def _trace(run: Run) -> str:
    found = shares(run)
    if not found:
        return ""
    rows = [(run.rows.get(stage, f"stage {stage}"), each) for stage, each in list(found.items())[:ROWS]]
    seen = {activity for each in found.values() for activity, share in each.items() if share > 0}
    colours = {activity: colour for activity, colour in COLOURS.items() if activity in seen}
    words = "Where the time went at the end of training, as far back as the trace reaches:"
    more = f"<p>The first {ROWS} of {len(found)} stages.</p>" if len(found) > ROWS else ""
    swatches = "".join(
        f'<span class="run"><svg width="14" height="12" role="img">'
        f'<rect width="14" height="12" fill="{colour}" stroke="#888" stroke-width="0.5"/></svg> '
        f"{activity}</span>"
        for activity, colour in colours.items()
    )
    return (
        f'<p>{words}</p><p class="legend">{swatches}</p>{bars(rows, colours, WIDE)}{more}'
        f"<p>{escape(longest_wait(run, found))}</p>"
        f"<p>Timeline of the last minibatches; letter and number: action and minibatch; colours as above.</p>"
        f"{timeline(run, WIDE)}"
    )
