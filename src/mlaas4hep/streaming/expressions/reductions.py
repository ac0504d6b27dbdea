"""From a list an event to one value an event, each in one pass over the content."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.expressions.values import Misuse, Numbers, Objects, truth

__all__ = ["add_up", "all_true", "any_true", "count", "largest", "smallest"]


def add_up(value: Numbers) -> Numbers:
    """Return the sum of each list: 0 for an empty one; whole numbers stay whole."""
    content, offsets = _list(value, "sum")
    kind = (
        np.int64 if content.dtype.kind in "bi" or (content.dtype.kind == "u" and content.itemsize < 8) else np.float64
    )
    return Numbers(_reduce(np.add, content, offsets, np.dtype(kind), 0))


def smallest(value: Numbers) -> Numbers:
    """Return the smallest value of each list: NaN for an empty one, or where it holds a NaN."""
    content, offsets = _list(value, "min")
    return Numbers(_reduce(np.minimum, content, offsets, _with_nan(content), np.nan))


def largest(value: Numbers) -> Numbers:
    """Return the largest value of each list: NaN for an empty one, or where it holds a NaN."""
    content, offsets = _list(value, "max")
    return Numbers(_reduce(np.maximum, content, offsets, _with_nan(content), np.nan))


def any_true(value: Numbers) -> Numbers:
    """Return whether a value of each list is true: False for an empty one."""
    content, offsets = _list(value, "any")
    return Numbers(_reduce(np.logical_or, truth(content), offsets, np.dtype(np.bool_), False))


def all_true(value: Numbers) -> Numbers:
    """Return whether all values of each list are true: True for an empty one."""
    content, offsets = _list(value, "all")
    return Numbers(_reduce(np.logical_and, truth(content), offsets, np.dtype(np.bool_), True))


def count(value: Numbers | Objects) -> Numbers:
    """Return the number of objects or values of each list; of truth values, how many are true."""
    numbers = value.member(value.members[0]) if isinstance(value, Objects) else value
    content, offsets = _list(numbers, "count")
    if isinstance(value, Numbers) and content.dtype.kind == "b":
        return add_up(value)
    return Numbers(np.diff(offsets))


def _list(value: Numbers, function: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    if value.offsets is None:
        raise Misuse(f"{function} needs a list of values an event; there is one value an event")
    return value.content, value.offsets


def _with_nan(content: npt.NDArray[Any]) -> np.dtype[Any]:
    """Return the type of an extreme: that of the values where it has NaN for empty lists, else double."""
    return content.dtype if content.dtype.kind == "f" else np.dtype(np.float64)


def _reduce(
    operation: np.ufunc, content: npt.NDArray[Any], offsets: npt.NDArray[np.int64], kind: np.dtype[Any], empty: float
) -> npt.NDArray[Any]:
    """Reduce each list; ``empty`` is what a list without values gives."""
    result = np.full(len(offsets) - 1, empty, kind)
    filled = offsets[1:] > offsets[:-1]
    if filled.any():
        # Lists lie one after the other, so the start of each that holds something is the end of the one before it.
        result[filled] = operation.reduceat(content, offsets[:-1][filled], dtype=kind)
    return result
