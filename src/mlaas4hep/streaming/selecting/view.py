"""How the files of a dataset are seen: what every reader is wrapped into before anything is read from it.

A file's own reader comes first, the user's preprocessing changes its columns, alignment makes all files agree on their types, and the selection
chooses events and objects and makes new columns. Whoever reads events sees only the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.formats import Column, ColumnType, Reader
from mlaas4hep.streaming.selecting.alignment import AlignedReader
from mlaas4hep.streaming.selecting.preprocessing import PreprocessedReader, Preprocessing
from mlaas4hep.streaming.selecting.selection import EventSelection, SelectedReader

__all__ = ["View", "read_events"]


@dataclass(frozen=True)
class View:
    """What lies between the files and whoever reads events.

    Parameters
    ----------
    selection : EventSelection
        Which events and objects are taken, and which columns are made of them.
    preprocessing : Preprocessing, optional
        The user's function, which comes before.
    types : mapping of str to ColumnType, optional
        What files whose branches vary are made to agree on; None where they agree.
    needs : mapping of str to tuple of str
        Column → the files' branches that it is made of.
    cut_needs : tuple of str
        The files' branches that tell which events are taken.
    """

    selection: EventSelection = field(default_factory=EventSelection)
    preprocessing: Preprocessing | None = None
    types: Mapping[str, ColumnType] | None = None
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cut_needs: tuple[str, ...] = ()

    def of(self, reader: Reader) -> Reader:
        """Return the reader of a file as the dataset sees it."""
        reader = self.preprocessed(reader)
        if self.types is not None:
            reader = AlignedReader(reader, self.types)
        return SelectedReader(reader, self.selection) if self.selection else reader

    def preprocessed(self, reader: Reader) -> Reader:
        """Return the reader of a file with the columns that it has after the user's preprocessing, before files are made to agree."""
        return reader if self.preprocessing is None else PreprocessedReader(reader, self.preprocessing)

    def to_dict(self) -> dict[str, Any]:
        """Return what specs and caches depend on, as plain values for JSON; empty where files are seen as they are."""
        found: dict[str, Any] = {}
        if self.selection:
            found["selection"] = self.selection.to_dict()
        if self.preprocessing is not None:
            found["preprocessing"] = self.preprocessing.to_dict()
        if self.types is not None:
            found["types"] = {name: str(kind) for name, kind in self.types.items()}
        return found

    def bound(self, reader: Reader, columns: Sequence[str]) -> View:
        """Return the view with what some columns and the cut need, as a reader that it gave says."""
        if not isinstance(reader, SelectedReader):
            return self
        needs = {name: reader.sources([name]) for name in columns}
        return replace(self, needs=needs, cut_needs=reader.sources((), cut=True))

    def branches(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the files' branches that are read for some columns and for the cut."""
        found = dict.fromkeys(self.cut_needs)
        for name in columns:
            found.update(dict.fromkeys(self.needs.get(name, (name,))))
        return tuple(found)


def read_events(
    reader: Reader, start: int, stop: int, columns: Sequence[str]
) -> tuple[dict[str, Column], npt.NDArray[np.bool_] | None]:
    """Read the events ``start … stop - 1`` of some columns, and say which are taken.

    Returns
    -------
    columns : dict of str to Column
        Of all events of the range; empty, and not read, where none is taken.
    passed : bool array of shape ``[stop - start]``, or None
        Which events are taken; None for all.

    Raises
    ------
    SourceError
        If the file is damaged or out of reach.
    ExpressionError
        If lists that an expression combines have different lengths.
    """
    if isinstance(reader, SelectedReader) and reader.cuts_events:
        passed, values = reader.read_selected(start, stop, columns)
        return values or {}, None if passed.all() else passed
    return reader.read(start, stop, columns), None
