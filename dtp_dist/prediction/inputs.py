"""New examples as a run's network takes them: image files, rows of arrays, rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dtp_dist.data import Examples, Held, Read, Rows
from dtp_dist.data.batches import fits
from dtp_dist.data.own.csv_parquet import SUFFIXES as TABLES
from dtp_dist.data.own.csv_parquet import TableFile
from dtp_dist.data.own.npy import Array, ArrayRows, arrays_in, rows_of
from dtp_dist.data.own.pictures import Look, colour_and_size, decoded
from dtp_dist.data.sets.arrays import SUFFIXES as ARRAYS
from dtp_dist.data.sets.image_folder import images_in
from dtp_dist.data.sets.table import feature_names
from dtp_dist.errors import DataError
from dtp_dist.prediction.expected import Expected

BATCH_BYTES = 2**25
"""Of the numbers that the network is shown at once."""


@dataclass(frozen=True)
class Part:
    """Some of the examples, in order: of one file, or of one image each.

    Attributes:
        files: the file of each as it was named, or one of all.
        rows: the examples as they are stored.
    """

    files: Sequence[str]
    rows: Rows

    def place(self, index: int) -> tuple[str, int | None]:
        """Return the file of an example and its index in it, None where it is all that the file holds."""
        whole = isinstance(self.rows, Pictures)
        return (self.files[index], None) if whole else (self.files[0], index)


class Pictures(Read):
    """Image files as rows, each of which must look as the run's examples do."""

    def __init__(self, paths: Sequence[Path], look: Look) -> None:
        self._paths, self._look = paths, look
        self.shape, self.dtype = look.shape, torch.uint8

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> Tensor:
        path, look = self._paths[index], self._look
        colour, size = colour_and_size(path, str(path))
        due, (height, width) = look.size, size
        if (colour != look.colour and not look.convert) or (size != due and not look.resize):
            text = f"is {colour} and has {height} x {width} pixels, but the network takes {look.colour}"
            raise DataError(f"{path}: {text} of {due[0]} x {due[1]}; add --convert, or convert it")
        return decoded(path, str(path), look)


def parts_of(sources: Sequence[str | Path], expected: Expected) -> Iterator[Part]:
    """Yield the examples in files, and in the images in folders, in the order of names.

    Raises:
        DataError: a file can't be read or holds no such examples; names it.
    """
    images: list[tuple[str, Path]] = []
    for source in sources:
        path = Path(source)
        name = path.name.lower()
        if path.is_dir():
            images += [(str(each), each) for each in _images_below(path, expected)]
        elif name.endswith((*ARRAYS, *TABLES)):
            if images:
                yield _pictures(images, expected)
                images = []
            of_table = name.endswith(TABLES)
            yield Part([str(path)], (_table_rows if of_table else _array_rows)(path, expected))
        else:
            images.append((str(path), path))
    if images:
        yield _pictures(images, expected)


def batches(
    part: Part, unit: float | None, shape: Sequence[int], together: int | None = None
) -> Iterator[Tensor]:
    """Yield the examples as the network takes them but for their mean and deviation: float32 [B, *shape].

    Args:
        together: how many an evaluation takes at once, where what an example gives depends on the others; a
            last one by itself goes with those before it.

    Raises:
        DataError: one can't be read, or is by itself where it may not be; names its file.
    """
    count = len(part.rows)
    if together is not None and count == 1:
        text = "is one example, but this network (norm: minibatch) normalizes over those that it gets at once"
        raise DataError(f"{part.files[0] or 'examples'}: {text}; name several")
    examples = Examples(part.rows, torch.zeros(count, dtype=torch.int64), unit)
    some = together or max(1, BATCH_BYTES // (4 * prod(shape)))
    starts = list(range(0, count, some))
    if together is not None and starts and count - starts[-1] == 1:
        starts.pop()
    for start, end in pairwise([*starts, count]):
        yield examples.seen(part.rows.select(torch.arange(start, end))).view(-1, *shape)


def _pictures(images: list[tuple[str, Path]], expected: Expected) -> Part:
    look = expected.look
    if look is None:
        raise DataError(f"{images[0][0]}: is taken for an image, but the run takes {expected.takes}")
    return Part([name for name, _ in images], Pictures([path for _, path in images], look))


def _images_below(folder: Path, expected: Expected) -> list[Path]:
    left_out: list[Path] = []
    found = sorted(name for name, _ in images_in(folder, ".", left_out))
    if not found:
        raise DataError(f"{folder}: holds no image; name files: the run takes {expected.takes}")
    return [folder / name for name in found]


def _array_rows(path: Path, expected: Expected) -> Rows:
    """Return the examples in an ``.npy``, or in the array of an ``.npz`` that has them."""
    if expected.data == "table":
        raise DataError(f"{path}: holds an array, but the run takes {expected.takes}")
    array = _array(path, expected)
    if fits(array.shape[1:] or (1,), expected.shape):
        return rows_of(array.read(), array.where) if array.start is None else ArrayRows(array)
    if fits(array.shape, expected.shape):  # a single example
        return rows_of(array.read()[None], array.where)
    text = f"has the shape {list(array.shape)}, but the network takes [N, {str(list(expected.shape))[1:-1]}]"
    raise DataError(f"{array.where}: {text}")


def _array(path: Path, expected: Expected) -> Array:
    found, name = arrays_in(path), str(expected.options.get("x", "x")) if expected.data == "arrays" else "x"
    if len(found) == 1:
        return next(iter(found.values()))
    if name not in found:
        raise DataError(f"{path}: has {', '.join(found) or 'no array'}; examples must be called {name}")
    return found[name]


def _table_rows(path: Path, expected: Expected) -> Rows:
    if expected.data != "table":
        raise DataError(f"{path}: is a table, but the run takes {expected.takes}")
    options = expected.options
    delimiter = options.get("delimiter")
    try:
        features = feature_names(expected.root, options.get("y", ""), options.get("x"), delimiter)
    except DataError as error:
        text = "the training table says which columns are features, unless data.options.x does"
        raise DataError(f"{error}; {text}") from None
    file = TableFile(path, delimiter)
    missing = [name for name in features if name not in file.columns]
    if missing:
        raise DataError(f"{path}: there is no column {missing[0]!r}, which the network takes")
    table = file.read(features)
    if table.num_rows == 0:
        raise DataError(f"{path}: has no row")
    values = [file.numbers(table, name) for name in features]
    return Held(torch.from_numpy(np.stack(values, axis=1)))
