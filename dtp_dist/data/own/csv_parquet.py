"""CSV and Parquet files, read with pyarrow, which comes with ``pip install 'dtp-dist[table]'``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtp_dist.data.own.targets import as_float32
from dtp_dist.errors import DataError
from dtp_dist.text.foreign import open_regular

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")


class TableFile:
    """A table in a file; a ``delimiter`` of None is a comma, or a tab in a ``.tsv``.

    Raises:
        DataError: pyarrow is not installed; the file can't be read, or two columns share a name.
    """

    def __init__(self, path: Path, delimiter: str | None) -> None:
        self.path = path
        self._delimiter = delimiter or ("\t" if ".tsv" in path.suffixes else ",")
        with self._whole():
            self.schema = self._schema()
        self.columns: list[str] = list(self.schema.names)
        for name in self.columns:
            if self.columns.count(name) > 1:
                raise DataError(f"{path}: two columns are called {name!r}; rename one")

    def read(self, names: Sequence[str]) -> Any:
        """Return the columns ``names`` as pyarrow's table, in that order."""
        with self._whole(), open_regular(self.path) as file:
            if self._is_parquet:
                from pyarrow import parquet

                return parquet.read_table(file, columns=list(names)).select(list(names))
            from pyarrow import csv

            convert = csv.ConvertOptions(include_columns=list(names))
            return csv.read_csv(self._stream(file), parse_options=self._parse(), convert_options=convert)

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix == ".parquet"

    def _schema(self) -> Any:
        """Return the columns and their types, those of a CSV file by its beginning."""
        with open_regular(self.path) as file:
            if self._is_parquet:
                from pyarrow import parquet

                return parquet.read_schema(file)
            from pyarrow import csv

            with csv.open_csv(self._stream(file), parse_options=self._parse()) as reader:
                return reader.schema

    def _parse(self) -> Any:
        from pyarrow import csv

        return csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True)

    def _stream(self, file: Any) -> Any:
        import pyarrow

        return pyarrow.CompressedInputStream(file, "gzip") if self.path.suffix == ".gz" else file

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Say of everything that goes wrong with the file that it is damaged, or can't be read."""
        try:
            yield
        except ImportError as error:
            text = f"data.name=table: pyarrow can't be imported ({error})"
            raise DataError(f"{text}; install it: pip install 'dtp-dist[table]'") from None
        except Exception as error:  # each of pyarrow's readers has exceptions of its own
            if isinstance(error, OSError) and error.strerror:
                raise DataError(f"{self.path}: can't be read ({error.strerror})") from None
            raise DataError(f"{self.path}: is no whole table ({' '.join(str(error).split())})") from None

    def numbers(self, table: Any, name: str) -> NDArray[np.float32]:
        """Return a column as float32 [N].

        Raises:
            DataError: a value is missing or no finite number; names its index.
        """
        values = self.values(table, name)
        if values.dtype.kind == "U":
            index = next(index for index, text in enumerate(values) if not _is_number(text))
            text = f"holds {str(values[index])!r}, which is no number; name the features in data.options.x"
            raise DataError(f"{self.path}, index {index}: column {name!r} {text}, or write it as numbers")
        return as_float32(values, str(self.path), f"column {name!r}")

    def values(self, table: Any, name: str) -> NDArray[Any]:
        """Return a column as numbers, flags or words, [N].

        Raises:
            DataError: a value is missing, or the column holds something else; names the index.
        """
        import pyarrow

        column = table[name]
        kind = pyarrow.types
        if kind.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        words = kind.is_string(column.type) or kind.is_large_string(column.type)
        numbers = (
            kind.is_integer(column.type) or kind.is_floating(column.type) or kind.is_decimal(column.type)
        )
        if not (words or numbers or kind.is_boolean(column.type) or kind.is_null(column.type)):
            text = f"holds {column.type}, which is neither number nor word"
            raise DataError(f"{self.path}: column {name!r} {text}; leave it out of data.options.x")
        listed = column.is_null().to_numpy() if column.null_count else np.zeros(0, dtype=bool)
        if listed.any():
            self._missing(name, int(np.flatnonzero(listed)[0]))
        found = np.array(column.to_pylist(), dtype=str) if words else column.to_numpy()
        if words and (found == "").any():
            self._missing(name, int(np.flatnonzero(found == "")[0]))
        return found.astype(np.float64) if kind.is_decimal(column.type) else found

    def _missing(self, name: str, index: int) -> None:
        raise DataError(f"{self.path}, index {index}: column {name!r} is empty; fill it or leave the row out")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
