"""CIFAR's files, which are pickles, read without anything in them being called.

A pickle names the functions that make its objects. Here a name stands for one of ours, or is refused: what
CIFAR's files hold, dictionaries, lists, texts, numbers and arrays of bytes, is made by nothing else.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtp_dist.errors import DataError
from dtp_dist.text.foreign import read_file

MOST_BYTES = 2**29  # the largest file, CIFAR-100's training split, has 155 MB


class _Type:
    """Stands for ``numpy.dtype``: the code of a type, such as ``u1``."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Take the order of bytes and what else a type of whole bytes has none of."""


class _Array:
    """Stands for ``numpy.ndarray``: shape, type and bytes."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take (version, shape, type, whether columns come first, bytes)."""
        self.state = state

    def values(self) -> NDArray[np.uint8]:
        """Return the array; raises ValueError unless it holds bytes, as many as its shape says."""
        _, shape, kind, fortran, data = self.state
        if not isinstance(kind, _Type) or kind.code not in ("u1", "uint8", "|u1"):
            raise ValueError("its images are no bytes")
        raw = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _from_buffer(data: Any, kind: object, shape: object, order: object) -> _Array:
    found = _Array()
    found.state = (1, shape, kind, order == "F", bytes(data))
    return found


def _encoded(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"it holds text as {encoding}")
    return text.encode("latin1")


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _encoded,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for here."""
        if (module, name) not in _NAMES:
            raise ValueError(f"it names {module}.{name}, which no file of CIFAR's does")
        return _NAMES[module, name]


def read_batch(path: Path, labels: str, classes: int) -> tuple[NDArray[np.uint8], list[int]]:
    """Return the images, uint8 [N, 3, 32, 32], and labels, 0 to ``classes - 1``, of a file.

    Raises:
        DataError: it can't be read, or holds something else.
    """
    found = _read(path)
    try:
        images, targets = found["data"].values().reshape(-1, 3, 32, 32), found[labels]
    except Exception as error:  # whatever else is in its place
        raise _damaged(path, f"no images or no {labels} ({type(error).__name__}: {error})") from None
    whole = isinstance(targets, list) and all(type(each) is int and 0 <= each < classes for each in targets)
    if not whole or len(targets) != len(images) or not targets:
        raise _damaged(path, f"{len(images)} images need as many {labels}, 0 to {classes - 1}")
    return images, targets


def read_names(path: Path, key: str) -> tuple[str, ...]:
    """Return the names of the classes in a file.

    Raises:
        DataError: it can't be read, or holds something else.
    """
    names = _read(path).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _damaged(path, f"no {key}")
    return tuple(names)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = _Reader(io.BytesIO(read_file(path, MOST_BYTES)), encoding="latin1").load()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from None
    except Exception as error:  # of pickle's, and whatever a stranger's bytes lead to
        raise _damaged(path, " ".join(str(error).split()) or type(error).__name__) from None
    if not isinstance(found, dict):
        raise _damaged(path, "it holds no dictionary")
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in found.items()}


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path} is damaged: {why}; delete it, and it is fetched again at the next start")
