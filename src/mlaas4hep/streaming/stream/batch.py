"""Encoded events: what a stream gives, and the memory that they are encoded into."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Batch", "BlockStore"]

Floats = npt.NDArray[np.float32]


class Batch(NamedTuple):
    """Some events, encoded.

    Attributes
    ----------
    x : float32 array of shape ``[n, width]``
        Scaled values, 0 where absent.
    mask : bool array of shape ``[n, width]``
        True where absent.
    y : int64 array of shape ``[n]``, or float32 array of shape ``[n, targets]``
        Class index, 0 when there are no labels; or the targets of a regression.
    weight : float32 array of shape ``[n]``
    id : structured array of shape ``[n]``
        ``file``, ``entry`` and the identifiers.
    """

    x: Floats
    mask: npt.NDArray[np.bool_]
    y: npt.NDArray[Any]
    weight: Floats
    id: npt.NDArray[np.void]

    def rows(self, start: int, stop: int | None = None) -> Batch:
        """Return the events ``start … stop - 1`` as views."""
        part = slice(start, stop)
        return Batch(self.x[part], self.mask[part], self.y[part], self.weight[part], self.id[part])


def _references(block: Batch) -> int:
    """Largest number of references to one of the arrays; every view of an array refers to it."""
    return max(sys.getrefcount(array) for array in block)


class BlockStore:
    """Blocks for encoded events, taken by one thread.

    One is used again when no batch refers to it any more, since fresh memory costs more than filling it. Each can hold the largest pool; what a
    smaller one does not touch takes no memory.

    Parameters
    ----------
    events : int
        Rows of a block.
    width : int
        Places of the event vector.
    y_dtype, y_shape
        Type of what is learned, and its shape for one event.
    id_dtype : numpy.dtype
    """

    def __init__(
        self, events: int, width: int, y_dtype: np.dtype[Any], y_shape: tuple[int, ...], id_dtype: np.dtype[Any]
    ) -> None:
        self._events = events
        self._width = width
        self._y_dtype, self._y_shape = y_dtype, y_shape
        self._id_dtype = id_dtype
        self._blocks: list[Batch] = []
        self._references_at_rest = _references(self._new())

    def take(self, events: int) -> Batch:
        """Return the first rows of a block that nobody uses."""
        for block in self._blocks:
            if _references(block) <= self._references_at_rest:
                return block.rows(0, events)
        self._blocks.append(self._new())
        return self._blocks[-1].rows(0, events)

    def _new(self) -> Batch:
        events = self._events
        return Batch(
            np.empty((events, self._width), np.float32),
            np.empty((events, self._width), np.bool_),
            np.empty((events, *self._y_shape), self._y_dtype),
            np.empty(events, np.float32),
            np.empty(events, self._id_dtype),
        )
