"""What is measured of a network's outputs, in words: the names are those in metrics.jsonl and result.json.

``dtp_dist/algorithm/losses`` measures it; docs/losses.md defines it. A value has the name of its split and of
its measure, ``valid_error``, ``test_r2_score``; of training, ``train_error`` is since the line before and
``train_error_of_epoch`` over the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from dtp_dist.text.numbers import error_rate, short

SPLITS = {"train": "training", "valid": "validation", "test": "test"}
OF_EPOCH = "_of_epoch"


@dataclass(frozen=True)
class Measure:
    """How a measure is shown.

    Attributes:
        title: what it is called.
        column: the same in a narrow column; "" where tables and a terminal's lines leave it out.
        percent: whether it is in percent.
        chief: whether it stands for the others of its run where there is room for one.
    """

    title: str
    column: str = ""
    percent: bool = False
    chief: bool = False

    @property
    def titled(self) -> str:
        """The title of bare numbers, with their unit."""
        return f"{self.title}, %" if self.percent else self.title

    @property
    def bare(self) -> Callable[[float], str]:
        """What writes a number without its unit."""
        return error_rate if self.percent else short

    def written(self, value: float) -> str:
        """Return a value with its unit."""
        return f"{error_rate(value)} %" if self.percent else short(value)


MEASURES = {
    "error": Measure("error", "%", percent=True, chief=True),
    "top_5_error": Measure("top-5 error", percent=True),
    "mean_absolute_error": Measure("mean absolute error", "MAE", chief=True),
    "r2_score": Measure("R2", "R2"),
    "hamming_distance": Measure("Hamming distance", "Hamming", chief=True),
    "exact_match": Measure("exact match", "exact"),
}
"""All but the loss itself, in the order in which they are shown."""


def measured_in(runs: Iterable[Container[str]]) -> list[tuple[str, str]]:
    """Return the splits and metrics that a table has columns for: what any run has, errors if none has any.

    Args:
        runs: the names of what each has measured.
    """
    known = list(runs)

    def columns(name: str) -> list[tuple[str, str]]:
        return [(split, name) for split in ("valid", "test")]

    def has(name: str) -> bool:
        return any(f"{split}_{each}" in run for run in known for split, each in columns(name))

    found = [name for name, measure in MEASURES.items() if measure.column and has(name)]
    return [column for name in found or ["error"] for column in columns(name)]


def chief_metric(known: Container[str]) -> str:
    """Return the metric that stands for all, ``error`` unless there is another among the names of values."""
    for name, measure in MEASURES.items():
        every = (f"{split}_{name}{end}" for split in SPLITS for end in ("", OF_EPOCH))
        if measure.chief and any(each in known for each in every):
            return name
    return "error"


def in_words(values: Mapping[str, float | None], *splits: str, brief: bool = True) -> Iterator[str]:
    """Yield the metrics of some splits (all by default) that are there: ``test error 2.02 %``."""
    for split in splits or SPLITS:
        for name, measure in MEASURES.items():
            own = f"{split}_{name}"
            value = values.get(own, values.get(f"{own}{OF_EPOCH}"))
            if value is not None and (measure.column or not brief):
                yield f"{split} {measure.title} {measure.written(value)}"
