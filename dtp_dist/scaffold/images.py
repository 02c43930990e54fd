"""Folders of images, a folder for each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from dtp_dist.data.own.pictures import colour_and_size
from dtp_dist.data.sets.image_folder import SUFFIXES, Listing, listed
from dtp_dist.errors import DataError
from dtp_dist.scaffold.found import Found, Setting, found

LOOKED_AT = 2000
"""Images whose sizes are looked at, spread over all."""

LARGEST = 64
"""Pixels on a side to which larger images are resized, for a start."""

GRID = 4  # sides are whole multiples of it, so that pooling leaves nothing over


def look(folder: Path) -> Found | None:
    """Return the images in a folder; None where there are no folders of classes.

    Raises:
        DataError: there are, but no network could be trained on them.
    """
    if not any(_has_images(each) for each in _folders(folder)):
        return None
    listings, names, _ = listed(folder)
    if len(names) < 2:
        raise DataError(f"{folder}: holds images of one class alone, {names[0]}; there must be two at least")
    sizes, colours = _seen(listings.values())
    return found("image_folder", folder, "images", {**_size(sizes), **_colour(colours)})


def _folders(folder: Path) -> list[Path]:
    return [each for each in sorted(folder.iterdir()) if each.is_dir() and not each.name.startswith(".")]


def _has_images(folder: Path) -> bool:
    return any(path.name.lower().endswith(SUFFIXES) for path in folder.rglob("*"))


def _seen(listings: Iterable[Listing]) -> tuple[Counter[tuple[int, int]], Counter[str]]:
    """Return how often each size (H, W) and each kind of colours occurs.

    Raises:
        DataError: an image can't be read.
    """
    paths = [each.folder / name for each in listings for name in each.names]
    sizes: Counter[tuple[int, int]] = Counter()
    colours: Counter[str] = Counter()
    for path in paths[:: -(-len(paths) // LOOKED_AT)]:
        colour, size = colour_and_size(path, str(path))
        sizes[size] += 1
        colours[colour] += 1
    return sizes, colours


def _size(sizes: Counter[tuple[int, int]]) -> dict[str, Setting]:
    if len(sizes) == 1:
        (size,) = sizes
        if max(size) <= LARGEST:
            return {}
        height, width = (_rounded(side * LARGEST / max(size)) for side in size)
        remark = f"they are {size[0]} x {size[1]}; larger ones take longer and may tell more"
        return {"size": Setting([height, width], remark)}
    side = min(LARGEST, _rounded(median(min(size) for size in sizes.elements())))
    smallest, largest = min(sizes), max(sizes)
    remark = f"they are from {smallest[0]} x {smallest[1]} to {largest[0]} x {largest[1]}"
    return {"size": Setting(side, remark), "fit": Setting("crop", "or stretch, which keeps no proportions")}


def _rounded(side: float) -> int:
    return max(GRID, round(side / GRID) * GRID)


def _colour(colours: Counter[str]) -> dict[str, Setting]:
    if len(colours) == 1:
        return {}
    return {"color": Setting("rgb", f"some are {', some '.join(sorted(colours))}")}
