"""Data sets that are published, in their own files: MNIST's and those like it, CIFAR's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dtp_dist.data import ensure
from dtp_dist.data.files import idx_shape, lacking_files
from dtp_dist.data.sets.cifar import KINDS
from dtp_dist.data.sets.mnist import FILES, VALID
from dtp_dist.errors import DataError
from dtp_dist.scaffold.found import Found, found

IDX = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
RAW = "raw"


def look(folder: Path) -> list[Found]:
    """Return the data sets whose files lie in a folder, or around it, as torchvision has them.

    Raises:
        DataError: MNIST's files are there, but not where they are read.
    """
    if not folder.is_dir():
        return []
    sets = []
    for name, kind in IDX.items():
        for root in _roots(folder, Path(kind, RAW), FILES):
            valid = _valid(root / kind / RAW)
            sets.append(found(name, root, "images", place=root / kind, valid_examples=valid))
    for name, cifar in KINDS.items():
        for root in _roots(folder, Path(cifar.folder), cifar.files):
            place, verify = root / cifar.folder, _is_published(name, root)
            sets.append(found(name, root, "images", place=place, verify=verify))
    if not sets and _all(folder, FILES):
        text = "holds MNIST's files, which are read from a folder MNIST/raw (FashionMNIST/raw)"
        raise DataError(f"{folder}: {text}; move them into one, and name the folder that holds MNIST")
    return sets


def _roots(folder: Path, inner: Path, files: list[str]) -> Iterator[Path]:
    """Yield the root below which ``inner`` has all files, where ``folder`` is that or one on the way."""
    for depth in range(len(inner.parts) + 1):
        root = folder
        for part in reversed(inner.parts[:depth]):
            root = root.parent if root.name == part else Path(os.devnull)
        if _all(root / inner, files):
            yield root


def _all(folder: Path, names: list[str]) -> bool:
    return not lacking_files("", folder, names)


def _valid(folder: Path) -> int | None:
    """Return how many examples of files like MNIST's are for validation, None for MNIST's own number."""
    count, *_ = idx_shape(folder / FILES[0], dimensions=3)
    return None if count > 2 * VALID else count // 10


def _is_published(name: str, folder: Path) -> bool:
    """Return whether the files have torchvision's checksums."""
    try:
        ensure(name, folder)
    except DataError:
        return False
    return True
