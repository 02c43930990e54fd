"""A user's data, brought as one, two or three splits: put in a fixed order, and cut where a split is lacking.

Whatever they come from, files, tables or a function, they go through here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from dtp_dist.data.dealing import dealt
from dtp_dist.data.examples import Examples, Pool
from dtp_dist.data.own.targets import Targets
from dtp_dist.data.rows import Held, Rows
from dtp_dist.data.source import blank
from dtp_dist.errors import DataError
from dtp_dist.system.process import available_bytes
from dtp_dist.text.numbers import short

SPELLINGS = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}
"""What the splits are called, in files and folders."""

TEST_SHARE, VALID_SHARE = 5, 10  # a fifth and a tenth
LEAST = 2  # training examples, of which one is left where another becomes the test split
CACHE_BYTES, CACHE_SHARE = 8 * 2**30, 2
"""What ``data.cache=auto`` takes at most: 8 GiB, and half of the memory that is free."""

GIGA = 1e9


@dataclass(frozen=True)
class Piece:
    """What a user has of one split; by their ``keys``, what they are called, examples are put in order."""

    rows: Rows
    labels: Tensor
    keys: Sequence[int | str]


@dataclass(frozen=True)
class Known:
    """What is known of a user's data besides the examples, as in ``Pool`` and (``divisor``) ``Examples``."""

    targets: Targets
    fingerprint: str
    divisor: float | None = None
    notes: tuple[str, ...] = ()


def pool_of(pieces: Mapping[str, Piece], known: Known, cache: str) -> Pool:
    """Return the splits that a user has, each in its fixed order, in memory as ``cache`` (``Place``) says.

    Each is dealt (``dealt``), so that its first and its last examples have each class in its share. Where
    there is no test split, the last fifth of the training examples becomes it; where there is no validation
    split, the last tenth of the others is one unless asked otherwise.

    Raises:
        DataError: there are too few examples, one is sick, or they do not fit into memory.
    """
    splits = {}
    for name, piece in pieces.items():
        classes = piece.labels.tolist() if piece.labels.dim() == 1 else [0] * len(piece.labels)
        order = dealt(classes, piece.keys, name)
        splits[name] = Examples(piece.rows, piece.labels, known.divisor).at(order)
    return _cut(_settled(splits, cache), known)


def sketch_of(sizes: Mapping[str, int], shape: Sequence[int], dtype: torch.dtype, known: Known) -> Pool:
    """Return what ``pool_of`` returns for splits of so many examples, without the contents."""
    numbers = known.targets.width if known.targets.classes is None else None
    splits = {name: blank(count, shape, dtype, numbers) for name, count in sizes.items()}
    return _cut({name: replace(each, divisor=known.divisor) for name, each in splits.items()}, known)


def _cut(splits: Mapping[str, Examples], known: Known) -> Pool:
    training, test, valid = splits["train"], splits.get("test"), splits.get("valid")
    if len(training) < LEAST:
        raise DataError(f"the training split has {len(training)} example; it must have {LEAST} at least")
    if test is None:
        border = len(training) - max(1, len(training) // TEST_SHARE)
        training, test = training.part(0, border), training.part(border, len(training))
    return Pool(
        training,
        test,
        known.targets.classes,
        len(training) // VALID_SHARE if valid is None else 0,
        valid,
        known.targets.names,
        known.fingerprint,
        known.notes,
    )


def in_memory(due: int, cache: str) -> bool:
    """Whether so many bytes of data are kept in memory, as ``cache`` (``Place``) says.

    Raises:
        DataError: they shall be, and do not fit.
    """
    free = available_bytes()
    if cache == "memory" and due > free:
        text = f"the data take {short(due / GIGA)} GB, but {short(free / GIGA)} GB of memory are free"
        raise DataError(f"data.cache=memory: {text}; write data.cache=none")
    return cache == "memory" or (cache == "auto" and due <= min(CACHE_BYTES, free // CACHE_SHARE))


def _settled(splits: Mapping[str, Examples], cache: str) -> dict[str, Examples]:
    """Return the same splits, read into memory where ``cache`` says so."""
    reading = {name: each.rows for name, each in splits.items() if not each.rows.held}
    due = sum(len(rows) * prod(rows.shape) * rows.dtype.itemsize for rows in reading.values())
    if not in_memory(due, cache):
        return dict(splits)
    held = {name: replace(splits[name], rows=Held(rows.all())) for name, rows in reading.items()}
    return {**splits, **held}
