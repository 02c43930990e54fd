"""Splits that a user's Python code brings: pairs of arrays, or map-style data sets of (x, y)."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtp_dist.algorithm.randomness import derive_seed
from dtp_dist.data.own.npy import check_numbers, rows_of
from dtp_dist.data.rows import Held, Read, Rows
from dtp_dist.errors import DataError

IMAGES = {"1": "L", "L": "L", "RGB": "RGB", "RGBA": "RGBA"}
"""What Pillow's images are read as, by their modes."""


class Brought(ABC):
    """One split, called ``where`` in errors.

    Attributes:
        names: what the classes are called, where the split says so.
    """

    where: str
    names: tuple[str, ...] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    @abstractmethod
    def first(self) -> tuple[Rows, NDArray[Any]]:
        """Return the first example, or all of them where they are in memory, and targets of them."""

    def bytes(self) -> int:
        """Return how much memory all rows take."""
        rows = self.first()[0]
        return len(self) * prod(rows.shape) * rows.dtype.itemsize

    @abstractmethod
    def read(self, *, held: bool) -> tuple[Rows, NDArray[Any]]:
        """Return all rows, in memory where ``held`` says so, and their targets.

        Raises:
            DataError: an example can't be read or is not like the first; names its index.
        """

    @abstractmethod
    def targets(self) -> NDArray[Any]:
        """Return all targets, [N, ...]."""


class Pair(Brought):
    """Two arrays or tensors, of which the first dimension is N."""

    def __init__(self, x: Any, y: Any, where: str) -> None:
        self.where = where
        self._x, self._y = _array(x), _array(y)
        if not self._x.ndim or self._x.shape[:1] != self._y.shape[:1]:
            text = f"the shapes of x and y are {list(self._x.shape)} and {list(self._y.shape)}"
            raise DataError(f"{where}: {text}; there must be one target for each example")

    def __len__(self) -> int:
        return len(self._x)

    def first(self) -> tuple[Rows, NDArray[Any]]:
        return self.read(held=True)

    def read(self, *, held: bool) -> tuple[Rows, NDArray[Any]]:
        return rows_of(self._x, self.where), self._y

    def targets(self) -> NDArray[Any]:
        return self._y


class MapStyle(Brought):
    """A map-style data set, as ``torch.utils.data.Dataset`` and any sequence of (x, y) is."""

    def __init__(self, dataset: Any, where: str) -> None:
        self.dataset, self.where = dataset, where
        classes = getattr(dataset, "classes", None)
        if isinstance(classes, (list, tuple)) and all(isinstance(each, str) for each in classes):
            self.names = tuple(classes)

    def __len__(self) -> int:
        return len(self.dataset)

    def first(self) -> tuple[Rows, NDArray[Any]]:
        x, y = self.example(0)
        return Held(x[None]), _array([y])

    def read(self, *, held: bool) -> tuple[Rows, NDArray[Any]]:
        rows = DatasetRows(self)
        if not held:
            return rows, self.targets()
        found, targets = torch.empty(len(self), *rows.shape, dtype=rows.dtype), []
        for index in range(len(self)):
            found[index], y = rows.example(index)
            targets.append(y)
        return Held(found), self._targets(targets)

    def targets(self) -> NDArray[Any]:
        rows = DatasetRows(self)
        return self._targets([rows.example(index)[1] for index in range(len(self))])

    def _targets(self, found: list[Any]) -> NDArray[Any]:
        try:
            return _array(found)
        except ValueError:
            first = np.shape(found[0])
            index = next(index for index, y in enumerate(found) if np.shape(y) != first)
            text = f"its target has the shape {list(np.shape(found[index]))}, the first one's {list(first)}"
            raise DataError(f"{self.where}, index {index}: {text}") from None

    def example(self, index: int) -> tuple[Tensor, Any]:
        """Return example ``index``: uint8 or float32 [...], and its target, a number, a word or an array.

        What is random in it is the same each time.

        Raises:
            DataError: it can't be read, or is no (x, y).
        """
        where = f"{self.where}, index {index}"
        try:
            with _steady(index):
                found = self.dataset[index]
        except Exception as error:
            raise DataError(f"{where}: raised {type(error).__name__}: {_one_line(error)}") from error
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            kind = f"{len(found)} values" if isinstance(found, (tuple, list)) else type(found).__name__
            raise DataError(f"{where}: gives {kind}; each example must be (x, y)")
        x, y = found
        try:
            return _row(x, where), y if isinstance(y, str) else _array(y)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: is no (x, y) of numbers: {_one_line(error)}") from None


class DatasetRows(Read):
    """The examples of a data set as rows; all must be like the first."""

    def __init__(self, split: MapStyle) -> None:
        self._split = split
        first, _ = split.example(0)
        self.shape, self.dtype = tuple(first.shape), first.dtype

    def __len__(self) -> int:
        return len(self._split)

    def read(self, index: int) -> Tensor:
        return self.example(index)[0]

    def example(self, index: int) -> tuple[Tensor, Any]:
        """Return example ``index`` and its target."""
        x, y = self._split.example(index)
        if x.shape != self.shape or x.dtype != self.dtype:
            text = f"is {x.dtype} {list(x.shape)}, but the first is {self.dtype} {list(self.shape)}"
            raise DataError(f"{self._split.where}, index {index}: {text}")
        return x, y


def brought(split: Any, where: str) -> Brought:
    """Return one split as it was brought.

    Raises:
        DataError: it is neither a pair of arrays nor a map-style data set, or it is empty.
    """
    is_pair = isinstance(split, (tuple, list)) and len(split) == 2
    if is_pair and all(isinstance(each, (Tensor, np.ndarray)) for each in split):
        found: Brought = Pair(split[0], split[1], where)
    elif hasattr(split, "__getitem__") and hasattr(split, "__len__") and not isinstance(split, (str, dict)):
        found = MapStyle(split, where)
    else:
        text = "must be a map-style data set (len() and [index]) of (x, y), or a pair of tensors or arrays"
        raise DataError(f"{where}: {text}, not {type(split).__name__}")
    if not len(found):
        raise DataError(f"{where}: holds no example")
    return found


def _row(x: Any, where: str) -> Tensor:
    """Return one example as a row: uint8 or float32 [...]; an image of Pillow's as [C, H, W]."""
    if hasattr(x, "getbands"):
        if x.mode not in IMAGES:
            raise ValueError(f"an image of Pillow's mode {x.mode!r}; convert it to RGB or L")
        values = np.array(x.convert(IMAGES[x.mode]))
        x = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    values = np.atleast_1d(_array(x))
    check_numbers(values.dtype, values.shape, where)
    return rows_of(values[None], where.rpartition(", index ")[0], int(where.rpartition(" ")[2])).all()[0]


def _array(values: Any) -> NDArray[Any]:
    """Return values as an array; bfloat16, which NumPy does not know, as float32."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # type: ignore[no-any-return]
    return np.asarray(values)


@contextmanager
def _steady(index: int) -> Iterator[None]:
    """Make what a data set draws of global streams depend on the example alone; they stay as they were."""
    seed = derive_seed("example", index)
    ours, theirs = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
