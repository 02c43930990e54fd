"""A folder of image files in torchvision's layout: a folder for each class, whose name is the class's."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dtp_dist.data.examples import Pool
from dtp_dist.data.own.pictures import CHANNELS, Images, Look, look_of
from dtp_dist.data.own.pieces import SPELLINGS, Known, Piece, pool_of, sketch_of
from dtp_dist.data.own.targets import Targets
from dtp_dist.data.source import Place, Source
from dtp_dist.errors import ConfigError, DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Names of images, as torchvision knows them."""

FITS = ("stretch", "crop")
LAYOUT = "it must hold train/CLASS/*.png, and may hold valid/ and test/ like it, or CLASS/*.png alone"


@dataclass(frozen=True)
class Listing:
    """The images of one split: names within ``folder``, sorted by class and name, and their labels."""

    folder: Path
    names: list[str]
    labels: list[int]
    sizes: list[int]

    @property
    def keys(self) -> list[str]:
        """What is hashed of the names, which may hold bytes that are no text."""
        return [name.encode(errors="backslashreplace").decode() for name in self.names]


def load(
    place: Place, *, color: str | None = None, size: int | Sequence[int] | None = None, fit: str = "stretch"
) -> Pool:
    """Return the images below ``place.root``: uint8 [C, H, W], all alike.

    The root holds ``train/CLASS/*.png`` and, optionally, ``valid/`` and ``test/`` of the same layout; or
    ``CLASS/*.png`` alone. Classes are numbered in the order of their names. ``color`` (gray, rgb or rgba)
    converts all images, ``size`` (H = W, or [H, W]) resizes them: ``fit=stretch`` to that size whatever their
    proportions, ``crop`` to cover it, and cut off at both sides. Without them the first image says how all
    must be.

    Raises:
        DataError: a class has no image, an image can't be read or is not like the first.
        ConfigError: an option is not allowed.
    """
    listings, known, look = _survey(place, color, size, fit)
    pieces = {
        split: Piece(Images(each.folder, each.names, look), torch.tensor(each.labels), each.keys)
        for split, each in listings.items()
    }
    return pool_of(pieces, known, place.cache)


def sketch(
    place: Place, *, color: str | None = None, size: int | Sequence[int] | None = None, fit: str = "stretch"
) -> Pool:
    """Return how many images there are, and their shape, from the first one; raises as ``load``."""
    listings, known, look = _survey(place, color, size, fit)
    counts = {split: len(each.names) for split, each in listings.items()}
    return sketch_of(counts, look.shape, torch.uint8, known)


def _survey(place: Place, color: object, size: object, fit: object) -> tuple[dict[str, Listing], Known, Look]:
    """Return what is there, what is known of it, and how the images are seen."""
    if color is not None and color not in CHANNELS:
        raise ConfigError(
            f"data.options.color: {color!r} is not allowed; it must be one of {', '.join(CHANNELS)}"
        )
    if fit not in FITS:
        raise ConfigError(f"data.options.fit: {fit!r} is not allowed; it must be one of {', '.join(FITS)}")
    height_width = _size(size)
    listings, names, notes = listed(place.root)
    train = listings["train"]
    first = train.folder / train.names[0]
    look = look_of(
        first,
        train.names[0],
        colour=None if color is None else str(color),
        size=height_width,
        crop=fit == "crop",
    )
    known = Known(Targets(len(names), names=names), _fingerprint(listings), notes=notes)
    return listings, known, look


def _size(size: object) -> tuple[int, int] | None:
    if size is None:
        return None
    both = list(size) if isinstance(size, Sequence) and not isinstance(size, str) else [size, size]
    pixels = [each for each in both if type(each) is int and each > 0]
    if len(both) != 2 or pixels != both:
        text = f"{size!r} is not allowed; it must be a number of pixels, or [height, width]"
        raise ConfigError(f"data.options.size: {text}")
    return pixels[0], pixels[1]


