"""What a run's folder says of its data: ``data.json``, for whoever has the folder and not the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dtp_dist.data import Examples, Splits
from dtp_dist.data.source import blank
from dtp_dist.errors import DataError, StorageError
from dtp_dist.storage.files import write_file
from dtp_dist.storage.run_files import DATA
from dtp_dist.text.foreign import TEXT_BYTES, is_regular, parse_json, read_file


def facts_of(splits: Splits, normalized: Examples | None = None) -> dict[str, Any]:
    """Return what is kept of a data set.

    ``classes`` is their number, null where targets are numbers; ``names`` what they are called, in the order
    of the network's outputs, or null; ``shape`` that of one example; ``examples`` their number in each split;
    ``fingerprint`` a hash of the files' names and sizes, or null; ``mean`` and ``deviation`` of each channel,
    of the values as ``seen`` divides them, by which the network sees them, null where it does not or as long
    as the run is not at its end.
    """
    seen = (None, None) if normalized is None else (normalized.mean, normalized.deviation)
    mean, deviation = (None if each is None else each.tolist() for each in seen)
    parts = {"train": splits.train, "valid": splits.valid, "test": splits.test}
    return {
        "classes": splits.classes,
        "names": None if splits.names is None else list(splits.names),
        "shape": list(splits.shape),
        "examples": {split: len(each) for split, each in parts.items() if each is not None},
        "fingerprint": splits.fingerprint,
        "mean": mean,
        "deviation": deviation,
    }


def write_facts(run_dir: Path, splits: Splits, normalized: Examples | None = None) -> None:
    """Write ``data.json``; ``normalized`` has the mean and deviation by which examples are seen.

    Raises:
        StorageError: it can't be written.
    """
    write_file(run_dir / DATA, (json.dumps(facts_of(splits, normalized), indent=1) + "\n").encode())


def read_facts(run_dir: Path) -> dict[str, Any] | None:
    """Return what ``data.json`` holds, None for the folder of an earlier version, which has none.

    Raises:
        StorageError: it is damaged.
    """
    path = run_dir / DATA
    if not is_regular(path):
        return None
    try:
        found = parse_json(read_file(path, TEXT_BYTES))
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: is damaged ({error})") from None
    if not isinstance(found, dict):
        raise StorageError(f"{path}: is damaged (it is no object)")
    return found


def normalized_like(run_dir: Path) -> Examples | None:
    """Return an example that is seen as the run saw them, None where ``data.json`` does not say how.

    Raises:
        StorageError: it is damaged.
    """
    facts = read_facts(run_dir)
    if facts is None or facts.get("mean") is None:
        return None
    try:
        mean, deviation = (torch.tensor(facts[key], dtype=torch.float32) for key in ("mean", "deviation"))
        if mean.shape != deviation.shape or list(mean.shape) != facts["shape"][:1]:
            raise ValueError("mean and deviation do not fit the shape")
        return blank(1, facts["shape"]).standardized(mean, deviation)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise StorageError(f"{run_dir / DATA}: is damaged ({error})") from None


def check_same(run_dir: Path, splits: Splits, root: str, *, whole: bool = True) -> None:
    """Check that data are those that the run in a folder began with, as far as that is cheap to see.

    Args:
        run_dir: the run's folder; one without ``data.json`` has nothing to compare with.
        splits: as they are today.
        root: where they are, for an error.
        whole: whether the examples must be the same, or else the classes alone.

    Raises:
        DataError: they are not; says what differs.
    """
    before, now = read_facts(run_dir), facts_of(splits)
    keys = ("classes", "names", "shape", *(("examples", "fingerprint") if whole else ()))
    for key in keys if before is not None else ():
        if before is not None and before.get(key) != now[key]:
            values = f"{key} was {before.get(key)}, now {now[key]}"
            if key == "fingerprint":
                values = "names, sizes or targets changed"
            text = f"{root} does not hold the data that this run began with ({values})"
            raise DataError(f"data.root: {text}; put those back, or name their place: data.root=PATH")
