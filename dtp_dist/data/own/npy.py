"""NumPy's files as rows: in memory, or read row by row from an ``.npy``. No pickle is loaded."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from dtp_dist.data.own.targets import as_float32
from dtp_dist.data.rows import Held, Read, Rows
from dtp_dist.errors import DataError
from dtp_dist.text.foreign import open_regular

NUMBERS = "biuf"  # kinds of NumPy's types that a network can be shown
MAGIC, VERSIONS = npy.MAGIC_PREFIX, {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class Array:
    """An array in a file.

    Attributes:
        path: the file.
        member: its name within an ``.npz``, None for an ``.npy``.
        shape: [N, ...].
        dtype: as it is stored.
        start: where its numbers start in an ``.npy``; None where rows can't be read one by one.
    """

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int | None

    @property
    def where(self) -> str:
        """Its file, and its name in it."""
        return str(self.path) if self.member is None else f"{self.path}, array {self.member}"

    def read(self) -> NDArray[Any]:
        """Return the whole array.

        Raises:
            DataError: its file is damaged, or memory does not suffice.
        """
        with _whole(self.where):
            if self.member is None:
                with open_regular(self.path) as file:
                    return npy.read_array(file)
            with open_regular(self.path) as file, zipfile.ZipFile(file) as archive:
                return npy.read_array(archive.open(f"{self.member}.npy"))


def arrays_in(path: Path) -> dict[str, Array]:
    """Return the arrays in an ``.npy`` (by the file's name) or an ``.npz`` by their names, by headers alone.

    Raises:
        DataError: it can't be read, is damaged, or an array holds what is no number, flag or text.
    """
    with _whole(str(path)), open_regular(path) as file:
        if path.suffix == ".npy":
            return {path.stem: _array(file, path, None, os.fstat(file.fileno()).st_size)}
        with zipfile.ZipFile(file) as archive:
            found = {}
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as member:
                    found[name] = _array(member, path, name, info.file_size)
            return found


def _array(file: IO[bytes], path: Path, member: str | None, size: int) -> Array:
    """Return what the header at the start of ``file``, which has ``size`` bytes, says."""
    version = npy.read_magic(file)
    if version not in VERSIONS:
        raise ValueError(f"it is of version {version[0]}.{version[1]} of the format")
    shape, fortran, dtype = VERSIONS[version](file)
    if dtype.hasobject or dtype.names:
        raise ValueError("it holds Python objects or records; save numbers")
    start = file.tell()
    due = start + prod(shape) * dtype.itemsize
    if size != due:
        raise ValueError(f"it has {size} bytes where its header calls for {due}")
    return Array(path, member, shape, dtype, None if fortran or member is not None else start)


@contextmanager
def _whole(where: str) -> Iterator[None]:
    """Say of everything that goes wrong with a file that it is damaged, or can't be read."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{where}: can't be read ({error.strerror or error})") from None
    except MemoryError as error:
        raise DataError(
            f"{where}: does not fit into memory ({error}); save it as an .npy of its own"
        ) from None
    except Exception as error:  # zip files and headers each have exceptions of their own
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{where}: is no whole NumPy file ({text})") from None


def rows_of(values: NDArray[Any], where: str, start: int = 0) -> Rows:
    """Return an array in memory as rows: uint8 stays, all else becomes float32; [N] becomes [N, 1].

    Raises:
        DataError: it holds no numbers, or one that is not finite; names ``where`` and the index, which is
            ``start`` for the first.
    """
    check_numbers(values.dtype, values.shape, where)
    values = values[:, None] if values.ndim == 1 else values
    if values.dtype == np.uint8:
        return Held(torch.tensor(values))
    return Held(torch.from_numpy(as_float32(values, where, "example", start)))


def check_numbers(dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> None:
    """Check that an array is one of examples.

    Raises:
        DataError: it holds no numbers, or no example.
    """
    if dtype.kind not in NUMBERS:
        raise DataError(f"{where}: holds {dtype}, which are no real numbers")
    if not shape or 0 in shape:
        raise DataError(f"{where}: has the shape {list(shape)}, which holds no examples; it must be [N, ...]")


class ArrayRows(Read):
    """The rows of an ``.npy``, read from the file when they are asked for."""

    def __init__(self, array: Array) -> None:
        assert array.start is not None
        check_numbers(array.dtype, array.shape, array.where)
        self._array, self._count = array, array.shape[0]
        self.shape = array.shape[1:] or (1,)
        self.dtype = torch.uint8 if array.dtype == np.uint8 else torch.float32
        self._bytes = prod(self.shape) * array.dtype.itemsize

    def __len__(self) -> int:
        return self._count

    def select(self, chosen: Tensor) -> Tensor:
        """Read the rows; the file is open for that time alone, so that these rows can be sent elsewhere."""
        found = torch.empty(len(chosen), *self.shape, dtype=self.dtype)
        with _whole(self._array.where), open_regular(self._array.path) as file:
            for place, index in enumerate(chosen.tolist()):
                found[place] = self._row(file.fileno(), index)
        return found

    def read(self, index: int) -> Tensor:
        return self.select(torch.tensor([index]))[0]

    def _row(self, descriptor: int, index: int) -> Tensor:
        data = os.pread(descriptor, self._bytes, (self._array.start or 0) + index * self._bytes)
        if len(data) < self._bytes:
            raise ValueError("it became shorter while it was read")
        row = np.frombuffer(data, self._array.dtype).reshape(1, *self.shape)
        return rows_of(row, self._array.where, index).all()[0]
