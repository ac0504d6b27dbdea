"""Parquet files, read with pyarrow: only the columns that are asked for, row group by row group.

Checksums of pages are verified where the file has them. Whether integers have nulls is found by reading those columns of integers that are declared
nullable, once in a process: the statistics in the file would tell too, but pyarrow ends the whole process when it is asked for damaged ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.formats.arrow_columns import column_of, describe_types, with_nulls
from mlaas4hep.streaming.formats.base import Column, ColumnType
from mlaas4hep.streaming.formats.files import (
    Remembered,
    content_uuid,
    empty_column,
    open_bytes,
    opening,
    reason,
    require_magic,
)

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
            described, self.skipped = describe_types((field.name, field.type) for field in schema)
            nullable = [field.name for field in schema if _may_be_null(field)]
            integers = [name for name in nullable if name in described and described[name].dtype.kind != "f"]
            nulls = _nulls.of(path, "Parquet", lambda: self._with_nulls(integers)) if integers else frozenset()
            columns = {name: with_nulls(kind) if name in nulls else kind for name, kind in described.items()}
            self.columns = _measured(columns, sum(group.total_byte_size for group in groups) / max(1, self.entries))

    def _with_nulls(self, columns: Sequence[str]) -> frozenset[str]:
        """Read columns of integers, one row group at a time, and return those that hold nulls."""
        found: set[str] = set()
        for index in range(len(self._bounds) - 1):
            left = [name for name in columns if name not in found]
            for name, column in zip(left, self._rows_of(index, index + 1, left).columns, strict=True):
                chunks = (chunk.flatten() if pa.types.is_nested(chunk.type) else chunk for chunk in column.chunks)
                if any(chunk.null_count for chunk in chunks):
                    found.add(name)
        return frozenset(found)

    def _rows_of(self, first: int, last: int, columns: Sequence[str]) -> pa.Table:
        """Return the row groups ``first … last - 1``, which must hold what the metadata say."""
        table = self._file.read_row_groups(range(first, last), columns=list(columns), use_threads=False)
        due = int(self._bounds[last] - self._bounds[first])
        if table.num_rows != due:
            raise ValueError(f"{table.num_rows} rows where {due} should be")
        return table.select(list(columns))

    def clusters(self, columns: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the rows at which a row group begins, with 0 first and ``entries`` last."""
        return np.unique(np.append(self._bounds, 0))

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        """Read the rows ``start … stop - 1`` of some columns; row groups that are only partly wanted are read whole.

        Raises
        ------
        SourceError
            If the data are damaged or out of reach.
        """
        if start == stop or not columns:
            return {name: empty_column(self.columns[name]) for name in columns}
        first = int(np.searchsorted(self._bounds, start, "right")) - 1
        last = int(np.searchsorted(self._bounds, stop, "left"))
        try:
            table = self._rows_of(first, last, columns).slice(start - int(self._bounds[first]), stop - start)
            return {name: column_of(table.column(name), self.columns[name]) for name in columns}
        except Exception as error:
            raise SourceError(self.path, f"entries {start}–{stop - 1} cannot be read: {reason(error)}") from error

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


_nulls: Remembered[frozenset[str]] = Remembered()


def _may_be_null(field: pa.Field) -> bool:
    if pa.types.is_nested(field.type):
        return any(field.type.field(index).nullable for index in range(field.type.num_fields))
    return bool(field.nullable)


def _measured(columns: dict[str, ColumnType], row_bytes: float) -> dict[str, ColumnType]:
    """Divide the bytes of a row among the columns, a list as four values."""
    weights = {name: kind.dtype.itemsize * (4.0 if kind.jagged else 1.0) for name, kind in columns.items()}
    share = max(1.0, row_bytes / max(1.0, sum(weights.values())))
    return {name: replace(kind, bytes_per_event=weights[name] * share) for name, kind in columns.items()}
