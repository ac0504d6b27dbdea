"""Columns as a user's Python function sees them, and what it returns as columns again.

For a whole block a flat column is a numpy array and a jagged one an awkward array; for a single record they are a Python number and a list, as the
original MLaaS4HEP hands them to ``preprocessing(rec)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.formats.base import Column, ColumnType

__all__ = ["Unusable", "array_of", "column_of", "column_of_records", "records_of", "same_values"]


class Unusable(Exception):  # noqa: N818 - it never leaves the preprocessing, which adds where it was
    """A value that a function returned is no column; ``text`` says that it can be no number at all."""

    def __init__(self, problem: str, *, text: bool = False) -> None:
        self.text = text
        super().__init__(problem)


def array_of(column: Column) -> Any:
    """Return a column as numpy array, or as awkward array if it is jagged; the array may be changed in place."""
    if column.offsets is None:
        return np.array(column.content)
    return ak.Array(
        ak.contents.ListOffsetArray(ak.index.Index64(column.offsets), ak.contents.NumpyArray(column.content))
    )


def column_of(value: Any, events: int) -> Column:
    """Return what a function gave for a whole block as a column.

    Raises
    ------
    Unusable
        If it is not one number, or one list of numbers, for each of the events.
    """
    if isinstance(value, ak.Array):
        return _from_awkward(value, events)
    if isinstance(value, str | bytes):
        raise Unusable("holds text, not numbers", text=True)
    try:
        array = np.asarray(value)
    except ValueError:
        return _from_awkward(_awkward(value), events)
    if array.ndim == 0:
        raise Unusable(f"is one value for a block of {events} events, not one for each")
    if array.dtype == object:
        return _from_awkward(_awkward(array.tolist()), events)
    _require_length(len(array), events)
    if array.ndim == 1:
        return Column(_numbers(array), None)
    if array.ndim == 2:
        width = array.shape[1]
        return Column(_numbers(array).reshape(-1), np.arange(events + 1, dtype=np.int64) * width)
    raise Unusable(f"has {array.ndim} dimensions; an event holds a number or a list of numbers")


def _awkward(value: Any) -> ak.Array:
    try:
        return ak.Array(value)
    except Exception as error:
        raise Unusable(f"holds {type(value).__name__}, which is no array of numbers") from error


def _from_awkward(array: ak.Array, events: int) -> Column:
    _require_length(len(array), events)
    if "string" in str(array.type) or array.fields:
        raise Unusable(f"holds {array.type.content}, not numbers", text=True)
    if array.ndim > 2:
        raise Unusable(f"has {array.ndim} dimensions; an event holds a number or a list of numbers")
    if array.ndim == 1:
        values = ak.fill_none(array, np.nan) if "?" in str(array.type) else array
        return Column(_numbers(ak.to_numpy(values)), None)
    array = ak.fill_none(array, [], axis=0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(ak.to_numpy(ak.num(array)), dtype=np.int64)])
    values = ak.flatten(array)
    values = ak.fill_none(values, np.nan) if "?" in str(values.type) else values
    if str(values.type.content) == "unknown":  # every list is empty
        return Column(np.empty(0, np.float64), offsets)
    return Column(_numbers(ak.to_numpy(values)), offsets)


def _numbers(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind not in "biuf":
        raise Unusable(f"holds {array.dtype}, not numbers", text=array.dtype.kind in "USOM")
    if array.dtype.itemsize == 2 and array.dtype.kind == "f":
        array = array.astype(np.float32)
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _require_length(found: int, events: int) -> None:
    if found != events:
        raise Unusable(f"has {found} values for {events} events")


def records_of(column: Column) -> list[Any]:
    """Return a column as Python numbers or lists, one an event."""
    values: list[Any] = column.content.tolist()
    if column.offsets is None:
        return values
    bounds = column.offsets.tolist()
    return [values[start:stop] for start, stop in itertools.pairwise(bounds)]


def column_of_records(values: Sequence[Any], source: ColumnType | None) -> Column:
    """Return what a function gave record by record as a column.

    Parameters
    ----------
    values : sequence
        A number, None, or a list of numbers for each event.
    source : ColumnType or None
        Type of the column of this name in the file: kept where it holds the values, as of an identifier that is handed through. What is new is
        float64, since a Python number is an integer in one event and not in the next.

    Raises
    ------
    Unusable
        If a value is none of these, or numbers and lists are mixed.
    """
    if any(isinstance(value, str | bytes | dict) for value in values):
        raise Unusable("holds text or objects, not numbers", text=True)
    lists = [value for value in values if isinstance(value, list | tuple | np.ndarray) and np.ndim(value) > 0]
    offsets = None
    if lists:
        if len(lists) != len(values):
            raise Unusable("holds a list in one event and a number in another")
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(one) for one in lists], dtype=np.int64)])
        values = [number for one in lists for number in one]
    try:
        exact = np.array(values, source.dtype) if source is not None else None
        if exact is not None and exact.ndim == 1 and exact.tolist() == list(values):
            return Column(exact, offsets)
    except (TypeError, ValueError, OverflowError):
        pass  # not of the file's type any more
    try:
        numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    except (TypeError, ValueError) as error:
        raise Unusable(f"cannot be read as numbers: {error}") from error
    if numbers.ndim != 1:
        raise Unusable("holds lists of lists")
    return Column(numbers, offsets)


def same_values(one: Column, other: Column) -> bool:
    """Whether two columns are the same, type and NaN included."""
    if one.content.dtype != other.content.dtype or (one.offsets is None) != (other.offsets is None):
        return False
    if not np.array_equal(one.content, other.content, equal_nan=one.content.dtype.kind == "f"):
        return False
    return one.offsets is None or np.array_equal(one.offsets, other.offsets)  # type: ignore[arg-type]
