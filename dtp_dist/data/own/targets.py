"""Targets as a user has them, whole numbers, numbers or words, and what is learned from them.

Classes are labels 0 to C - 1; numbers are K of them for each example (K = 1 where they come as a column), and
what comes as several columns of 0 and 1 are K numbers, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtp_dist.errors import ConfigError, DataError

KINDS = ("auto", "classes", "numbers")
WHOLE, WORDS = "biu", "UTSO"  # kinds of NumPy's types
SHOWN = 5


@dataclass(frozen=True)
class Targets:
    """What the targets of a data set are.

    Attributes:
        classes: how many, None for numbers.
        width: K, the numbers of each example, 1 for classes.
        values: the target of each class as it is stored, None for 0 to ``classes - 1``.
        names: what the classes or the numbers are called.
    """

    classes: int | None
    width: int = 1
    values: tuple[Any, ...] | None = None
    names: tuple[str, ...] | None = None

    def labels(self, y: NDArray[Any], where: str) -> Tensor:
        """Return labels: int64 [N] for classes, float32 [N, K] for numbers.

        Raises:
            DataError: one is not of these targets; names ``where`` it is, and its index.
        """
        y = flat(y, where)
        return self._numbers(y, where) if self.classes is None else self._classes(y, where)

    def _classes(self, y: NDArray[Any], where: str) -> Tensor:
        if y.ndim != 1:
            raise DataError(f"{where}: has {y.shape[1]} targets for each example, where a class is one")
        found = np.full(len(y), -1, dtype=np.int64)
        for label, value in enumerate(self.values or range(self.classes or 0)):
            found[y == value] = label
        strange = np.flatnonzero(found < 0)
        if len(strange):
            index = int(strange[0])
            due = f"0 to {(self.classes or 0) - 1}" if self.values is None else _listed(self.values)
            text = f"the target {_shown(y[index])} is no class; those are {due}"
            raise DataError(f"{where}, index {index}: {text}")
        return torch.from_numpy(found)

    def _numbers(self, y: NDArray[Any], where: str) -> Tensor:
        if y.dtype.kind not in WHOLE + "f":
            raise DataError(f"{where}: its targets are {y.dtype}, which are no numbers")
        columns = y.reshape(len(y), -1)
        if columns.shape[1] != self.width:
            raise DataError(f"{where}: has {columns.shape[1]} targets for each example, others {self.width}")
        return torch.from_numpy(as_float32(columns, where, "target"))


def flat(y: NDArray[Any], where: str) -> NDArray[Any]:
    """Return targets as [N], or [N, K] with K > 1.

    Raises:
        DataError: there is none.
    """
    if y.ndim == 0 or y.size == 0:
        raise DataError(f"{where}: holds no targets")
    columns = y.reshape(len(y), -1)
    return columns[:, 0] if columns.shape[1] == 1 else columns


def as_float32(values: NDArray[Any], where: str, what: str, start: int = 0) -> NDArray[np.float32]:
    """Return numbers as float32.

    Raises:
        DataError: one is not finite; names ``where`` and the index of the first, counted from ``start``.
    """
    with np.errstate(over="ignore"):
        found = np.require(values, np.float32, ["C", "W"])
    finite = np.isfinite(found.reshape(len(found), -1)).all(1)
    if not finite.all():
        index = int(np.flatnonzero(~finite)[0])
        row, stored = found[index].ravel(), np.ravel(values[index])
        worst = stored[int(np.flatnonzero(~np.isfinite(row))[0])]
        told = "NaN" if np.isnan(worst) else f"{worst}, which is not finite in float32"
        raise DataError(
            f"{where}, index {start + index}: its {what} holds {told}; mend it or leave the example out"
        )
    return found


def targets_of(
    y: NDArray[Any],
    where: str,
    *,
    kind: str = "auto",
    classes: int | Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
) -> Targets:
    """Return what the targets of a training split are.

    Args:
        y: as they are stored.
        where: what holds them, for an error.
        kind: ``classes``, ``numbers``, or ``auto``: one whole number or word for each example is a class.
        classes: how many there are, or the target of each in order; None for those that ``y`` holds, which
            must be 0 to C - 1 where they are whole numbers.
        names: what the classes or numbers are called.

    Raises:
        DataError: ``y`` is nothing of the kind, or classes are missing in it.
        ConfigError: an option is not allowed.
    """
    y = flat(y, where)
    kind = _kind(y, kind, classes)
    if kind == "numbers":
        width = 1 if y.ndim == 1 else y.shape[1]
        return Targets(None, width, names=tuple(names) if names else None)
    if classes is None:
        return _found(y, where, names)
    if isinstance(classes, int):
        values, called = None, names
    else:
        values = tuple(classes)
        called = names or [_name(value) for value in values]
    if called is not None and values is None and len(called) != classes:
        raise DataError(f"{where}: has names of {len(called)} classes, but there are {classes}")
    count = classes if isinstance(classes, int) else len(classes)
    return Targets(count, values=values, names=None if called is None else tuple(called))


def check_target_options(targets: object, classes: object) -> None:
    """Check what a user writes of targets.

    Raises:
        ConfigError: names the key.
    """
    if targets not in KINDS:
        text = f"{targets!r} is not allowed; it must be one of {', '.join(KINDS)}"
        raise ConfigError(f"data.options.targets: {text}")
    several = isinstance(classes, list) and len(classes) > 1 and len(set(map(str, classes))) == len(classes)
    number = isinstance(classes, int) and not isinstance(classes, bool) and classes > 1
    if classes is not None and not (several or number):
        text = f"{classes!r} is not allowed; it must be their number, or a list of the targets, each once"
        raise ConfigError(f"data.options.classes: {text}")
    if classes is not None and targets == "numbers":
        raise ConfigError("data.options.classes: there are none where data.options.targets=numbers")


def _kind(y: NDArray[Any], kind: str, classes: object) -> str:
    if kind != "auto":
        return kind
    single = y.ndim == 1 and y.dtype.kind in WHOLE + WORDS
    return "classes" if single or classes is not None else "numbers"


def _found(y: NDArray[Any], where: str, names: Sequence[str] | None) -> Targets:
    """Return the classes that ``y`` holds."""
    if y.ndim != 1:
        raise DataError(f"{where}: has {y.shape[1]} targets for each example, where a class is one")
    try:
        values = np.unique(y)
    except TypeError:
        raise DataError(
            f"{where}: its targets are of several types; make them all words or numbers"
        ) from None
    if y.dtype.kind in WORDS:
        words = tuple(str(value) for value in values)
        found = Targets(len(words), values=words, names=words)
    else:
        found = Targets(_count(y, values, where), names=tuple(names) if names else None)
    if found.classes == 1:
        raise DataError(f"{where}: all targets are {_shown(values[0])}; there must be two classes at least")
    return found


def _count(y: NDArray[Any], values: NDArray[Any], where: str) -> int:
    """Return the number of classes whose labels are 0, 1, 2, ..., of which none may be missing."""
    wrong = np.flatnonzero((y < 0) | (y != np.floor(y.astype(np.float64))))
    advice = "label them 0, 1, 2, ..., or write data.options.classes=[{}]"
    listed = ", ".join(map(_shown, values[:SHOWN])) + (", ..." if len(values) > SHOWN else "")
    if len(wrong):
        text = f"the target {_shown(y[wrong[0]])} is no label of a class"
        raise DataError(f"{where}, index {wrong[0]}: {text}; {advice.format(listed)}")
    missing = np.flatnonzero(values[: len(values)] != np.arange(len(values)))
    if len(missing):
        label = int(missing[0])
        text = f"no example has the label {label}, but one at index {_first(y, values[label])}"
        raise DataError(f"{where}: {text} has {_shown(values[label])}; {advice.format(listed)}")
    return len(values)


def _first(y: NDArray[Any], value: object) -> int:
    return int(np.flatnonzero(y == value)[0])


def _listed(values: Sequence[Any]) -> str:
    more = ", ..." if len(values) > SHOWN else ""
    return ", ".join(_shown(value) for value in values[:SHOWN]) + more


def _shown(value: Any) -> str:
    """Return a stored target as it is written."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def _name(value: Any) -> str:
    return str(value)
