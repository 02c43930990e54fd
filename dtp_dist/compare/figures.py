"""The figures of a comparison: a line a rule over epochs, with a band where there are several seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dtp_dist.charts.curve import Chart
from dtp_dist.charts.palette import style
from dtp_dist.report.curves import curve
from dtp_dist.report.files import CURVES, Draw, curves_csv
from dtp_dist.report.groups import Group
from dtp_dist.storage.files import write_file
from dtp_dist.text.measures import MEASURES, OF_EPOCH, SPLITS, chief_metric

EPOCHS = "epochs"


def write_curves(folder: Path, groups: Sequence[Group], draw: Draw | None) -> list[Path]:
    """Write the curves' data and, with something that draws, the figures as PNG and PDF; return the files.

    Args:
        folder: the comparison's.
        groups: the runs of each rule, those that have measured something.
        draw: from ``report.files.drawing``; None where there is none.

    Raises:
        StorageError: a file can't be written.
    """
    found = {folder / CURVES: curves_csv(groups)}
    if draw is not None:
        for name, charts in figures(groups).items():
            found |= {
                folder / f"{name}.png": draw(charts, "png"),
                folder / f"{name}.pdf": draw(charts, "pdf"),
            }
    for path, data in found.items():
        write_file(path, data)
    return list(found)


def figures(groups: Sequence[Group]) -> dict[str, list[Chart]]:
    """Return the charts of each figure, by its name: those of the chief metric, and of the loss."""
    names = {name for group in groups for name in group.names()}
    chief = chief_metric(names)
    measure = MEASURES[chief]
    error = [
        _chart(groups, f"{split}_{chief}", f"{SPLITS[split]} {measure.titled}") for split in ("valid", "test")
    ]
    loss = [
        _chart(groups, f"train_loss{OF_EPOCH}", f"{SPLITS['train']} loss"),
        _chart(groups, "valid_loss", f"{SPLITS['valid']} loss"),
    ]
    every = {chief: list(_drawn(error)), "loss": list(_drawn(loss))}
    return {name: charts for name, charts in every.items() if charts}


def _drawn(charts: Sequence[Chart]) -> Iterator[Chart]:
    """Yield the charts that have a curve."""
    yield from (chart for chart in charts if any(each.points for each in chart.curves))


def _chart(groups: Sequence[Group], key: str, title: str) -> Chart:
    curves = [curve(group.name, group.over_epochs(key), *style(index)) for index, group in enumerate(groups)]
    return Chart(key, title, curves, EPOCHS)