def listed(root: Path) -> tuple[dict[str, Listing], tuple[str, ...], tuple[str, ...]]:
    """Return the images of each split, the names of the classes, and what was left out, in words."""
    folders = _split_folders(root)
    left_out: list[Path] = []
    names = _class_names(folders["train"], left_out)
    listings = {}
    for split, folder in folders.items():
        there = names if split == "train" else _class_names(folder, left_out)
        unknown = [name for name in there if name not in names]
        if unknown:
            raise DataError(
                f"{folder / unknown[0]}: is of no class of {folders['train']}; move it or remove it"
            )
        listings[split] = _listing(folder, there, names, left_out)
    notes: tuple[str, ...] = ()
    if left_out:
        others = f"and {len(left_out) - 1} others, are" if len(left_out) > 1 else "is"
        notes = (f"data.root: {left_out[0]} {others} not read: no image in the folder of a class",)
    return listings, names, notes


def _split_folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise DataError(f"data.root: {root} is no folder; {LAYOUT}")
    if not (root / "train").is_dir():
        return {"train": root}
    found: dict[str, Path] = {}
    for split, names in SPELLINGS.items():
        there = [root / name for name in names if (root / name).is_dir()]
        if len(there) > 1:
            raise DataError(f"{there[1]}: there is {there[0]} as well; keep one of them")
        if there:
            found[split] = there[0]
    return found


def _class_names(folder: Path, left_out: list[Path]) -> tuple[str, ...]:
    """Return the names of the classes in a folder, sorted; files in it are left out."""
    entries = _entries(folder)
    left_out += [folder / entry.name for entry in entries if not entry.is_dir()]
    names = tuple(sorted(entry.name for entry in entries if entry.is_dir()))
    if not names:
        raise DataError(f"{folder}: holds no folders of classes; {LAYOUT}")
    return names


def _listing(folder: Path, there: Sequence[str], names: Sequence[str], left_out: list[Path]) -> Listing:
    """Return the images of the classes that are ``there`` in a split, labelled as in all ``names``."""
    listing = Listing(folder, [], [], [])
    for name in there:
        images = sorted(images_in(folder / name, name, left_out))
        if not images:
            raise DataError(f"{folder / name}: holds no image ({' '.join(SUFFIXES)}); fill it or remove it")
        listing.names.extend(path for path, _ in images)
        listing.sizes.extend(size for _, size in images)
        listing.labels.extend([names.index(name)] * len(images))
    return listing


def images_in(
    folder: Path, within: str, left_out: list[Path], above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, int]]:
    """Yield name and bytes of each image in a folder and those below it, whatever the order.

    Args:
        folder: to look in; hidden files are skipped.
        within: what the names begin with.
        left_out: takes the files that are no images.
        above: folders on the way to this one, by device and inode.

    Raises:
        DataError: a folder or a file can't be read, or a file is empty.
    """
    told = folder.stat()
    place = (told.st_dev, told.st_ino)
    if place in above:  # a link that leads back
        return
    for entry in _entries(folder):
        name = f"{within}/{entry.name}"
        if entry.is_dir():
            yield from images_in(folder / entry.name, name, left_out, above | {place})
        elif not entry.name.lower().endswith(SUFFIXES):
            left_out.append(folder / entry.name)
        else:
            yield name, _bytes(folder / entry.name, entry)


def _bytes(path: Path, entry: os.DirEntry[str]) -> int:
    try:
        size = entry.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from None
    if size == 0:
        raise DataError(f"{path}: is empty; mend it or remove it")
    return size


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder, but for hidden files."""
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: can't be read ({error.strerror})") from None


def _fingerprint(listings: dict[str, Listing]) -> str:
    """Return a hash of all files' names and sizes."""
    digest = hashlib.sha256()
    for split, each in listings.items():
        for name, size in zip(each.names, each.sizes, strict=True):
            digest.update(os.fsencode(f"{split}/{name}\0{size}\0"))
    return digest.hexdigest()


IMAGE_FOLDER = Source(load, sketch)
