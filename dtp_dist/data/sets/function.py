"""Data from a function of a user's own, ``package.module:function``, or handed over in Python."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from numpy.typing import NDArray

from dtp_dist import import_path
from dtp_dist.data.examples import Pool
from dtp_dist.data.own.brought import Brought, brought
from dtp_dist.data.own.pieces import SPELLINGS, Known, Piece, in_memory, pool_of, sketch_of
from dtp_dist.data.own.targets import WORDS, check_target_options, flat, targets_of
from dtp_dist.data.rows import Rows
from dtp_dist.data.source import Place, Source
from dtp_dist.errors import ConfigError, DataError, RangeError

CLASSES, DATA = "classes", "data"
KEYS = (*SPELLINGS, CLASSES)


def function_source(path: str) -> Source:
    """Return the data set behind an import path ``package.module:function``.

    The function is called with the root (a ``Path``) and the options; it returns what ``given_source`` takes.

    Raises:
        ConfigError: it can't be imported.
    """
    function = imported(path)

    def called(place: Place, **options: Any) -> Any:
        return _call(path, function, place, options)

    return _source(called, f"data.name={path}", function)


def given_source(data: Mapping[str, Any]) -> Source:
    """Return the data set in a mapping with ``train`` and, optionally, ``valid`` and ``test``.

    Each is a map-style data set of (x, y), or a pair of tensors or NumPy arrays; ``classes`` may hold the
    names or the number of the classes.
    """
    return _source(lambda place: data, DATA, None)


def imported(path: str) -> Callable[..., Any]:
    """Return the function that an import path names.

    Raises:
        ConfigError: it can't be imported; says why.
    """
    try:
        found = import_path.imported(path, "name")
    except RangeError as error:
        raise ConfigError(f"data.name: {error}") from None
    if not callable(found):
        raise ConfigError(f"data.name: {path!r} is not a function")
    return found  # type: ignore[no-any-return]


def _source(bring: Callable[..., Any], where: str, options: Callable[..., Any] | None) -> Source:
    return Source(partial(_load, bring, where), partial(_sketch, bring, where), options=options or bring)


def _call(path: str, function: Callable[..., Any], place: Place, options: Mapping[str, Any]) -> Any:
    try:
        inspect.signature(function).bind(place.root, **options)
    except TypeError as error:
        raise ConfigError(f"data.options: {path} can't be called with the root and these: {error}") from None
    except ValueError:
        pass  # it has no signature to look at
    try:
        return function(place.root, **options)
    except Exception as error:
        text = " ".join(str(error).split())
        raise DataError(f"data.name: {path} raised {type(error).__name__}: {text}") from error


def _load(bring: Callable[..., Any], where: str, place: Place, **options: Any) -> Pool:
    splits, classes = _splits(bring(place, **options), where)
    held = in_memory(sum(each.bytes() for each in splits.values()), place.cache)
    read = {split: each.read(held=held) for split, each in splits.items()}
    known = _known(splits, classes, read["train"][1])
    pieces = {}
    for split, (rows, y) in read.items():
        _check_like(rows, read["train"][0], splits[split].where)
        labels = known.targets.labels(y, splits[split].where)
        pieces[split] = Piece(rows, labels, range(len(labels)))
    return pool_of(pieces, known, place.cache)


def _sketch(bring: Callable[..., Any], where: str, place: Place, **options: Any) -> Pool:
    """Return sizes and shapes by the first examples; all are read where only that shows the classes."""
    splits, classes = _splits(bring(place, **options), where)
    first = {split: each.first() for split, each in splits.items()}
    rows, y = first["train"]
    train = splits["train"]
    is_class = flat(y, train.where).ndim == 1 and y.dtype.kind != "f"
    told = classes is not None or train.names is not None
    known = _known(splits, classes, train.targets() if is_class and not told else y)
    for split, (some, targets) in first.items():
        _check_like(some, rows, splits[split].where)
        known.targets.labels(targets, splits[split].where)
    return sketch_of({split: len(each) for split, each in splits.items()}, rows.shape, rows.dtype, known)


def _splits(data: Any, where: str) -> tuple[dict[str, Brought], Any]:
    """Return the splits of a mapping, and what it says of the classes."""
    if not isinstance(data, Mapping):
        text = f"returns {type(data).__name__}" if where != DATA else f"is {type(data).__name__}"
        raise DataError(
            f"{where}: {text}; it must be a mapping with train and, where there are, valid and test"
        )
    for key in data:
        if key not in KEYS:
            raise DataError(f"{where}: {key!r} is not allowed in the mapping; it has {', '.join(KEYS)}")
    if data.get("train") is None:
        raise DataError(f"{where}: the mapping has no train")
    splits = {
        name: brought(data[name], f"{where}, {name}") for name in SPELLINGS if data.get(name) is not None
    }
    classes = data.get(CLASSES)
    check_target_options("auto", list(classes) if isinstance(classes, tuple) else classes)
    return splits, classes


def _known(splits: Mapping[str, Brought], classes: Any, y: NDArray[Any]) -> Known:
    """Return what is known of the splits, with targets ``y``, all or some, of the training split."""
    train = splits["train"]
    names = train.names if classes is None else classes
    if names is None or isinstance(names, int) or y.dtype.kind in WORDS:
        targets = targets_of(y, train.where, classes=names)
    elif classes is None and y.dtype.kind == "f":  # names, but not of numbers
        targets = targets_of(y, train.where)
    else:
        targets = targets_of(y, train.where, classes=len(names), names=list(map(str, names)))
    digest = hashlib.sha256()
    for split, each in splits.items():
        digest.update(f"{split}\0{len(each)}\0{each.first()[0].shape}\0{targets}\0".encode())
    return Known(targets, digest.hexdigest())


def _check_like(rows: Rows, train: Rows, where: str) -> None:
    if rows.shape != train.shape or rows.dtype != train.dtype:
        text = (
            f"has examples of {rows.dtype} {list(rows.shape)}, but train of {train.dtype} {list(train.shape)}"
        )
        raise DataError(f"{where}: {text}")
