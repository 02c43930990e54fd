"""NumPy's files: which array holds the examples, and which the targets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from pathlib import Path

from dtp_dist.data.own.npy import Array
from dtp_dist.data.own.pieces import SPELLINGS
from dtp_dist.data.sets.arrays import arrays_at
from dtp_dist.errors import DataError
from dtp_dist.scaffold.found import Found, Setting, found, target_options

EXAMPLES = ("x", "data", "images", "inputs", "features", "samples")
TARGETS = ("y", "labels", "label", "targets", "target", "classes")
"""What arrays of examples and of targets are often called, the likeliest first; in any case of letters."""


def look(path: Path) -> Found:
    """Return the arrays in a file or a folder.

    Raises:
        DataError: no network could be trained on them.
    """
    training = _of_training(arrays_at(path, "name an .npz or .npy"))
    x, y = _pair(training, path)
    targets = training[y].read()
    named = {key: Setting(name) for key, name in (("x", x), ("y", y)) if name != key}
    options = {**named, **target_options(targets, str(path))}
    return found("arrays", path, "examples", options, y=targets)


def _of_training(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays that are of no other split, without its name: ``x_train`` is x."""
    found: dict[str, Array] = {}
    for split, spellings in SPELLINGS.items():
        for name in [name for name in arrays if name.endswith(tuple(f"_{each}" for each in spellings))]:
            if split == "train":
                found[name.rpartition("_")[0]] = arrays[name]
    ends = tuple(f"_{each}" for spellings in SPELLINGS.values() for each in spellings)
    return {**{name: each for name, each in arrays.items() if not name.endswith(ends)}, **found}


def _pair(arrays: Mapping[str, Array], path: Path) -> tuple[str, str]:
    """Return the names of examples and targets: the usual ones, or of two the one with the larger rows first.

    Raises:
        DataError: nothing says which they are.
    """
    x, y = _called(arrays, EXAMPLES), _called(arrays, TARGETS)
    if len(arrays) == 2 and (x is None or y is None):
        small, large = sorted(arrays, key=lambda name: prod(arrays[name].shape[1:]))
        x, y = (small, large) if large == y or small == x else (large, small)
    if x is None or y is None:
        has = f"has the arrays {', '.join(arrays)}" if arrays else "has no array of a training split"
        raise DataError(f"{path}: {has}; call the examples x and the targets y")
    return x, y


def _called(names: Collection[str], usual: tuple[str, ...]) -> str | None:
    by_name = {name.lower(): name for name in names}
    return next((by_name[name] for name in usual if name in by_name), None)
