"""A table of a user's own, CSV or Parquet: columns by name are features and targets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dtp_dist.data.examples import Pool
from dtp_dist.data.own.csv_parquet import SUFFIXES, TableFile
from dtp_dist.data.own.pieces import SPELLINGS, Known, Piece, pool_of, sketch_of
from dtp_dist.data.own.targets import check_target_options, targets_of
from dtp_dist.data.rows import Held
from dtp_dist.data.source import Place, Source
from dtp_dist.errors import ConfigError, DataError

LAYOUT = (
    f"name a file ({' '.join(SUFFIXES)}), or a folder with train.csv and, if there are, valid.csv, test.csv"
)


class Split(NamedTuple):
    """One split: its file, the names of the features, and the targets, which are read already."""

    file: TableFile
    x: list[str]
    y: NDArray[Any]


def load(place: Place, **options: Any) -> Pool:
    """Return the table in ``place.root``, a file or a folder with one for each split: float32 [features].

    ``options`` are those of ``survey``. A table is read whole, whatever ``place.cache`` says.

    Raises:
        DataError: a file is damaged, or a value is missing or no number; names its index and column.
        ConfigError: an option is not allowed, or names a column that is not there.
    """
    found, known = survey(place, **options)
    pieces = {}
    for split, (file, x, y) in found.items():
        table = file.read(x)
        values = np.empty((len(y), len(x)), dtype=np.float32)
        for column, name in enumerate(x):
            values[:, column] = file.numbers(table, name)
        labels = known.targets.labels(y, str(file.path))
        pieces[split] = Piece(Held(torch.from_numpy(values)), labels, range(len(labels)))
    return pool_of(pieces, known, place.cache)


def sketch(place: Place, **options: Any) -> Pool:
    """Return the sizes, from the targets and the names of the columns; raises as ``load``."""
    found, known = survey(place, **options)
    for file, _, y in found.values():
        known.targets.labels(y, str(file.path))
    sizes = {split: len(each.y) for split, each in found.items()}
    return sketch_of(sizes, (len(found["train"].x),), torch.float32, known)


def survey(
    place: Place,
    *,
    y: str | Sequence[str] = "",
    x: str | Sequence[str] | None = None,
    targets: str = "auto",
    classes: Any = None,
    delimiter: str | None = None,
) -> tuple[dict[str, Split], Known]:
    """Return the splits, with their targets read, and what is known of them.

    Args:
        place: where the files are.
        y: name of the column of targets, or names of several.
        x: names of the features; None: all columns but ``y``.
        targets: as in ``targets_of``, and so ``classes``.
        classes: see there.
        delimiter: what separates values; None: a comma, a tab in a ``.tsv``.
    """
    check_target_options(targets, classes)
    _check_options(x, delimiter)
    found: dict[str, Split] = {}
    for split, path in files_of(place.root).items():
        file = TableFile(path, delimiter)
        goals = _columns(file, "y", y)
        features = _features(file, goals, x)
        if not features:
            raise DataError(f"{path}: has no column but the targets; a feature is needed")
        _check_like(file, features, found)
        found[split] = Split(file, features, _targets(file, goals))
    train = found["train"]
    names = _columns(train.file, "y", y)
    where = str(train.file.path)
    kinds = targets_of(train.y, where, kind=targets, classes=classes)
    if kinds.classes is None:
        kinds = targets_of(train.y, where, kind=targets, names=names)
    return found, Known(kinds, _fingerprint(found))


def feature_names(
    root: Path, y: str | Sequence[str], x: str | Sequence[str] | None, delimiter: str | None
) -> list[str]:
    """Return the names of a table's features, in their order; arguments are as in ``survey``.

    Where ``x`` does not say them, they are read from the table.

    Raises:
        DataError: it is not there.
    """
    _check_options(x, delimiter)
    if x is not None:
        return _names("x", x)
    file = TableFile(files_of(root)["train"], delimiter)
    return _features(file, _columns(file, "y", y), None)


def _features(file: TableFile, goals: list[str], x: str | Sequence[str] | None) -> list[str]:
    """Return the features that ``x`` names, or all columns but the targets."""
    return [name for name in file.columns if name not in goals] if x is None else _columns(file, "x", x)


def _check_options(x: object, delimiter: object) -> None:
    if delimiter is not None and not (isinstance(delimiter, str) and len(delimiter) == 1):
        raise ConfigError(f"data.options.delimiter: {delimiter!r} is not allowed; it must be one character")
    if x is not None and not x:
        raise ConfigError(f"data.options.x: {x!r} names no column; write null for all but y")


def files_of(root: Path) -> dict[str, Path]:
    """Return the file of each split."""
    if root.is_file():
        return {"train": root}
    found: dict[str, Path] = {}
    for split, names in SPELLINGS.items():
        paths = [root / f"{name}{suffix}" for name in names for suffix in SUFFIXES]
        there = [path for path in paths if path.exists()]
        if len(there) > 1:
            raise DataError(f"{there[1]}: there is {there[0].name} as well; keep one of them")
        if there:
            found[split] = there[0]
    if "train" in found:
        return found
    single = (
        [path for path in sorted(root.iterdir()) if path.name.endswith(SUFFIXES)] if root.is_dir() else []
    )
    if len(single) == 1 and not found:
        return {"train": single[0]}
    raise DataError(f"data.root: there is no table at {root}; {LAYOUT}")


def _columns(file: TableFile, key: str, names: object) -> list[str]:
    """Return the columns that an option names."""
    has = f"{file.path} has {', '.join(file.columns)}"
    if names in ("", [], [""]):
        raise ConfigError(f"data.options.{key}: is missing; name the column of the targets; {has}")
    asked = _names(key, names)
    for name in asked:
        if name not in file.columns:
            raise ConfigError(f"data.options.{key}: there is no column {name!r}; {has}")
    return asked


def _names(key: str, names: object) -> list[str]:
    asked = [names] if isinstance(names, str) else names
    if not isinstance(asked, Sequence) or not all(isinstance(name, str) for name in asked):
        raise ConfigError(f"data.options.{key}: {names!r} is not allowed; it must be names of columns")
    return list(asked)


def _check_like(file: TableFile, features: list[str], found: dict[str, Split]) -> None:
    first = next(iter(found.values()), None)
    if first is not None and features != first.x:
        odd = sorted(set(features) ^ set(first.x)) or ["their order"]
        text = f"differs in its columns from {first.file.path}: {', '.join(odd)}"
        raise DataError(f"{file.path}: {text}; name the features in data.options.x")


def _targets(file: TableFile, names: list[str]) -> NDArray[Any]:
    """Return the targets [N], or [N, K] of several columns."""
    table = file.read(names)
    if table.num_rows == 0:
        raise DataError(f"{file.path}: has no row")
    columns = [file.values(table, name) for name in names]
    return (
        columns[0] if len(columns) == 1 else np.stack([file.numbers(table, name) for name in names], axis=1)
    )


def _fingerprint(found: dict[str, Split]) -> str:
    """Return a hash of names, sizes and targets."""
    digest = hashlib.sha256()
    for split, (file, x, y) in found.items():
        digest.update(f"{split}\0{file.path.stat().st_size}\0{x}\0{y.dtype}\0".encode())
        digest.update(np.ascontiguousarray(y).tobytes())
    return digest.hexdigest()


TABLE = Source(load, sketch, options=survey)
