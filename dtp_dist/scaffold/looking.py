"""What there is in a folder that a network can be trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dtp_dist.data.own.csv_parquet import SUFFIXES as TABLES
from dtp_dist.data.own.pieces import SPELLINGS
from dtp_dist.data.sets.arrays import SUFFIXES as ARRAYS
from dtp_dist.errors import DataError
from dtp_dist.scaffold import arrays, images, published, tables
from dtp_dist.scaffold.found import Found

LOOKS_FOR = (
    "init looks for a folder of images for each class (CLASS/*.png, or train/CLASS/*.png), .npz or .npy "
    "arrays x and y, a CSV or Parquet table, and the files of MNIST and CIFAR"
)
SHOWN = 5


def look(path: Path) -> Found:
    """Return the data in a file or a folder, or in a folder in it unless it is a data set as a whole.

    Raises:
        DataError: there are none, or several; says what to name instead.
    """
    if not path.exists():
        raise DataError(f"{path}: is not there; name the folder or the file that holds the data")
    reasons: list[str] = []
    found = list(_at(path, reasons))
    if path.is_dir() and all(path not in (each.root, each.place) for each in found):
        folders = (each for each in sorted(path.iterdir()) if each.is_dir())
        found += [each for folder in folders if folder.name[0] != "." for each in _at(folder, [])]
    if len(found) == 1:
        return found[0]
    if found:
        places = [str(each.place) for each in found]
        raise DataError(f"{path}: holds several data sets; name one of {', '.join(places[:SHOWN])}")
    why = f"; what is there can't be trained on: {reasons[0]}" if reasons else ""
    raise DataError(f"{path}: holds no data for a configuration; {LOOKS_FOR}{why}")


def _at(path: Path, reasons: list[str]) -> Iterator[Found]:
    """Yield the data that lie directly in a folder, or are a file; what is wrong with others is listed."""
    try:
        sets = published.look(path)
        yield from sets
        if path.is_dir() and not sets and (found := images.look(path)):
            yield found
    except DataError as error:
        reasons.append(str(error))
    for look_at, suffixes in ((arrays.look, ARRAYS), (tables.look, TABLES)):
        for place in _places(path, suffixes):
            try:
                yield look_at(place)
            except DataError as error:
                reasons.append(str(error))


def _places(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files of some kind in a folder, or the folder where together they are one data set."""
    files = [path] if path.is_file() else [each for each in sorted(path.iterdir()) if each.is_file()]
    files = [each for each in files if each.name.endswith(suffixes)]
    splits = any(each.name.partition(".")[0] in SPELLINGS["train"] for each in files)
    together = len(files) > 1 and (splits or any(each.suffix == ".npy" for each in files))
    return [path] if together else files
