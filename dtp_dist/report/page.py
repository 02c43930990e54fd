"""The report: one HTML file that needs neither network nor scripts."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from html import escape

from dtp_dist.charts.palette import COLOURS, ramp, style
from dtp_dist.charts.style import CSS
from dtp_dist.charts.svg import Curve, bars, line_chart
from dtp_dist.report.differences import differences
from dtp_dist.report.read import Points, Run, numbered
from dtp_dist.report.stages import ROWS, longest_wait, shares, timeline
from dtp_dist.report.tables import events, stamp, summary
from dtp_dist.text.measures import MEASURES, SPLITS, Measure
from dtp_dist.text.numbers import percent
from dtp_dist.text.printable import printable

WIDE = 1216


def _unit(measure: Measure) -> str:
    return ", %" if measure.percent else ""


def _of_metric(name: str, measure: Measure) -> Iterator[tuple[str, str]]:
    """Yield the names of a metric's values, each with the title of its chart."""
    title, unit = measure.title, _unit(measure)
    yield f"train_{name}", f"training {title} since the point before{unit}"
    yield f"train_{name}_of_epoch", f"training {title}, mean of each epoch{unit}"
    yield f"valid_{name}", f"validation {title}{unit}"
    yield f"test_{name}", f"test {title}{unit}"


LEARNING = {
    "train_loss": "training loss, mean since the point before",
    "train_loss_of_epoch": "training loss, mean of each epoch",
    **{title: words for name, measure in MEASURES.items() for title, words in _of_metric(name, measure)},
    "samples_per_second": "samples per second",
    "samples_per_second_so_far": "samples per second since the start",
}
OVER_TIME = {
    f"{split}_{name}": f"{SPLITS[split]} {measure.title} against seconds{_unit(measure)}"
    for name, measure in MEASURES.items()
    for split in ("valid", "test")
    if measure.column
}
LAYERS = {
    "forward_loss": "forward loss",
    "inverse_loss": "inverse loss",
    "displacement": "length of the displacement, relative to the activation",
    "update_angle": "angle between update and backpropagation's, degrees",
    "target_angle": "angle between displacement and negative gradient, degrees",
    "jacobian_angle": "angle between the inverse's Jacobian and the transpose, degrees",
    "reconstruction_error": "reconstruction error",
}
"""What is measured per layer; names that are not here are drawn after these, as they are."""

ALWAYS_LOG = ("forward_loss", "displacement")
"""What differs by orders of magnitude between layers that all learn."""

STEP, SECONDS = "minibatch", "seconds since the start"


def page(runs: Sequence[Run]) -> str:
    """Return the report as HTML."""
    names = labels(runs)
    marks = [_mark(name, index) for index, name in enumerate(names)]
    title = "dtp_dist: " + (names[0] if len(runs) == 1 else f"{len(runs)} runs")
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>Written {stamp(time.time())}. Curves and bars show their numbers under the mouse.</p>",
        _section("Runs", summary(runs, marks)),
        _section("Learning and speed", _learning(runs, names, marks)),
        _section("Layers", "".join(_layers(run, mark) for run, mark in zip(runs, marks, strict=True))),
        _section("Stages", _stages(runs, marks)),
    ]
    if len(runs) > 1:
        parts.append(_section("Configurations: what differs", differences(runs, marks)))
    told = [(mark, events(run)) for run, mark in zip(runs, marks, strict=True)]
    parts.append(_section("Events", "".join(f"<h3>{mark}</h3>{each}" for mark, each in told if each)))
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{CSS}</style>'
    body = "\n".join(parts)
    html = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'
    return printable(html, keep="\n")


def labels(runs: Sequence[Run]) -> list[str]:
    """Return a short name for every run: its folder's, with its parents' where two are the same."""
    paths = [run.path.resolve() for run in runs]
    depth, deepest = 1, max(len(path.parts) for path in paths)
    while depth < deepest and len({path.parts[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    names = ["/".join(path.parts[-depth:]).replace("//", "/") for path in paths]
    return [name + (" (virtual)" if run.virtual else "") for name, run in zip(names, runs, strict=True)]


def _mark(name: str, index: int) -> str:
    """Return a run's name with its line, as the curves have it."""
    colour, dash = style(index)
    line = (
        f'<line x1="0" x2="26" y1="6" y2="6" stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"/>'
    )
    return f'<span class="run"><svg width="26" height="12" role="img">{line}</svg> {escape(name)}</span>'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body or '<p>Nothing was recorded.</p>'}\n</section>"


def _learning(runs: Sequence[Run], names: Sequence[str], marks: Sequence[str]) -> str:
    def chart(title: str, points: Sequence[Points], x_label: str) -> str:
        drawn = enumerate(zip(names, points, strict=True))
        return line_chart(
            title, [Curve(name, each, *style(index)) for index, (name, each) in drawn], x_label=x_label
        )

    charts = [chart(title, [run.series(key) for run in runs], STEP) for key, title in LEARNING.items()]
    charts += [
        chart(title, [run.over_time(key) for run in runs], SECONDS) for key, title in OVER_TIME.items()
    ]
    legend = '<p class="legend">' + " ".join(marks) + "</p>"
    return legend + _grid(charts) if any(charts) else ""


def _grid(charts: Sequence[str]) -> str:
    return '<div class="grid2">' + "".join(f"<div>{chart}</div>" for chart in charts if chart) + "</div>"


def _layers(run: Run, mark: str) -> str:
    """Return a chart per measured quantity, with one curve a layer."""
    names = run.names()
    kinds = {name.rpartition("/")[2] for name in names if name.startswith("layer/")}
    ordered = [kind for kind in LAYERS if kind in kinds] + sorted(kinds - LAYERS.keys())
    charts = []
    for kind in ordered:
        found = numbered(names, rf"layer/(\d+)/{re.escape(kind)}")
        last = max(found, default=1)
        curves = [
            Curve(f"layer {layer}", run.series(name), ramp(layer - 1, last)) for layer, name in found.items()
        ]
        log = True if kind in ALWAYS_LOG else False if "angle" in kind else None
        charts.append(line_chart(LAYERS.get(kind, kind), curves, x_label=STEP, legend=True, log=log))
    return f"<h3>{mark}</h3>" + _grid(charts) if any(charts) else ""


def _stages(runs: Sequence[Run], marks: Sequence[str]) -> str:
    """Return, per run, busy shares of the whole run, where the time of its end went, and its timeline."""
    parts = []
    for index, (run, mark) in enumerate(zip(runs, marks, strict=True)):
        body = _busy(run, style(index)[0]) + _trace(run)
        parts.append(f"<h3>{mark}</h3>{body}" if body else "")
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
