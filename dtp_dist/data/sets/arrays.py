"""Arrays of a user's own, in NumPy's files: examples of any shape and their targets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dtp_dist.data.examples import Pool
from dtp_dist.data.own.npy import Array, ArrayRows, arrays_in, check_numbers, rows_of
from dtp_dist.data.own.pieces import SPELLINGS, Known, Piece, pool_of, sketch_of
from dtp_dist.data.own.targets import check_target_options, targets_of
from dtp_dist.data.rows import Rows
from dtp_dist.data.source import Place, Source
from dtp_dist.errors import ConfigError, DataError

SUFFIXES = (".npy", ".npz")
LAYOUT = (
    "name an .npz, or a folder of .npz and .npy, with the arrays {x} and {y}, or {x}_train, {y}_train and, "
    "where there are such splits, {x}_valid, {y}_valid, {x}_test, {y}_test"
)


@dataclass(frozen=True)
class Found:
    """The arrays of one split; the targets are read already."""

    x: Array
    y: NDArray[Any]
    where: str


def load(place: Place, **options: Any) -> Pool:
    """Return the arrays in ``place.root``, an ``.npz``, or a folder of ``.npz`` and ``.npy`` files.

    ``options`` are those of ``survey``. An ``.npy`` can be read row by row (``place.cache``); an ``.npz`` is
    read whole.

    Raises:
        DataError: a file is damaged, arrays do not fit, or a number is not finite.
        ConfigError: an option is not allowed.
    """
    found, known = survey(place, **options)
    pieces = {}
    for split, each in found.items():
        labels = known.targets.labels(each.y, each.where)
        pieces[split] = Piece(_rows(each.x, place.cache), labels, range(len(labels)))
    return pool_of(pieces, known, place.cache)


def sketch(place: Place, **options: Any) -> Pool:
    """Return the sizes, from the headers and the targets; raises as ``load``."""
    found, known = survey(place, **options)
    for each in found.values():
        known.targets.labels(each.y, each.where)
    x = found["train"].x
    dtype = torch.uint8 if x.dtype == np.uint8 else torch.float32
    return sketch_of({split: len(each.y) for split, each in found.items()}, x.shape[1:] or (1,), dtype, known)


def survey(
    place: Place,
    *,
    x: str = "x",
    y: str = "y",
    targets: str = "auto",
    classes: Any = None,
    unit: float | None = None,
) -> tuple[dict[str, Found], Known]:
    """Return the arrays of each split, checked against one another, and what is known of them.

    Args:
        place: where the files are.
        x: array of the examples, [N, ...]. uint8 is seen divided by ``unit``; others become float32.
        y: array of the targets, [N] or [N, K].
        targets: as in ``targets_of``, and so ``classes``.
        classes: see there.
        unit: the stored value that is seen as 1; None: 255 of uint8, 1 of others.
    """
    check_target_options(targets, classes)
    for key, name in (("x", x), ("y", y)):
        if not isinstance(name, str) or not name:
            raise ConfigError(f"data.options.{key}: {name!r} is not allowed; it must be the name of an array")
    check_unit(unit)
    layout = LAYOUT.format(x=x, y=y)
    arrays = arrays_at(place.root, layout)
    names = _names(arrays, x, y)
    if "train" not in names:
        has = ", ".join(arrays) or "no array"
        raise DataError(f"data.root: {place.root} has {has}; {layout}")
    found = {split: _found(arrays, *pair) for split, pair in names.items()}
    for each in found.values():
        _check_like(each.x, found["train"].x)
    train = found["train"]
    kinds = targets_of(train.y, train.where, kind=targets, classes=classes)
    unused = sorted(arrays.keys() - {name for pair in names.values() for name in pair})
    notes = (f"data.root: not read: {', '.join(arrays[name].where for name in unused)}",) if unused else ()
    return found, Known(kinds, _fingerprint(found), unit, notes)


def check_unit(unit: object) -> None:
    """Check what a user writes of the stored value that is seen as 1.

    Raises:
        ConfigError: it is no number above 0.
    """
    if unit is not None and not (type(unit) in (int, float) and unit > 0):  # type: ignore[operator]
        raise ConfigError(f"data.options.unit: {unit!r} is not allowed; it must be a number above 0")


def arrays_at(root: Path, layout: str) -> dict[str, Array]:
    """Return all arrays by their names; x in ``train.npz`` is called ``x_train``."""
    try:
        files = sorted(root.iterdir()) if root.is_dir() else [root]
    except OSError as error:
        raise DataError(f"data.root: {root} can't be read ({error.strerror})") from None
    files = [path for path in files if path.suffix in SUFFIXES]
    if not files or not root.exists():
        raise DataError(f"data.root: there is no .npz or .npy at {root}; {layout}")
    found: dict[str, Array] = {}
    splits = [spelling for each in SPELLINGS.values() for spelling in each]
    for path in files:
        for name, array in arrays_in(path).items():
            called = f"{name}_{path.stem}" if path.suffix == ".npz" and path.stem in splits else name
            if called in found:
                text = f"{found[called].where} is called {called} as well; keep one of them"
                raise DataError(f"{array.where}: {text}")
            found[called] = array
    return found


def _names(arrays: Mapping[str, Array], x: str, y: str) -> dict[str, tuple[str, str]]:
    """Return the names of each split's arrays, as far as one of both is there."""
    names: dict[str, tuple[str, str]] = {}
    for split, spellings in SPELLINGS.items():
        pairs = [(f"{x}_{spelling}", f"{y}_{spelling}") for spelling in spellings]
        for pair in [*pairs, (x, y)] if split == "train" else pairs:
            if pair[0] in arrays or pair[1] in arrays:
                names.setdefault(split, pair)
    return names


def _found(arrays: Mapping[str, Array], x: str, y: str) -> Found:
    """Return the arrays of a split, of which both must be there and have as many rows."""
    for name, other in ((x, y), (y, x)):
        if name not in arrays:
            raise DataError(f"{arrays[other].where}: there is no array {name} that goes with it")
    examples, targets = arrays[x], arrays[y]
    check_numbers(examples.dtype, examples.shape, examples.where)
    if targets.shape[:1] != examples.shape[:1]:
        text = f"has the shape {list(targets.shape)}, but {x} has {list(examples.shape)}"
        raise DataError(f"{targets.where}: {text}; there must be one target for each example")
    return Found(examples, targets.read(), targets.where)


def _check_like(x: Array, train: Array) -> None:
    if x.shape[1:] != train.shape[1:] or (x.dtype == np.uint8) != (train.dtype == np.uint8):
        text = f"has examples of {x.dtype} {list(x.shape[1:])}, but {train.where} has"
        raise DataError(f"{x.where}: {text} {train.dtype} {list(train.shape[1:])}")


def _rows(array: Array, cache: str) -> Rows:
    """Return an array's rows: read when needed if its file allows that, else in memory."""
    if array.start is not None and cache != "memory":
        return ArrayRows(array)
    return rows_of(array.read(), array.where)


def _fingerprint(found: Mapping[str, Found]) -> str:
    """Return a hash of all shapes, and of the targets."""
    digest = hashlib.sha256()
    for split, each in found.items():
        digest.update(f"{split}\0{each.x.dtype}\0{each.x.shape}\0{each.y.dtype}\0".encode())
        digest.update(np.ascontiguousarray(each.y).tobytes())
    return digest.hexdigest()


ARRAYS = Source(load, sketch, options=survey)
