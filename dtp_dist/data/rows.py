"""What the network is shown, as it is stored: N rows of one shape, in memory or read when they are asked for.

Shapes: N rows, B chosen ones, ``shape`` that of one row. Who gets which rows is the same for every kind, and
so are the bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dtp_dist.errors import DataError

DTYPES = (torch.uint8, torch.float32)


class Rows(ABC):
    """N stored values of one ``shape`` and one ``dtype`` (uint8 or float32).

    Whatever is one can be pickled, so that it can be sent to a process that reads ahead.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @abstractmethod
    def __len__(self) -> int:
        """Return N."""

    @abstractmethod
    def select(self, chosen: Tensor) -> Tensor:
        """Return fresh, contiguous copies of the ``chosen`` (int64 [B]) rows: ``dtype`` [B, *shape].

        Raises:
            DataError: a row can't be read; names its file and its index.
        """

    @property
    def held(self) -> bool:
        """Whether all of them are in memory, so that nothing is won by reading ahead."""
        return False

    def at(self, chosen: Tensor) -> Rows:
        """Return the ``chosen`` (int64 [B]) rows as rows, in that order, without reading them."""
        return Chosen(self, chosen)

    def part(self, start: int, stop: int) -> Rows:
        """Return rows ``start`` to ``stop - 1`` without reading them; they share the memory of these."""
        return self.at(torch.arange(start, stop))

    def gather(self, chosen: Tensor) -> Tensor:
        """Return the same as ``select``, for many rows at once: on all cores, where that is any faster."""
        return self.select(chosen)

    def all(self) -> Tensor:
        """Return all rows, ``dtype`` [N, *shape]."""
        return self.gather(torch.arange(len(self)))


class Held(Rows):
    """Rows in memory: ``values`` uint8 or float32 [N, *shape], with at least one dimension after N."""

    def __init__(self, values: Tensor) -> None:
        if values.dim() < 2 or values.dtype not in DTYPES:
            found = f"{values.dtype} {list(values.shape)}"
            raise DataError(f"examples must be uint8 or float32 [N, ...], not {found}")
        self.values = values
        self.shape, self.dtype = tuple(values.shape[1:]), values.dtype

    def __len__(self) -> int:
        return len(self.values)

    def select(self, chosen: Tensor) -> Tensor:
        return self.values.index_select(0, chosen)

    @property
    def held(self) -> bool:
        return True

    def part(self, start: int, stop: int) -> Rows:
        return Held(self.values[start:stop])

    def all(self) -> Tensor:
        return self.values


def hollow(count: int, shape: Sequence[int], dtype: torch.dtype) -> Held:
    """Return so many rows of which nobody wants more than the shape: all are one number in memory."""
    return Held(torch.zeros(1, dtype=dtype).expand(count, *shape))


class Read(Rows):
    """Rows that are read one by one, each time that they are asked for."""

    @abstractmethod
    def read(self, index: int) -> Tensor:
        """Return row ``index``, 0 <= index < N: ``dtype`` [*shape].

        Raises:
            DataError: it can't be read, or is not like the others; names its file and its index.
        """

    def select(self, chosen: Tensor) -> Tensor:
        found = torch.empty(len(chosen), *self.shape, dtype=self.dtype)
        for place, index in enumerate(chosen.tolist()):
            found[place] = self.read(index)
        return found


@dataclass(frozen=True, eq=False)
class Chosen(Rows):
    """The rows ``of`` others whose numbers are ``index`` (int64 [N])."""

    of: Rows
    index: Tensor

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """The shape of one row."""
        return self.of.shape

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """The type of a stored value."""
        return self.of.dtype

    def __len__(self) -> int:
        return len(self.index)

    def select(self, chosen: Tensor) -> Tensor:
        return self.of.select(self.index[chosen])

    def gather(self, chosen: Tensor) -> Tensor:
        return self.of.gather(self.index[chosen])

    @property
    def held(self) -> bool:
        return self.of.held

    def at(self, chosen: Tensor) -> Rows:
        return Chosen(self.of, self.index[chosen])
