"""Data sets that live in files under ``data.root``, in torchvision's layout; fetched when missing.

torchvision is imported only where it is needed (it takes seconds): to fetch, and to read CIFAR.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
import socket
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dtp_dist.errors import DataError
from dtp_dist.text.foreign import open_regular

log = logging.getLogger(__name__)

IDX_BYTES = 2**32  # of an idx file; MNIST's have 47 MB at most
PATIENCE = 30.0  # seconds without an answer from a server before a download is given up
REMEDY = (
    "put the files there, point data.root at a folder that has them, or use data.name=digits, which needs no "
    "files and no network"
)
AGAIN = "delete it, and it is fetched again at the next start"


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Return the uint8 tensor in an idx file: 00 00 08, the rank, the sizes (big-endian), the bytes.

    Where there is no such file, ``path`` with ``.gz`` behind it is read.

    Raises DataError that names the file if it can't be read, or its size is not what its header says.
    """
    with _opened(path) as (file, size, found):
        shape = _idx_shape(file, size, found, dimensions)
        content = bytearray(file.read(math.prod(shape)))
        rest = file.read(1)  # at the end of a gzip file its checksum is compared
    if len(content) != math.prod(shape) or rest:
        raise DataError(f"{found} became shorter while it was read; start again")
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)


def idx_shape(path: Path, dimensions: int) -> tuple[int, ...]:
    """Return the shape of the tensor in an idx file; raises DataError as ``read_idx``."""
    with _opened(path) as (file, size, found):
        return _idx_shape(file, size, found, dimensions)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int, Path]]:
    """Open a file, or the one with ``.gz`` behind its name where that alone is there, for reading.

    Yields what it holds, how many bytes that is, and its path. A gzip file says so in its last four bytes.
    """
    path = present(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if path.suffix != ".gz":
                yield file, size, path
                return
            file.seek(max(0, size - 4))
            size = int.from_bytes(file.read(4), "little")
            file.seek(0)
            with gzip.open(file) as unpacked:
                yield unpacked, size, path  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {short(error)}; {AGAIN}") from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {short(error)}") from error


def present(path: Path) -> Path:
    """Return the path of a file, or that with ``.gz`` behind it where that alone is there."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if not path.exists() and packed.exists() else path


def _idx_shape(file: BinaryIO, found: int, path: Path, dimensions: int) -> tuple[int, ...]:
    header = 4 + 4 * dimensions
    told = file.read(header)
    if told[:4] != bytes([0, 0, 8, dimensions]) or len(told) < header:
        raise DataError(f"{path} is damaged: no idx header of {dimensions} dimensions; {AGAIN}")
    shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", told[4:])
    due = header + math.prod(shape)
    if found != due or found > IDX_BYTES:
        text = f"{found} bytes where its header calls for {due}"
        raise DataError(f"{path} is damaged: {text}; {AGAIN}")
    if 0 in shape:
        raise DataError(f"{path} is damaged: its header has the sizes {list(shape)}; {AGAIN}")
    return shape


def torchvision_class(kind: str) -> Any:
    """Return torchvision's class of a data set."""
    from torchvision import datasets

    return getattr(datasets, kind)


def ensure_files(kind: str, root: Path, folder: Path, names: Sequence[str]) -> None:
    """Fetch the torchvision data set ``kind`` into ``root``, unless ``folder`` has all of ``names``.

    Raises DataError, in one line, if it can't be fetched or ``root`` can't be written to.
    """
    lacking = lacking_files(kind, folder, names)
    if not lacking:
        return
    there = _nearest(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        _remove_empty(root, there)
        raise DataError(f"{lacking}, and data.root can't be written to ({short(error)}); {REMEDY}") from error
    log.warning("downloading %s into %s", kind, root)
    try:
        with _quiet_and_bounded():
            torchvision_class(kind)(root, train=True, download=True)
    # Sockets, HTTP, gzip, tar and torchvision's own checks each have exceptions of their own.
    except BaseException as error:
        _remove_empty(folder, there)
        if not isinstance(error, Exception):
            raise
        raise DataError(f"{lacking}, and the download failed ({short(error)}); {REMEDY}") from error


def lacking_files(kind: str, folder: Path, names: Sequence[str]) -> str:
    """Return which of ``names`` are not in ``folder``, in words; "" if all are."""
    missing = [name for name in names if not present(folder / name).exists()]
    return f"{kind}: {', '.join(missing)} not found in {folder}" if missing else ""


def check_place(root: Path, lacking: str) -> None:
    """Check that what is lacking (in words) could be fetched into ``root``; raises DataError if not."""
    there = _nearest(root)
    if lacking and not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise DataError(f"{lacking}, and data.root can't be written to; {REMEDY}")


def _nearest(path: Path) -> Path:
    """Return the path itself, or the first above it that is there."""
    return next(each for each in (path, *path.parents) if each.exists())


def _remove_empty(folder: Path, there: Path) -> None:
    """Remove ``folder`` and what is above it, up to what was ``there`` before, as far as it is empty."""
    for each in (folder, *folder.parents):
        if each == there:
            break
        with suppress(OSError):
            each.rmdir()


@contextmanager
def _quiet_and_bounded() -> Iterator[None]:
    """Limit every wait on a socket to PATIENCE, and drop what is printed (the progress bar is not)."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def short(error: BaseException) -> str:
    """Return what an error says in one line: its last line, without urllib's brackets."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1].removeprefix("<urlopen error ").removesuffix(">")
