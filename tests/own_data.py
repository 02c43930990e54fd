"""Data of a user's own, made on the spot: image files, arrays, tables, a module with a function."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dtp_dist.data import Examples

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

CLASSES = ("cat", "dog", "eel")
NETWORK = {
    "input": [3, 4, 5],
    "layers": [
        {"kind": "flatten"},
        {"kind": "dense", "units": 16},
        {"kind": "dense", "units": 3, "activation": "linear"},
    ],
}
"""One for the images that ``write_folder`` writes."""


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def pixels(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, tuple(shape), dtype=np.uint8)


def write_image(path: Path, shape: Sequence[int] = (4, 5, 3), seed: int = 0) -> Path:
    """Write an image of [H, W] or [H, W, C] pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(shape, seed)).save(path)
    return path


def write_folder(
    root: Path, count: int = 10, classes: Sequence[str] = CLASSES, shape: Sequence[int] = (4, 5, 3)
) -> Path:
    """Write so many images of each class, root/CLASS/0.png and so on."""
    for label, name in enumerate(classes):
        for index in range(count):
            write_image(root / name / f"{index}.png", shape, seed=1000 * label + index)
    return root


def write_arrays(path: Path, count: int = 30, shape: Sequence[int] = (3, 2), classes: int = 3) -> Path:
    """Write x and y to an .npz file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=np.random.default_rng(0).normal(size=(count, *shape)), y=np.arange(count) % classes)
    return path


def write_table(path: Path, count: int = 30) -> Path:
    """Write columns a, b, kind (x, y or z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{i},{i * i / 7},{'xyz'[i % 3]}" for i in range(count)]
    path.write_text("\n".join(["a,b,kind", *rows]) + "\n")
    return path


def picked(part: Examples, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return chosen examples as the network sees them, and their labels."""
    return part.seen(part.rows.select(chosen)), part.labels[chosen]
