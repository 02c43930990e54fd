"""MNIST, and data sets in its format."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import Tensor

from dtp_dist.data.examples import Examples, Pool
from dtp_dist.data.files import AGAIN, check_place, ensure_files, idx_shape, lacking_files, present, read_idx
from dtp_dist.data.rows import Held
from dtp_dist.data.source import Place, Source, blank
from dtp_dist.errors import DataError

SPLITS = ("train", "t10k")
FILES = [f"{split}-{part}" for split in SPLITS for part in ("images-idx3-ubyte", "labels-idx1-ubyte")]
CLASSES, VALID = 10, 10_000
NAMES = {
    "MNIST": tuple("0123456789"),
    "FashionMNIST": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}


def load(kind: str, place: Place) -> Pool:
    """Return MNIST or a data set in its format: 60,000 + 10,000 uint8 images [1, 28, 28], 10 classes.

    ``kind`` is the name of the torchvision class and of the folder: files are ``root/kind/raw/*``, which may
    be packed with gzip, ``.gz`` behind their names. Raises DataError if they are missing and can't be
    fetched, or damaged.
    """
    ensure(kind, place)
    training, test = (_read_split(_folder(kind, place.root), split) for split in SPLITS)
    return Pool(training, test, CLASSES, VALID, names=NAMES[kind])


def ensure(kind: str, place: Place) -> None:
    """Fetch the files where they are missing; ``sketch`` and ``load`` look at what they hold."""
    ensure_files(kind, place.root, _folder(kind, place.root), FILES)


def sketch(kind: str, place: Place) -> Pool:
    """Return sizes and shapes: of files that are there by their headers, else those of MNIST.

    Raises DataError if files are damaged, or could not be fetched.
    """
    folder = _folder(kind, place.root)
    lacking = lacking_files(kind, folder, FILES)
    if lacking:
        check_place(place.root, lacking)
        training, test = blank(60_000, (1, 28, 28)), blank(10_000, (1, 28, 28))
        return Pool(training, test, CLASSES, VALID, names=NAMES[kind])
    training, test = (_sketch_split(folder, split) for split in SPLITS)
    return Pool(training, test, CLASSES, VALID, names=NAMES[kind])


def _there(kind: str, place: Place) -> bool:
    return not lacking_files(kind, _folder(kind, place.root), FILES)


def _folder(kind: str, root: Path) -> Path:
    return root / kind / "raw"


def _read_split(folder: Path, split: str) -> Examples:
    images = read_idx(_images(folder, split), dimensions=3).unsqueeze(1)
    return Examples(Held(images), _read_labels(folder, split, len(images)))


def _sketch_split(folder: Path, split: str) -> Examples:
    count, *shape = idx_shape(_images(folder, split), dimensions=3)
    _read_labels(folder, split, count)
    return blank(count, (1, *shape))


def _images(folder: Path, split: str) -> Path:
    return folder / f"{split}-images-idx3-ubyte"


def _read_labels(folder: Path, split: str, count: int) -> Tensor:
    path = folder / f"{split}-labels-idx1-ubyte"
    labels = read_idx(path, dimensions=1).long()
    if len(labels) != count or len(labels) == 0 or int(labels.max()) >= CLASSES:
        raise DataError(f"{present(path)} is damaged: it must hold {count} labels from 0 to 9; {AGAIN}")
    return labels


def _source(kind: str) -> Source:
    return Source(
        partial(load, kind), partial(sketch, kind), partial(ensure, kind), unknown=partial(_there, kind)
    )


MNIST, FASHION_MNIST = _source("MNIST"), _source("FashionMNIST")
