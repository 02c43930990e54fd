"""What a data set brings: how it is loaded, and how it looks to whoever needs no more than its sizes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dtp_dist.data.examples import Examples, Pool
from dtp_dist.data.rows import hollow
from dtp_dist.errors import ConfigError

CACHES = ("auto", "memory", "none")
NORMALIZE = ("none", "standardize")
"""How values may be normalized but by given numbers."""


@dataclass(frozen=True)
class Place:
    """Where a data set is, and how it is read.

    Attributes:
        root: the folder or file, absolute.
        cache: ``memory``: decoded once into memory; ``none``: rows are read when they are asked for, where a
            source can; ``auto``: the first where it fits.
        verify: whether files must have the checksums of their publisher.
    """

    root: Path
    cache: str = "auto"
    verify: bool = True


@dataclass(frozen=True)
class Source:
    """A data set under its name in ``SOURCES``.

    Attributes:
        load: (place, *, options...) -> Pool: reads it, fetched into its root where it is missing. Raises
            DataError if it can't be fetched or is damaged, ConfigError for options that make no data set.
        sketch: the same without the contents, in next to no time and memory, and nothing is fetched; None for
            a data set that is small enough to be loaded instead.
        ensure: fetches what is missing and checks that the files are whole, as ``load`` does; None for a data
            set without files that could be fetched.
        options: whose parameters after the first are the options; None: those of ``load``.
        unknown: whether what is in a place may be anything, so that a channel of it may be constant, and can
            be read without fetching it. Of published and of made-up data it is known that none is.
    """

    load: Callable[..., Pool]
    sketch: Callable[..., Pool] | None = None
    ensure: Callable[[Place], None] | None = None
    options: Callable[..., Any] | None = None
    unknown: Callable[[Place], bool] = lambda place: True

    def check(self, name: str, options: Mapping[str, Any]) -> None:
        """Check that the data set ``name`` has all of the ``options``.

        Raises:
            ConfigError: it has not.
        """
        try:
            _, *parameters = inspect.signature(self.options or self.load).parameters.values()
        except ValueError:  # it has no signature to look at
            return
        known = [parameter.name for parameter in parameters]
        for option in options:
            if option not in known and not any(each.kind is each.VAR_KEYWORD for each in parameters):
                has = f"has {', '.join(known)}" if known else "has none; leave it out"
                raise ConfigError(f"data.options.{option}: not an option of data.name={name}, which {has}")


def blank(
    count: int, shape: Sequence[int], dtype: torch.dtype = torch.uint8, numbers: int | None = None
) -> Examples:
    """Return so many examples of ``shape``, all of which are one number in memory.

    Their labels are classes, or so many ``numbers`` each.
    """
    labels = torch.zeros(1, dtype=torch.int64).expand(count)
    if numbers is not None:
        labels = torch.zeros(1, 1).expand(count, numbers)
    return Examples(hollow(count, shape, dtype), labels)
