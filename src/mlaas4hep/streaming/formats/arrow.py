"""Arrow IPC files (Feather version 2), read with pyarrow: only the columns that are asked for, record batch by record batch.

A local file is read and not mapped into memory: that is as fast, and a file that is cut off or out of reach while it is used gives an error, where a
mapped one would end the whole process. Every batch is validated before it is used: offsets that point anywhere else must not be followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.formats.arrow_columns import column_of, describe_types, with_nulls
from mlaas4hep.streaming.formats.base import Column, ColumnType
from mlaas4hep.streaming.formats.files import content_uuid, empty_column, open_bytes, opening, reason, require_magic

__all__ = ["ArrowReader"]


class ArrowReader:
    """One open Arrow IPC file.

    Parameters
    ----------
    path : str
        Local path or URL.
    tree : str
        Not used: the file is one table.

    Raises
    ------
    SourceError
        If the file is missing, empty, truncated, out of reach, or not an Arrow IPC file.
    """

    def __init__(self, path: str, tree: str) -> None:
        self.path = path
        self._stream = open_bytes(path)
        self._source: Any = self._stream
        with opening(path, "an Arrow IPC file", self.close):
            require_magic(self._stream, path, b"ARROW1", "an Arrow IPC file (Feather version 2)")
            self.uuid = content_uuid(self._stream)
            self._source = pa.PythonFile(self._stream, "r") if "://" in path else pa.OSFile(path)
            file = pa.ipc.open_file(self._source)
            self._names = file.schema.names
            columns, self.skipped = describe_types((field.name, field.type) for field in file.schema)
            self._bounds = np.zeros(file.num_record_batches + 1, np.int64)
            self.columns = self._measured(columns, file.num_record_batches)
            self.entries = int(self._bounds[-1])

    def _measured(self, columns: dict[str, ColumnType], batches: int) -> dict[str, ColumnType]:
        """Count the events and their bytes batch by batch, and make room for the nulls among integers.

        Only the columns of integers are looked at, and one more for its length.
        """
        integers = [name for name, kind in columns.items() if kind.dtype.kind != "f"]
        looked_at = integers or self._names[:1]
        nulls: set[str] = set()
        sizes = dict.fromkeys(columns, 0.0)
        file = self._file(looked_at)
        for index in range(batches):
            batch = file.get_batch(index)
            self._bounds[index + 1] = self._bounds[index] + batch.num_rows
            for name in integers:
                array = batch.column(name)
                sizes[name] += array.nbytes
                if columns[name].jagged:
                    array = _flattened(array, self.path, name)
                if array.null_count:
                    nulls.add(name)
        entries = max(1, int(self._bounds[-1]))
        described = {}
        for name, kind in columns.items():
            guess = kind.dtype.itemsize * (4.0 if kind.jagged else 1.0)
            size = sizes[name] / entries if name in integers else guess
            described[name] = replace(with_nulls(kind) if name in nulls else kind, bytes_per_event=size)
        return described

    def _file(self, columns: Sequence[str]) -> Any:
        """Return the file with only some of its columns."""
        included = sorted(self._names.index(name) for name in columns)
        self._source.seek(0)
        return pa.ipc.open_file(
            self._source, options=pa.ipc.IpcReadOptions(included_fields=included, use_threads=False)
        )

    def clusters(self, columns: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the rows at which a record batch begins, with 0 first and ``entries`` last."""
        return np.unique(np.append(self._bounds, 0))

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        """Read the rows ``start … stop - 1`` of some columns.

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
            file = self._file(columns)
            batches = [file.get_batch(index) for index in range(first, last)]
            for batch, rows in zip(batches, np.diff(self._bounds[first : last + 1]), strict=True):
                batch.validate(full=True)
                if batch.num_rows != rows:
                    raise ValueError(f"a record batch holds {batch.num_rows} rows, not {rows}")
            table = pa.Table.from_batches(batches).slice(start - int(self._bounds[first]), stop - start)
            return {name: column_of(table.column(name), self.columns[name]) for name in columns}
        except Exception as error:
            raise SourceError(self.path, f"entries {start}–{stop - 1} cannot be read: {reason(error)}") from error

    def close(self) -> None:
        """Close the file."""
        self._source.close()
        self._stream.close()


def _flattened(array: pa.Array, path: str, name: str) -> pa.Array:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise SourceError(path, f"column '{name}' is damaged: {reason(error)}") from error
    return array.flatten()
