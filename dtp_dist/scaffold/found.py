"""Data that were found, as far as a first configuration depends on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtp_dist.data import Splits, load
from dtp_dist.data.own.targets import flat
from dtp_dist.errors import DataError
from dtp_dist.text.numbers import whole
from dtp_dist.text.printable import printable

NAMES_SHOWN = 8
FEW = 20
"""Different whole numbers that are still taken for classes, if each stands for several examples."""


@dataclass(frozen=True)
class Setting:
    """The value of a key, and what is said of it, "" for nothing."""

    value: Any
    remark: str = ""


@dataclass(frozen=True)
class Found:
    """Data that can be trained on.

    Attributes:
        name: of the data set, as in ``data.name``.
        root: as in ``data.root``.
        place: what to name to get no other data.
        things: what examples are called.
        splits: their sizes and shapes, without the contents.
        options: ``data.options`` by name.
        verify: as in ``data.verify``, and so ``valid_examples``.
        numbers: the targets of the training split, None where they are classes.
        varies: whether no channel or feature is constant, so that they can be standardized.
    """

    name: str
    root: Path
    place: Path
    things: str
    splits: Splits
    options: Mapping[str, Setting] = field(default_factory=dict)
    verify: bool = True
    valid_examples: int | None = None
    numbers: NDArray[Any] | None = None
    varies: bool = True

    @property
    def in_words(self) -> str:
        """What there is: ``90 images of 3 classes (cat, dog, eel)``."""
        splits = self.splits
        parts = (splits.train, splits.valid, splits.test)
        count = sum(len(each) for each in parts if each is not None)
        names = ", ".join(map(printable, (splits.names or ())[:NAMES_SHOWN]))
        names += ", ..." if len(splits.names or ()) > NAMES_SHOWN else ""
        listed = f" ({names})" if names else ""
        if splits.classes is not None:
            return f"{whole(count)} {self.things} of {splits.classes} classes{listed}"
        several = "a number" if splits.outputs == 1 else f"{splits.outputs} numbers"
        return f"{whole(count)} {self.things}, each labelled with {several}{listed}"

    @property
    def binary(self) -> bool:
        """Whether targets are several labels at once, each there or not."""
        return (
            self.numbers is not None and self.splits.outputs > 1 and bool(np.isin(self.numbers, (0, 1)).all())
        )


def found(
    name: str,
    root: Path,
    things: str,
    options: Mapping[str, Setting] | None = None,
    *,
    y: NDArray[Any] | None = None,
    place: Path | None = None,
    verify: bool = True,
    valid_examples: int | None = None,
) -> Found:
    """Return data that can be trained on, ``y`` being the targets of their training split.

    Raises:
        DataError: they can't be, and why.
    """
    options = options or {}
    given: dict[str, Any] = {key: each.value for key, each in options.items()}
    given |= {"verify": verify, "valid_examples": valid_examples, "sketch": True}
    splits = load(name, root, **given)
    try:
        load(name, root, normalize="standardize", **given)
        varies = True
    except DataError as error:
        if "constant" not in str(error):
            raise
        varies = False
    numbers = y if splits.classes is None else None
    return Found(name, root, place or root, things, splits, options, verify, valid_examples, numbers, varies)


def target_options(y: NDArray[Any], where: str) -> dict[str, Setting]:
    """Return ``data.options`` that say what targets are, where they do not say it themselves.

    Whole numbers that are not 0, 1, 2, ... are classes where there are few, else numbers.
    """
    y = flat(y, where)
    if y.ndim != 1 or y.dtype.kind not in "iuf" or not np.isfinite(y).all():
        return {}
    values = np.unique(y)
    if (values != np.floor(values)).any():
        return {}
    few = 1 < len(values) <= FEW and len(y) >= 2 * len(values)
    if np.array_equal(values, np.arange(len(values))):
        return {"targets": Setting("classes")} if few and y.dtype.kind == "f" else {}
    if few:
        remark = "the target of each class, in the order of the outputs"
        return {"classes": Setting([int(value) for value in values], remark)}
    remark = "many different whole numbers; if they are classes, write classes: [...]"
    return {"targets": Setting("numbers", remark)}
