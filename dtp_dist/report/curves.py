"""Which curves there are of runs: learning and speed, and each layer's, whatever they are drawn with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dtp_dist.charts.curve import Chart, Curve
from dtp_dist.charts.palette import ramp, style
from dtp_dist.report.groups import Group, Points
from dtp_dist.report.read import numbered
from dtp_dist.text.measures import MEASURES, SPLITS, Measure


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
    "weight_update_angle": "angle between the weights' update and backpropagation's, degrees",
    "bias_update_angle": "angle between the biases' update and backpropagation's, degrees",
    "weight_update_distance": "distance of the weights' gradient from backpropagation's, relative",
    "bias_update_distance": "distance of the biases' gradient from backpropagation's, relative",
    "target_angle": "angle between displacement and negative gradient, degrees",
    "jacobian_angle": "angle between the inverse's Jacobian and the transpose, degrees",
    "reconstruction_error": "reconstruction error",
}
"""What is measured per layer; names that are not here are drawn after these, as they are."""

ALWAYS_LOG = ("forward_loss", "displacement")
"""What differs by orders of magnitude between layers that all learn."""

STEP, SECONDS = "minibatch", "seconds since the start"


def curve(name: str, points: Points, colour: str, dash: str = "") -> Curve:
    """Return a group's curve: the mean, and where there are several runs a band of one deviation."""
    band = {point.x: point.spread.deviation for point in points if point.spread.deviation is not None}
    return Curve(name, [(point.x, point.spread.mean) for point in points], colour, dash, band)


def learning(groups: Sequence[Group]) -> Iterator[Chart]:
    """Yield the charts that all groups share, with a curve each in the style of its place."""
    for key, title in LEARNING.items():
        yield Chart(key, title, _drawn(groups, [each.series(key) for each in groups]), STEP)
    for key, title in OVER_TIME.items():
        drawn = _drawn(groups, [each.over_time(key) for each in groups])
        yield Chart(f"{key}_against_seconds", title, drawn, SECONDS)


def _drawn(groups: Sequence[Group], points: Sequence[Points]) -> list[Curve]:
    every = enumerate(zip(groups, points, strict=True))
    return [curve(group.name, each, *style(index)) for index, (group, each) in every]


def layers(group: Group) -> Iterator[Chart]:
    """Yield a chart per measured quantity of a group, with one curve a layer."""
    names = group.names()
    kinds = {name.rpartition("/")[2] for name in names if name.startswith("layer/")}
    for kind in [*(kind for kind in LAYERS if kind in kinds), *sorted(kinds - LAYERS.keys())]:
        found = numbered(names, rf"layer/(\d+)/{re.escape(kind)}")
        last = max(found, default=1)
        curves = [
            curve(f"layer {layer}", group.series(name), ramp(layer - 1, last))
            for layer, name in found.items()
        ]
        log = True if kind in ALWAYS_LOG else False if "angle" in kind else None
        yield Chart(kind, LAYERS.get(kind, kind), curves, STEP, legend=True, log=log)
