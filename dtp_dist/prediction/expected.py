"""What the examples of a run are, which new ones must be like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtp_dist.data.own.csv_parquet import SUFFIXES as TABLES
from dtp_dist.data.own.pictures import CHANNELS, Look
from dtp_dist.data.sets.arrays import SUFFIXES as ARRAYS
from dtp_dist.data.sets.arrays import check_unit

COLOURS = {channels: colour for colour, channels in CHANNELS.items()}


@dataclass(frozen=True)
class Expected:
    """What the examples of a run are.

    Attributes:
        data: the name of its data set; ``root`` and ``options`` are the data set's own.
        shape: of an example, as it is stored.
        convert: whether images of another size or other colours are converted, or else refused.
    """

    data: str
    root: Path
    options: dict[str, Any]
    shape: tuple[int, ...]
    convert: bool = False

    @property
    def look(self) -> Look | None:
        """How images are seen, None where examples are none."""
        if len(self.shape) != 3 or self.shape[0] not in COLOURS:
            return None
        own = self.options if self.data == "image_folder" else {}
        convert, resize = (self.convert or own.get(each) is not None for each in ("color", "size"))
        crop = own.get("fit") == "crop"
        return Look(COLOURS[self.shape[0]], (self.shape[1], self.shape[2]), convert, resize, crop, "")

    @property
    def unit(self) -> float | None:
        """The stored value that is seen as 1, None for the usual one.

        Raises:
            ConfigError: it is none.
        """
        unit: float | None = self.options.get("unit") if self.data == "arrays" else None
        check_unit(unit)
        return unit

    @property
    def takes(self) -> str:
        """The kinds of files that hold such examples, in words."""
        if self.data == "table":
            return f"tables ({' '.join(TABLES)})"
        images = "images, and " if self.look is not None else ""
        return f"{images}{' and '.join(ARRAYS)} files with examples of {list(self.shape)}"
