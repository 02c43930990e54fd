"""How near two results of the same sums must be: it follows from the type and the length of the sums.

Processors, and the libraries that torch calls on them, add in other orders and fuse other products, so the
last bits are theirs. No test compares two ways of computing something more closely than this.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CHAIN = 1000
"""Terms that stand for a few updates of the tests' small networks, each a chain of short sums."""


def tolerance(dtype: torch.dtype = torch.float32, terms: int = CHAIN) -> float:
    """Return the error of sums of ``terms`` rounded products, relative to the largest of such sums.

    ``terms * eps``: were all terms of one sign, half of it would be the bound in any order. With signs at
    random errors grow like the root of ``terms``, so that a sum of 100 terms has a margin of 10 and more.
    """
    return float(terms * torch.finfo(dtype).eps)


def angle_tolerance(terms: int = CHAIN) -> float:
    """Return the error of an angle, in degrees, that float64 sums of ``terms`` products give.

    It is that of angles near 0 and 180, where the cosine is flat: ``arccos(1 - e)`` is ``sqrt(2 e)``.
    """
    return math.degrees(math.sqrt(2 * tolerance(torch.float64, terms)))


def assert_near(
    actual: Tensor, expected: Tensor, terms: int = CHAIN, *, dtype: torch.dtype | None = None
) -> None:
    """Compare relative to the largest entry of ``expected``.

    ``terms``: how long the sums behind it are; ``dtype``: the coarsest type behind it, by default its own.
    """
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    largest = expected.abs().max()
    assert largest > 0, "nothing to compare"
    error = ((actual - expected).abs().max() / largest).item()
    allowed = tolerance(dtype or expected.dtype, terms)
    assert error <= allowed, f"relative error {error:.3g}, allowed {allowed:.3g}"
