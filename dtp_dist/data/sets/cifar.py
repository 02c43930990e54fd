"""CIFAR-10 and CIFAR-100, in torchvision's files; it takes seconds to import, so that waits for a need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from dtp_dist.data.examples import Examples, Pool
from dtp_dist.data.files import AGAIN, check_place, ensure_files, lacking_files, torchvision_class
from dtp_dist.data.rows import Held
from dtp_dist.data.sets.cifar_files import read_batch, read_names
from dtp_dist.data.source import Place, Source, blank
from dtp_dist.errors import DataError

VALID = 5_000


@dataclass(frozen=True)
class Kind:
    """One of the two: its torchvision class, its folder and what is in it.

    Attributes:
        parts: the files of the training and of the test split.
        labels: key of the labels in a file, and of the names in the file ``meta``.
    """

    name: str
    classes: int
    folder: str
    parts: tuple[tuple[str, ...], tuple[str, ...]]
    meta: str
    labels: tuple[str, str]

    @property
    def files(self) -> list[str]:
        """The names of all files."""
        return [*self.parts[0], *self.parts[1], self.meta]


def load(kind: Kind, place: Place) -> Pool:
    """Return CIFAR10 or CIFAR100: 50,000 + 10,000 uint8 images [3, 32, 32].

    Without ``place.verify`` the files may be others of the same format, with as many images as they have;
    nothing that is named in them is called (``cifar_files``).

    Raises DataError if the files are missing and can't be fetched, or fail torchvision's checksum (which
    is checked before anything is unpickled), or are no such files.
    """
    ensure(kind, place)
    if not place.verify:
        return _unverified(kind, place)
    source = torchvision_class(kind.name)
    training, test = (_from_torchvision(source(place.root, train=train)) for train in (True, False))
    return Pool(training, test, kind.classes, VALID, names=_names(kind, place))


def ensure(kind: Kind, place: Place) -> None:
    """Fetch files that are missing; compare all with torchvision's checksums if ``place`` says so."""
    folder = place.root / kind.folder
    if not place.verify:
        ensure_files(kind.name, place.root, folder, kind.files)
        return
    from torchvision.datasets.utils import check_integrity

    source = torchvision_class(kind.name)
    sums: dict[str, str] = dict([*source.train_list, *source.test_list])
    sums[source.meta["filename"]] = source.meta["md5"]
    ensure_files(kind.name, place.root, folder, list(sums))
    for name, md5 in sums.items():
        if not check_integrity(folder / name, md5):
            text = f"{AGAIN}; if it is another edition, write data.verify=false"
            raise DataError(f"{folder / name} is damaged: its checksum is wrong; {text}")


def sketch(kind: Kind, place: Place) -> Pool:
    """Return the published sizes; raises DataError if the files are missing and could not be fetched.

    Without ``place.verify`` those of the files, where they are.
    """
    check_place(place.root, lacking_files(kind.name, place.root, [kind.folder]))
    if _others(kind, place):
        pool = _unverified(kind, place)
        training, test = (blank(len(each), (3, 32, 32)) for each in (pool.training, pool.test))
        return Pool(training, test, kind.classes, pool.valid_examples, names=pool.names, notes=pool.notes)
    training, test = blank(50_000, (3, 32, 32)), blank(10_000, (3, 32, 32))
    return Pool(training, test, kind.classes, VALID, names=_names(kind, place))


def _others(kind: Kind, place: Place) -> bool:
    """Return whether there are files that need not be the published ones."""
    return not place.verify and not lacking_files(kind.name, place.root / kind.folder, kind.files)


def _names(kind: Kind, place: Place) -> tuple[str, ...] | None:
    path = place.root / kind.folder / kind.meta
    return read_names(path, kind.labels[1]) if path.exists() else None


def _unverified(kind: Kind, place: Place) -> Pool:
    """Return what the files hold, whoever has written them."""
    folder = place.root / kind.folder
    splits = []
    for names in kind.parts:
        images, labels = zip(
            *(read_batch(folder / name, kind.labels[0], kind.classes) for name in names), strict=True
        )
        values = torch.from_numpy(np.concatenate(images))
        splits.append(Examples(Held(values), torch.tensor([each for part in labels for each in part])))
    training, test = splits
    said = f"data.verify=false: {folder} was not compared with torchvision's checksums; it holds"
    note = f"{said} {len(training)} training and {len(test)} test images"
    valid = min(VALID, len(training) // 10)
    return Pool(training, test, kind.classes, valid, names=_names(kind, place), notes=(note,))


def _from_torchvision(loaded: Any) -> Examples:
    images = torch.from_numpy(loaded.data).permute(0, 3, 1, 2).contiguous()
    return Examples(Held(images), torch.tensor(loaded.targets, dtype=torch.int64))


def _source(kind: Kind) -> Source:
    return Source(
        partial(load, kind), partial(sketch, kind), partial(ensure, kind), unknown=partial(_others, kind)
    )


KINDS = {
    "cifar10": Kind(
        "CIFAR10",
        10,
        "cifar-10-batches-py",
        (tuple(f"data_batch_{number}" for number in range(1, 6)), ("test_batch",)),
        "batches.meta",
        ("labels", "label_names"),
    ),
    "cifar100": Kind(
        "CIFAR100",
        100,
        "cifar-100-python",
        (("train",), ("test",)),
        "meta",
        ("fine_labels", "fine_label_names"),
    ),
}
"""By the names of the data sets."""

CIFAR10, CIFAR100 = map(_source, KINDS.values())
