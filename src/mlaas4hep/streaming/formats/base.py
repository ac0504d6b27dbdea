"""What the stream needs to know of a file, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Column", "ColumnType", "Reader"]


@dataclass(frozen=True, slots=True)
class ColumnType:
    """Type of a branch that holds numbers.

    Parameters
    ----------
    dtype : numpy.dtype
        Type of one value, in native byte order.
    jagged : bool
        Whether an event holds a list of values rather than one.
    bytes_per_event : float
        Uncompressed bytes of an average event, as far as the file's metadata tell; used to choose how much is read at a time.
    """

    dtype: np.dtype[Any]
    jagged: bool
    bytes_per_event: float = 0.0

    def same_kind(self, other: ColumnType) -> bool:
        """Whether values of both types mean the same to whoever reads them."""
        return self.dtype == other.dtype and self.jagged == other.jagged

    def __str__(self) -> str:
        return f"{self.dtype}[]" if self.jagged else str(self.dtype)


class Column(NamedTuple):
    """Values of one branch for a range of events.

    Attributes
    ----------
    content : array of shape ``[values]``
        The values of all events, one after the other, in native byte order.
    offsets : int64 array of shape ``[events + 1]``, or None
        Event ``i`` holds ``content[offsets[i]:offsets[i + 1]]``; None for a flat branch, where it holds ``content[i]``.
    """

    content: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64] | None

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.content.nbytes + (0 if self.offsets is None else self.offsets.nbytes)

    def events_where(self, chosen: npt.NDArray[np.bool_]) -> Column:
        """Return the values of the chosen events only, ``chosen`` being bool ``[events]``."""
        if self.offsets is None:
            return Column(self.content[chosen], None)
        lengths = np.diff(self.offsets)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[chosen])])
        return Column(self.content[np.repeat(chosen, lengths)], offsets)


class Reader(Protocol):
    """One open file; used by one thread at a time.

    Attributes
    ----------
    path : str
        The name by which it was opened.
    uuid : str
        What tells this file's content from any other's, as far as its format goes.
    entries : int
        Number of events.
    columns : mapping of str to ColumnType
        Every branch that holds numbers, in the file's order.
    skipped : mapping of str to str
        Every other branch, and why it cannot be used.
    """

    path: str
    uuid: str
    entries: int
    columns: Mapping[str, ColumnType]
    skipped: Mapping[str, str]

    def clusters(self, columns: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the entries at which reading can begin without reading anything twice, with 0 first and ``entries`` last."""
        ...

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        """Read the events ``start … stop - 1`` of some branches.

        Raises
        ------
        SourceError
            If the file is damaged or out of reach.
        """
        ...

    def close(self) -> None:
        """Give the file back."""
        ...
