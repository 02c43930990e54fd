"""Data sets that live in files under ``data.root``, in torchvision's layout; fetched when missing.

torchvision is imported only where it is needed (it takes seconds): to fetch, and to read CIFAR.
"""

from __future__ import annotations

import logging
import math
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dtp_dist.data.examples import Examples, Pool
from dtp_dist.errors import DataError

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds without an answer from a server before a download is given up
AGAIN = "delete it, and it is fetched again at the next start"


def mnist_like(kind: str, root: Path) -> Pool:
    """Return MNIST or a data set in its format: 60,000 + 10,000 uint8 images [1, 28, 28], 10 classes.

    ``kind`` is the name of the torchvision class and of the folder: files are ``root/kind/raw/*``.
    Raises DataError if they are missing and can't be fetched, or damaged.
    """
    folder = root / kind / "raw"
    splits = ("train", "t10k")
    names = [f"{split}-{part}" for split in splits for part in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    ensure_files(kind, root, folder, names)
    training, test = (_read_mnist_split(folder, split) for split in splits)
    return Pool(training, test, classes=10, valid_examples=10_000)


def _read_mnist_split(folder: Path, split: str) -> Examples:
    images = read_idx(folder / f"{split}-images-idx3-ubyte", dimensions=3).unsqueeze(1)
    path = folder / f"{split}-labels-idx1-ubyte"
    labels = read_idx(path, dimensions=1).long()
    if len(labels) != len(images) or len(labels) == 0 or int(labels.max()) > 9:
        raise DataError(f"{path} is damaged: it must hold {len(images)} labels from 0 to 9; {AGAIN}")
    return Examples(images, labels)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Return the uint8 tensor in an idx file: 00 00 08, the rank, the sizes (big-endian), the bytes.

    Raises DataError that names the file if it can't be read, or its size is not what its header says.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path} can't be read: {short(error)}") from error
    header = 4 + 4 * dimensions
    if content[:4].tolist() != [0, 0, 8, dimensions] or len(content) < header:
        raise DataError(f"{path} is damaged: no idx header of {dimensions} dimensions; {AGAIN}")
    shape = content[4:header].view(">u4").tolist()
    due = header + math.prod(shape)
    if len(content) != due:
        raise DataError(f"{path} is damaged: {len(content)} bytes where its header calls for {due}; {AGAIN}")
    return torch.from_numpy(content[header:].reshape(shape))


def cifar(kind: str, classes: int, root: Path) -> Pool:
    """Return CIFAR10 or CIFAR100 (``kind``): 50,000 + 10,000 uint8 images [3, 32, 32].

    Raises DataError if the files are missing and can't be fetched, or fail torchvision's checksum (which
    is checked before anything is unpickled).
    """
    from torchvision.datasets.utils import check_integrity

    source = _torchvision_class(kind)
    folder = root / source.base_folder
    sums: dict[str, str] = dict([*source.train_list, *source.test_list])
    sums[source.meta["filename"]] = source.meta["md5"]
    ensure_files(kind, root, folder, list(sums))
    for name, md5 in sums.items():
        if not check_integrity(folder / name, md5):
            raise DataError(f"{folder / name} is damaged: its checksum is wrong; {AGAIN}")
    training, test = (_from_torchvision(source(root, train=train)) for train in (True, False))
    return Pool(training, test, classes=classes, valid_examples=5_000)


def _from_torchvision(loaded: Any) -> Examples:
    images = torch.from_numpy(loaded.data).permute(0, 3, 1, 2).contiguous()
    return Examples(images, torch.tensor(loaded.targets, dtype=torch.int64))


def _torchvision_class(kind: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, kind)


def ensure_files(kind: str, root: Path, folder: Path, names: Sequence[str]) -> None:
    """Fetch the torchvision data set ``kind`` into ``root``, unless ``folder`` has all of ``names``.

    Raises DataError, in one line, if it can't be fetched or ``root`` can't be written to.
    """
    missing = [name for name in names if not (folder / name).is_file()]
    if not missing:
        return
    lacking = f"{kind}: {', '.join(missing)} not found in {folder}"
    remedy = "put the files there, point data.root at a folder that has them, or use data.name=digits"
    remedy += ", which needs no files and no network"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise DataError(f"{lacking}, and data.root can't be written to ({short(error)}); {remedy}") from error
    log.warning("downloading %s into %s", kind, root)
    try:
        with _quiet_and_bounded():
            _torchvision_class(kind)(root, train=True, download=True)
    # Sockets, HTTP, gzip, tar and torchvision's own checks each have exceptions of their own.
    except Exception as error:
        _remove_empty(folder, root)
        raise DataError(f"{lacking}, and the download failed ({short(error)}); {remedy}") from error


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove ``folder`` and what is above it below ``root``, as far as it is empty."""
    with suppress(OSError):
        for each in (folder, *folder.parents):
            if each == root:
                break
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
