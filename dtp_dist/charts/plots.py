"""Curves as pictures for papers, PNG and PDF: by matplotlib, which this file alone imports."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dtp_dist.charts.axis import axis_of
from dtp_dist.charts.curve import Chart, Curve

INCHES = (5.6, 3.6)
"""Of one chart: across, up."""

DOTS_PER_INCH = 200
FEW_CURVES, FEW_POINTS = 6, 12
"""More curves than this have their names next to the chart; so few points are marked."""

UNDATED: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
"""The same curves are the same bytes."""

LOOK: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "pdf.fonttype": 42,  # letters stay letters, as publishers ask for
}


def picture(charts: Sequence[Chart], form: Literal["png", "pdf"]) -> bytes:
    """Return charts side by side as the content of a file; those without a point are left out."""
    shown = [chart for chart in charts if any(curve.points for curve in chart.curves)]
    with rc_context(LOOK):
        size = (INCHES[0] * max(1, len(shown)), INCHES[1])
        figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
        for place, chart in enumerate(shown, 1):
            _draw(figure.add_subplot(1, len(shown), place), chart)
        data = io.BytesIO()
        figure.savefig(data, format=form, metadata=UNDATED[form])
    return data.getvalue()


def _draw(axes: Axes, chart: Chart) -> None:
    curves = [curve for curve in chart.curves if curve.points]
    for curve in curves:
        _line(axes, curve)
    heights = [y for curve in curves for y in curve.heights()]
    axes.set_yscale("log" if axis_of(heights, log=chart.log).log else "linear")
    axes.set_xlim(left=0)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.title, wrap=True)
    if len(curves) > FEW_CURVES:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize="x-small")
    else:
        axes.legend(frameon=False)


def _line(axes: Axes, curve: Curve) -> None:
    xs, ys = zip(*curve.points, strict=True)
    lengths = tuple(float(each) for each in curve.dash.split())
    marker = "o" if len(xs) <= FEW_POINTS else ""
    dashes: Any = (0, lengths) if lengths else "solid"
    axes.plot(xs, ys, color=curve.colour, linestyle=dashes, marker=marker, markersize=3, label=curve.name)
    if curve.band and len(xs) == 1:
        axes.errorbar(xs, ys, yerr=[curve.band[xs[0]]], color=curve.colour, capsize=4)
    elif curve.band:
        across, low, high = zip(*curve.edges(), strict=True)
        axes.fill_between(across, low, high, color=curve.colour, alpha=0.18, linewidth=0)
