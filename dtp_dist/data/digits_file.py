"""The digits that come with scikit-learn, read without its import, which takes as long as that of torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE = 8
PLACE = ("datasets", "data", "digits.csv.gz")


def read_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return 1797 images [N, 8, 8] of 0..16 and their labels [N], as scikit-learn's ``load_digits`` does."""
    package = find_spec("sklearn")
    path = Path(package.origin).parent.joinpath(*PLACE) if package and package.origin else Path()
    if not path.is_file():  # another layout, or nothing: then scikit-learn itself says what is wrong
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    rows = np.loadtxt(path, delimiter=",", dtype=np.int64)
    return rows[:, :-1].reshape(-1, SIDE, SIDE).astype(np.uint8), rows[:, -1].copy()
