"""The report: one HTML file that needs neither network nor scripts."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

from dtp_dist.errors import ConfigError, DtpDistError
from dtp_dist.report.differences import differences
from dtp_dist.report.read import Run, numbered
from dtp_dist.report.stages import COLOURS, ROWS, WAITS, shares, timeline
from dtp_dist.report.style import CSS
from dtp_dist.report.svg import PALETTE, Curve, bars, line_chart, ramp, style
from dtp_dist.report.tables import events, stamp, summary

WIDE = 1216
LEARNING = {
    "train_loss": "training loss (mean cross-entropy)",
    "train_error": "training error, %",
    "valid_error": "validation error, %",
    "test_error": "test error, %",
    "samples_per_second": "samples per second",
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

STEP = "minibatch"


def write_report(runs: Sequence[Run], path: Path) -> None:
    """Write the report of all runs to a file.

    Raises:
        ConfigError: no folder holds a run.
        DtpDistError: the file can't be written.
    """
    if all(run.state == "no run" for run in runs):
        said = "; ".join(f"{run.path} {run.reason}" for run in runs)
        raise ConfigError(f"RUN_DIR: no folder holds a run: {said}; name folders of runs")
    try:
        path.write_text(page(runs), encoding="utf-8", errors="replace")
    except OSError as error:
        raise DtpDistError(f"{path}: can't be written ({error.strerror}); name another with --out") from None


def page(runs: Sequence[Run]) -> str:
    """Return the report as HTML."""
    names = labels(runs)
    marks = [_mark(name, index) for index, name in enumerate(names)]
    title = "dtp_dist: " + (names[0] if len(runs) == 1 else f"{len(runs)} runs")
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>Written {stamp(time.time())}. Curves and bars tell their numbers under the mouse.</p>",
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
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


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
    charts = []
    for key, title in LEARNING.items():
        curves = [
            Curve(name, run.series(key), *style(index))
            for index, (run, name) in enumerate(zip(runs, names, strict=True))
        ]
        charts.append(line_chart(title, curves, x_label=STEP))
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
        log = "angle" not in kind
        charts.append(line_chart(LAYERS.get(kind, kind), curves, x_label=STEP, legend=True, may_log=log))
    return f"<h3>{mark}</h3>" + _grid(charts) if any(charts) else ""


def _stages(runs: Sequence[Run], marks: Sequence[str]) -> str:
    """Return, per run, busy shares of the whole run, where the time of its end went, and its timeline."""
    parts = []
    for run, mark in zip(runs, marks, strict=True):
        body = _busy(run) + _trace(run)
        parts.append(f"<h3>{mark}</h3>{body}" if body else "")
    return "".join(parts)


def _busy(run: Run) -> str:
    shares_of_run = run.busy()[:ROWS]
    if not shares_of_run:
        return ""
    rows = [(f"stage {stage}", {"busy": share}) for stage, share in enumerate(shares_of_run)]
    idle = 1 - sum(shares_of_run) / len(shares_of_run)
    words = f"Busy share of every stage in training; idle {100 * idle:.0f} % in the mean."
    return f"<p>{words}</p>" + bars(rows, {"busy": PALETTE[0]}, WIDE)


def _trace(run: Run) -> str:
    found = shares(run)
    if not found:
        return ""
    rows = [(run.rows.get(stage, f"stage {stage}"), each) for stage, each in list(found.items())[:ROWS]]
    seen = {kind for each in found.values() for kind, share in each.items() if share > 0}
    colours = {kind: colour for kind, colour in COLOURS.items() if kind in seen}
    words = "Where the time went at the end of training, as far back as the trace reaches:"
    more = f"<p>The first {ROWS} of {len(found)} stages.</p>" if len(found) > ROWS else ""
    swatches = "".join(
        f'<span class="run"><svg width="14" height="12" role="img">'
        f'<rect width="14" height="12" fill="{colour}" stroke="#888" stroke-width="0.5"/></svg> {kind}</span>'
        for kind, colour in colours.items()
    )
    return (
        f'<p>{words}</p><p class="legend">{swatches}</p>{bars(rows, colours, WIDE)}{more}{_longest(found)}'
        f"<p>Timeline of the last minibatches; letter and number: action and minibatch; gaps: waiting.</p>"
        f"{timeline(run, WIDE)}"
    )


def _longest(found: dict[int, dict[str, float]]) -> str:
    """Return in words what the stages waited for most."""
    waits = {kind: sum(each.get(kind, 0.0) for each in found.values()) / len(found) for kind in WAITS}
    kind = max(waits, key=lambda each: waits[each])
    if not waits[kind]:
        return "<p>No stage waited for another.</p>"
    return f"<p>Longest wait: {kind}, {100 * waits[kind]:.0f} % of the time in the mean of all stages.</p>"
