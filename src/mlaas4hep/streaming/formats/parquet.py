"""Parquet files, read with pyarrow: only the columns that are asked for, row group by row group.

Checksums of pages are verified where the file has them. Whether integers have nulls is told by the statistics of the row groups; where a file has
none, and inside lists, they are taken as they are declared, and a null is an error that names the column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.formats.arrow_columns import NullsError, column_of, describe_types, with_nulls
from mlaas4hep.streaming.formats.base import Column, ColumnType
from mlaas4hep.streaming.formats.files import content_uuid, empty_column, open_bytes, opening, reason, require_magic

__all__ = ["ParquetReader"]


class ParquetReader:
    """One open Parquet file.

    Parameters
    ----------
    path : str
        Local path or URL.
    tree : str
        Not used: the file is one table.

    Raises
    ------
    SourceError
        If the file is missing, empty, truncated, out of reach, or not a Parquet file.
    """

    def __init__(self, path: str, tree: str) -> None:
        self.path = path
        self._stream = open_bytes(path)
        with opening(path, "a Parquet file", self.close):
            require_magic(self._stream, path, b"PAR1", "a Parquet file")
            self.uuid = content_uuid(self._stream)
            # The reader of the stream is one thread already, and what it reads is one column chunk at a time.
            self._file = pq.ParquetFile(self._stream, page_checksum_verification=True)
            self._metadata = self._file.metadata
            groups = [self._metadata.row_group(index) for index in range(self._metadata.num_row_groups)]
            self._bounds = np.cumsum([0, *(group.num_rows for group in groups)], dtype=np.int64)
            self.entries = int(self._bounds[-1])
            if self.entries != self._metadata.num_rows or (np.diff(self._bounds) < 0).any():
                raise SourceError(path, f"its row groups hold {self.entries} rows, it says {self._metadata.num_rows}")
            schema = self._file.schema_arrow
            columns, self.skipped = describe_types((field.name, field.type) for field in schema)
            self.columns = self._measured(columns, groups)

    def _measured(self, columns: dict[str, ColumnType], groups: Sequence[Any]) -> dict[str, ColumnType]:
        """Add sizes to the types, and make room for the nulls that the statistics tell of."""
        sizes = dict.fromkeys(columns, 0)
        nulls: set[str] = set()
        for group in groups:
            for index in range(group.num_columns):
                chunk = group.column(index)
                name = _branch(chunk.path_in_schema, columns)
                if name is None:
                    continue
                sizes[name] += chunk.total_uncompressed_size
                if not columns[name].jagged:
                    if chunk.num_values != group.num_rows:
                        raise SourceError(
                            self.path, f"column '{name}' holds {chunk.num_values} of {group.num_rows} rows"
                        )
                    statistics = chunk.statistics
                    if statistics is not None and statistics.has_null_count and statistics.null_count:
                        nulls.add(name)
        described = {name: with_nulls(kind) if name in nulls else kind for name, kind in columns.items()}
        return {
            name: replace(kind, bytes_per_event=sizes[name] / max(1, self.entries)) for name, kind in described.items()
        }

    def clusters(self, columns: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the rows at which a row group begins, with 0 first and ``entries`` last."""
        return np.unique(np.append(self._bounds, 0))

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        """Read the rows ``start … stop - 1`` of some columns; row groups that are only partly wanted are read whole.

        Raises
        ------
        SourceError
            If the data are damaged or out of reach, or integers hold nulls that the statistics do not tell of.
        """
        if start == stop or not columns:
            return {name: empty_column(self.columns[name]) for name in columns}
        first = int(np.searchsorted(self._bounds, start, "right")) - 1
        last = int(np.searchsorted(self._bounds, stop, "left"))
        try:
            table = self._file.read_row_groups(range(first, last), columns=list(columns), use_threads=False)
            offset = start - int(self._bounds[first])
            if table.num_rows != self._bounds[last] - self._bounds[first]:
                raise ValueError(f"the row groups hold {table.num_rows} rows")
            table = table.slice(offset, stop - start)
        except Exception as error:
            raise SourceError(self.path, f"entries {start}–{stop - 1} cannot be read: {reason(error)}") from error
        read = {}
        for name in columns:
            try:
                read[name] = column_of(table.column(name), self.columns[name])
            except NullsError as error:
                raise SourceError(self.path, f"column '{name}', entries {start}–{stop - 1}: {error}") from None
        return read

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _branch(path: str, columns: dict[str, ColumnType]) -> str | None:
    """Return the column that a leaf of the schema belongs to: ``x`` itself, or ``x`` of ``x.list.element``."""
    if path in columns:
        return path
    name = path
    while "." in name:
        name = name.rpartition(".")[0]
        if name in columns and columns[name].jagged:
            return name
    return None
