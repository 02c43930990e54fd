"""Image files as rows: decoded with Pillow to uint8 [C, H, W], all of one size and one kind of channels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dtp_dist.data.rows import Read
from dtp_dist.errors import DataError
from dtp_dist.text.foreign import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

CHANNELS = {"gray": 1, "rgb": 3, "rgba": 4}
PILLOW = {"gray": "L", "rgb": "RGB", "rgba": "RGBA"}
COLOURS = {"1": "gray", "L": "gray", "P": "rgb", "RGB": "rgb", "YCbCr": "rgb", "CMYK": "rgb", "RGBA": "rgba"}
"""What an image of one of Pillow's modes is, unless the user says what it shall be."""


@dataclass(frozen=True)
class Look:
    """How every image is seen: ``colour`` is one of CHANNELS, of ``size`` (H, W).

    Attributes:
        convert: whether images of other channels are converted, or else refused.
        resize: whether images of other sizes are resized, or else refused.
        crop: whether what is resized keeps its proportions, and what juts out is cut off at both sides alike.
        model: the image that the others must be like, for an error.
    """

    colour: str
    size: tuple[int, int]
    convert: bool
    resize: bool
    crop: bool
    model: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return CHANNELS[self.colour], *self.size


def look_of(
    path: Path, name: str, *, colour: str | None, size: tuple[int, int] | None, crop: bool = False
) -> Look:
    """Return how all images are seen, from what is asked for, or else from the first one.

    Raises:
        DataError: that can't be read.
    """
    found, height_width = colour_and_size(path, f"{path}, index 0", colour)
    return Look(colour or found, size or height_width, colour is not None, size is not None, crop, name)


def colour_and_size(path: Path, where: str, colour: str | None = None) -> tuple[str, tuple[int, int]]:
    """Return what colours an image has, one of CHANNELS, unless it is given, and (H, W), by its header.

    Raises:
        DataError: it can't be read; names ``where`` it is.
    """
    with _opened(path, where) as image:
        return colour or _colour(image, where), (image.height, image.width)


class Images(Read):
    """The image files ``names`` within ``folder``, as ``look`` says.

    An error names a file by its whole path and by its place in ``names``.
    """

    def __init__(self, folder: Path, names: Sequence[str], look: Look) -> None:
        self.folder, self.names, self.look = folder, names, look
        self.shape, self.dtype = look.shape, torch.uint8

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Tensor:
        path = self.folder / self.names[index]
        return decoded(path, f"{path}, index {index}", self.look)

    def gather(self, chosen: Tensor) -> Tensor:
        found = torch.empty(len(chosen), *self.shape, dtype=self.dtype)

        def put(place: int) -> None:
            found[place] = self.read(int(chosen[place]))

        with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:
            for _ in pool.map(put, range(len(chosen))):
                pass  # the first error is raised here
        return found


def decoded(path: Path, where: str, look: Look) -> Tensor:
    """Return an image: uint8 [C, H, W].

    Raises:
        DataError: it can't be read or is not like the others; names ``where`` it is.
    """
    with _opened(path, where) as image:
        colour = _colour(image, where)
        if colour != look.colour and not look.convert:
            text = f"is {colour}, but the first image, {look.model}, is {look.colour}"
            raise DataError(f"{where}: {text}; write data.options.color={look.colour}, or one of all")
        height, width = look.size
        if (image.height, image.width) != look.size and not look.resize:
            text = f"has {image.height} x {image.width} pixels, but the first image, {look.model},"
            raise DataError(
                f"{where}: {text} has {height} x {width}; write data.options.size=[{height},{width}]"
            )
        array = _array(image, look)
    return torch.from_numpy(array).permute(2, 0, 1)


def _array(image: Image, look: Look) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return uint8 [H, W, C] of an opened image."""
    from PIL import ImageOps

    seen = image.convert(PILLOW[look.colour])
    height, width = look.size
    if (seen.height, seen.width) != look.size:
        method = _pillow().Resampling.BILINEAR
        seen = (
            ImageOps.fit(seen, (width, height), method) if look.crop else seen.resize((width, height), method)
        )
    array = np.array(seen)
    return array[:, :, None] if array.ndim == 2 else array


def _colour(image: Image, where: str) -> str:
    transparent = image.mode in ("LA", "PA", "La") or (image.mode == "P" and "transparency" in image.info)
    colour = "rgba" if transparent else COLOURS.get(image.mode)
    if colour is None:
        text = f"has pixels of Pillow's mode {image.mode!r}, which are not 8 bits for each channel"
        raise DataError(f"{where}: {text}; write it as such, or use data.name=arrays")
    return colour


@contextmanager
def _opened(path: Path, where: str) -> Iterator[Image]:
    """Open an image file; whatever goes wrong with it meanwhile is a DataError."""
    try:
        with open_regular(path) as file, _pillow().open(file) as image:
            yield image
    except DataError:
        raise
    except Exception as error:  # each format's reader in Pillow has exceptions of its own
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{where}: can't be read ({error.strerror})") from None
        text = str(error) or type(error).__name__
        if type(error).__name__ == "UnidentifiedImageError":
            text = "it is of no format that Pillow knows"
        raise DataError(f"{where}: is no whole image ({text}); mend it or remove it") from None


@cache
def _pillow() -> ModuleType:
    """Return Pillow, which is imported where it is needed; it refuses images that are too large to decode."""
    from PIL import Image

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    return Image
