"""From Arrow's types and arrays to columns: what Parquet, Arrow, CSV and JSON files have in common.

Nulls among floats are NaN and a list that is null is an empty one. Integers and bools that have nulls become float64 with NaN, which keeps whole
numbers up to 2**53 exact; a reader must know of the nulls before, since the type of a column never changes within a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlaas4hep.streaming.formats.base import Column, ColumnType

__all__ = ["NullsError", "column_of", "describe_type", "describe_types", "with_nulls"]


class NullsError(ValueError):
    """Integers or bools hold nulls that nobody knew of."""


def describe_type(kind: pa.DataType) -> ColumnType | str:
    """Return the type of a column, or why it holds no numbers.

    Examples
    --------
    >>> print(describe_type(pa.list_(pa.float32())))
    float32[]
    >>> describe_type(pa.string())
    'holds string, not numbers'
    """
    jagged = _is_list(kind)
    value = _plain(kind.value_type if jagged else kind)
    if jagged and _is_list(value):
        return "holds lists of lists"
    if pa.types.is_null(value):
        return "holds no value in any event"
    if pa.types.is_boolean(value):
        return ColumnType(np.dtype(np.bool_), jagged)
    if pa.types.is_integer(value):
        return ColumnType(np.dtype(value.to_pandas_dtype()), jagged)
    if pa.types.is_float16(value):
        return ColumnType(np.dtype(np.float32), jagged)
    if pa.types.is_floating(value):
        return ColumnType(np.dtype(value.to_pandas_dtype()), jagged)
    if pa.types.is_decimal(value):
        return ColumnType(np.dtype(np.float64), jagged)
    if pa.types.is_struct(value):
        members = f" with {value.num_fields} members" if value.num_fields else ""
        return f"holds objects{members}, not numbers"
    return f"holds {_short(kind)}, not numbers"


def describe_types(fields: Iterable[tuple[str, pa.DataType]]) -> tuple[dict[str, ColumnType], dict[str, str]]:
    """Return the columns of some fields, and why the others are none; names that come twice mean none of their columns."""
    columns: dict[str, ColumnType] = {}
    skipped: dict[str, str] = {}
    for name, kind in fields:
        described = describe_type(kind)
        if name in columns or name in skipped:
            columns.pop(name, None)
            skipped[name] = "two columns of this name"
        elif not name:
            skipped[name] = "has no name"
        elif isinstance(described, str):
            skipped[name] = described
        else:
            columns[name] = described
    return columns, skipped


def with_nulls(kind: ColumnType) -> ColumnType:
    """Return the type of a column whose values may be null."""
    if kind.dtype.kind == "f":
        return kind
    return ColumnType(np.dtype(np.float64), kind.jagged, kind.bytes_per_event)


def column_of(array: pa.Array | pa.ChunkedArray, kind: ColumnType) -> Column:
    """Take content and offsets out of an array.

    Parameters
    ----------
    array : pyarrow.Array or ChunkedArray
        One element an event; its buffers must be valid.
    kind : ColumnType
        What the column must hold.

    Raises
    ------
    NullsError
        If there are nulls and the type has no place for them.
    """
    if isinstance(array, pa.ChunkedArray):
        chunks = [_decoded(chunk) for chunk in array.chunks]
        array = chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks) if chunks else pa.array([], array.type)
    array = _decoded(array)
    if not kind.jagged:
        return Column(_values(array, kind.dtype), None)
    lengths = pc.list_value_length(array)
    if lengths.null_count:
        lengths = pc.fill_null(lengths, 0)
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(lengths.to_numpy(zero_copy_only=False), out=offsets[1:])
    return Column(_values(array.flatten(), kind.dtype), offsets)


def _values(array: pa.Array, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    array = _decoded(array)
    if pa.types.is_decimal(array.type):
        array = pc.cast(array, pa.float64())
    if array.null_count and array.null_count != len(array) and dtype.kind != "f":
        raise NullsError(f"{array.null_count} nulls among {array.type}s")
    if array.null_count:
        if dtype.kind != "f":
            raise NullsError(f"nothing but nulls where {dtype} should be")
        if pa.types.is_boolean(array.type):
            array = pc.cast(array, pa.uint8())
        array = pc.fill_null(pc.cast(array, pa.from_numpy_dtype(dtype), safe=False), np.nan)
    values = array.to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values, dtype)


def _decoded(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 60 else text[:57] + "…"
