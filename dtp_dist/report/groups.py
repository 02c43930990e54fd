"""Runs that differ by their seed alone, taken together: means, and how far single runs are from them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

from dtp_dist.report.read import Run
from dtp_dist.report.spans import is_number
from dtp_dist.text.dotted import flat
from dtp_dist.text.numbers import ranges, two_digits

ALIKE = re.compile(r"seed|name|run_dir|code_dir|(monitor|compare)(\..*)?")
"""Keys in which the runs of a group may differ: of these the seed alone changes what is computed."""


class Spread(NamedTuple):
    """Some values: their mean, their standard deviation (of a sample; None of one value), their number."""

    mean: float
    deviation: float | None
    runs: int

    def written(self, form: Callable[[float], str]) -> str:
        """Return ``mean ± deviation``, each in a form; of the deviation no more than two digits count."""
        after = "" if self.deviation is None else f" ± {form(two_digits(self.deviation))}"
        return f"{form(self.mean)}{after}"


def spread(values: Sequence[float]) -> Spread | None:
    """Return the spread of values, None where there are none."""
    if not values:
        return None
    count, mean = len(values), math.fsum(values) / len(values)
    if count == 1:
        return Spread(mean, None, 1)
    return Spread(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1)), count)


class Point(NamedTuple):
    """What the runs of a group have measured at one place of a curve."""

    x: float
    spread: Spread


Points = list[Point]


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone, or a single run of any kind, with its name."""

    name: str
    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """Its first run, which has the settings of all."""
        return self.runs[0]

    @property
    def several(self) -> bool:
        """Whether it is of more than one run."""
        return len(self.runs) > 1

    @property
    def judged(self) -> list[Run]:
        """Return the runs that its figures are of: those that are done, if any is."""
        return [run for run in self.runs if run.state == "done"] or list(self.runs)

    @property
    def seeds(self) -> str:
        """Its seeds in few characters: ``0-4,7``."""
        return ranges(sorted(seed for run in self.runs if isinstance(seed := run.setting("seed"), int)))

    def names(self) -> set[str]:
        """Return the names of all measured values."""
        return {name for run in self.runs for name in run.names()}

    def measured(self) -> set[str]:
        """Return the names of all measured values, also of those that a result alone has."""
        return {name for run in self.runs for name in run.measured()}

    def of(self, value: Callable[[Run], Any]) -> Spread | None:
        """Return the spread of a figure over the runs that it is known of."""
        return spread([float(found) for run in self.judged if is_number(found := value(run))])

    def last(self, name: str) -> Spread | None:
        """Return the spread of what was measured last."""
        return self.of(lambda run: run.last(name))

    def series(self, name: str) -> Points:
        """Return the spread at each minibatch."""
        found: dict[float, list[float]] = defaultdict(list)
        for run in self.runs:
            for place, value in run.series(name):
                found[place].append(value)
        return [_point(place, values) for place, values in sorted(found.items())]

    def over_epochs(self, name: str) -> Points:
        """Return the spread at each epoch (1-based), of what was measured last in it."""
        found: dict[float, list[float]] = defaultdict(list)
        for run in self.runs:
            for epoch, (value, _) in _at(run, name, "epoch").items():
                found[epoch].append(value)
        return [_point(epoch, values) for epoch, values in sorted(found.items())]

    def over_time(self, name: str) -> Points:
        """Return the spread at each minibatch, where its runs were then: at the mean of their seconds."""
        if not self.several:
            return [_point(time, [value]) for time, value in self.first.over_time(name)]
        found: dict[float, list[tuple[float, float]]] = defaultdict(list)
        for run in self.runs:
            for step, (value, time) in _at(run, name, "step").items():
                if is_number(time):
                    found[step].append((value, float(time)))
        points = ((math.fsum(time for _, time in each) / len(each), each) for each in found.values())
        return sorted(_point(time, [value for value, _ in each]) for time, each in points)


def _point(x: float, values: Sequence[float]) -> Point:
    found = spread(values)
    assert found is not None
    return Point(x, found)


def _at(run: Run, name: str, place: str) -> dict[float, tuple[float, Any]]:
    """Return (value, seconds) of what was measured, by a place of its line; the later line wins."""
    return {
        line[place]: (float(line[name]), line.get("time"))
        for line in run.lines
        if is_number(line.get(name)) and is_number(line.get(place))
    }


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Return the runs in groups, each where its first run is; each seed is in a group once.

    A run whose configuration can't be read, or has no seed, is a group of its own.
    """
    found: dict[object, list[Run]] = {}
    seen: Counter[str] = Counter()
    for number, run in enumerate(runs):
        seed = run.config.get("seed")
        if is_number(seed):
            alike = {key: value for key, value in flat(run.config).items() if not ALIKE.fullmatch(key)}
            key = json.dumps([run.virtual, alike], sort_keys=True, default=str)
            seen[f"{seed} {key}"] += 1
            found.setdefault((key, seen[f"{seed} {key}"]), []).append(run)
        else:
            found[number] = [run]
    label = dict(zip(map(id, runs), labels(runs), strict=True))
    groups = [tuple(each) for each in found.values()]
    names = [_name([label[id(run)] for run in each], each[0]) for each in groups]
    return [Group(name, each) for name, each in zip(told_apart(names), groups, strict=True)]


def labels(runs: Sequence[Run]) -> list[str]:
    """Return a short name for every run: its folder's, with its parents' where two are the same."""
    paths = [run.path.resolve() for run in runs]
    depth, deepest = 1, max((len(path.parts) for path in paths), default=0)
    while depth < deepest and len({path.parts[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    names = ["/".join(path.parts[-depth:]).replace("//", "/") for path in paths]
    return [name + (" (virtual)" if run.virtual else "") for name, run in zip(names, runs, strict=True)]


def _name(names: Sequence[str], first: Run) -> str:
    """Return a group's name: what its runs' names begin with, else the experiment's."""
    if len(names) == 1:
        return names[0]
    parts = [re.split(r"([-_/ ]+)", name) for name in names]
    alike = takewhile(lambda each: len(set(each)) == 1, zip(*parts, strict=False))
    common = [each[0] for each in alike]
    while common and re.fullmatch(r"[-_/ ]*|seed|run", common[-1]):
        common = common[:-1]
    what = f"{len(names)} seeds{', virtual' if first.virtual else ''}"
    return f"{''.join(common) or first.name} ({what})"


def told_apart(names: Sequence[str]) -> list[str]:
    """Return the names with a number after one that was there before."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return found


def settings_in(groups: Sequence[Group]) -> list[Mapping[str, Any]]:
    """Return the configuration of each group, with all of its seeds."""
    return [
        {**each.first.config, "seed": each.seeds} if each.several else each.first.config for each in groups
    ]
