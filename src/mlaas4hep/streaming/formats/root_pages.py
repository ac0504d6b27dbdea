"""Pages of an RNTuple straight into columns: one fetch for a run of clusters, each page's checksum verified, no cluster too many.

uproot opens the file and describes fields, columns and pages. It would also read the pages, but one request each, without looking at their checksums,
the next cluster too where a read ends on the boundary of one, and lists with 32-bit indices wrongly from the second cluster on (5.7).

Format: https://github.com/root-project/root/blob/master/tree/ntuple/doc/BinaryFormatSpecification.md, "Page Locations".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import xxhash

from mlaas4hep.streaming.formats.base import Column
from mlaas4hep.streaming.formats.root_bytes import Place
from mlaas4hep.streaming.formats.root_encodings import ENCODINGS, INDEX_TYPES, decode_page

__all__ = ["NtupleField", "Pages", "ntuple_field"]

CHECKSUM_BYTES = 8


@dataclass(frozen=True)
class NtupleField:
    """A field of numbers, and the columns that it is made of.

    Parameters
    ----------
    dtype : numpy.dtype
        Type of a value in memory.
    values : int or None
        The column of its values; None where they are the lengths of the lists of ``index``.
    index : int or None
        The column of where its lists end.
    length : int
        Values of an event, where all have the same number and are lists; else 0.
    """

    dtype: np.dtype[Any]
    values: int | None
    index: int | None = None
    length: int = 0

    @property
    def columns(self) -> list[int]:
        """Its columns."""
        return [column for column in (self.index, self.values) if column is not None]


def ntuple_field(ntuple: Any, form: Any, dtype: np.dtype[Any]) -> NtupleField | str:
    """Describe a field of numbers, or say why it cannot be read.

    Parameters
    ----------
    ntuple : uproot.models.RNTuple
    form : awkward.forms.Form
        What uproot makes of the field.
    dtype : numpy.dtype
        Type of a value there; that in memory is wider where the field is stored in several ways.
    """
    content, index, length = form, None, 0
    if isinstance(form, ak.forms.ListOffsetForm):
        index, content = _number(form), form.content
    elif isinstance(form, ak.forms.RegularForm):
        length, content = int(form.size), form.content
    if content is form and str(form.form_key).endswith("-cardinality"):
        return NtupleField(dtype, None, _number(form))
    values = _number(content)
    records = [ntuple.column_records[column] for column in _representations(ntuple, values)]
    for record in records:
        encoding = ENCODINGS.get(int(record.type))
        if encoding is None or int(record.type) in INDEX_TYPES:
            return f"is stored in a way that is not known: type {int(record.type)}"
        if encoding.dtype.itemsize != dtype.itemsize:
            dtype = np.result_type(dtype, encoding.dtype)
    return NtupleField(dtype, values, index, length)


def _number(form: Any) -> int:
    found = re.fullmatch(r"column-(\d+)(-cardinality)?", str(form.form_key))
    if found is None:
        raise ValueError(f"a field has no column but '{form.form_key}'")
    return int(found[1])


def _representations(ntuple: Any, column: int) -> list[int]:
    """Return the columns that hold the same values, each for other clusters."""
    field = ntuple.column_records[column].field_id
    return [number for number, record in enumerate(ntuple.column_records) if record.field_id == field]


@dataclass(frozen=True)
class Page:
    """One page: its place with its checksum, if it has one, and the number of its values."""

    place: Place
    values: int
    checksum: bool


class Pages:
    """The pages of one open RNTuple.

    Parameters
    ----------
    ntuple : uproot.models.RNTuple

    Raises
    ------
    ValueError
        If its clusters are not one behind the other.
    """

    def __init__(self, ntuple: Any) -> None:
        self._ntuple = ntuple
        starts = [int(summary.num_first_entry) for summary in ntuple.cluster_summaries]
        self.bounds = np.array([*starts, int(ntuple.num_entries)], np.int64)
        if self.bounds[0] != 0 or (np.diff(self.bounds) < 0).any():
            raise ValueError("its clusters are not one behind the other")
        self._pages: dict[tuple[int, int], tuple[int, list[Page]]] = {}

    def places(self, start: int, stop: int, fields: Iterable[NtupleField]) -> set[Place]:
        """Return where the pages of some events and fields are."""
        columns = {column for field in fields for column in field.columns}
        return {
            page.place
            for cluster in self._clusters(start, stop)
            for column in columns
            for page in self._pages_of(cluster, column)[1]
        }

    def read(
        self, raw: Mapping[Place, memoryview], start: int, stop: int, fields: Mapping[str, NtupleField]
    ) -> dict[str, Column]:
        """Decode the events ``start … stop - 1`` of some fields.

        Parameters
        ----------
        raw : mapping of Place to memoryview
            The bytes at the :meth:`places` of these events and fields.
        start, stop : int
            The events.
        fields : mapping of str to NtupleField

        Raises
        ------
        ValueError
            If a page is damaged, or a cluster does not hold as many values as its lists.
        """
        clusters = self._clusters(start, stop)
        ends: dict[int, list[npt.NDArray[np.int64]]] = {}
        columns = {}
        for name, field in fields.items():
            try:
                if field.index is not None and field.index not in ends:
                    ends[field.index] = [self._ends(raw, cluster, field.index) for cluster in clusters]
                columns[name] = self._column(
                    raw, clusters, start, stop, field, [] if field.index is None else ends[field.index]
                )
            except ValueError as error:
                raise ValueError(f"field '{name}': {error}") from error
        return columns

    def _column(
        self,
        raw: Mapping[Place, memoryview],
        clusters: range,
        start: int,
        stop: int,
        field: NtupleField,
        ends: Sequence[npt.NDArray[np.int64]],
    ) -> Column:
        first, last = start - int(self.bounds[clusters.start]), stop - int(self.bounds[clusters.start])
        if field.values is None:
            lengths = np.concatenate([np.diff(part, prepend=0) for part in ends])
            return Column(lengths[first:last].astype(field.dtype, copy=False), None)
        if field.index is None:
            due = [self._events(cluster) * (field.length or 1) for cluster in clusters]
        else:
            due = [int(end[-1]) if len(end) else 0 for end in ends]
        parts = [self._values(raw, cluster, field.values, count) for cluster, count in zip(clusters, due, strict=True)]
        if field.index is None:
            content = _joined(parts, field.dtype)
            if not field.length:
                return Column(content[first:last], None)
            offsets = np.arange(last - first + 1, dtype=np.int64) * field.length
            return Column(content[first * field.length : last * field.length], offsets)
        total = 0
        bounds = [np.zeros(1, np.int64)]
        for count, end in zip(due, ends, strict=True):
            bounds.append(end + total)
            total += count
        offsets = np.concatenate(bounds)[first : last + 1]
        content = _joined(parts, field.dtype)[offsets[0] : offsets[-1]]
        return Column(content, offsets - offsets[0] if offsets[0] else offsets)

    def _ends(self, raw: Mapping[Place, memoryview], cluster: int, column: int) -> npt.NDArray[np.int64]:
        """Return where each list of a cluster ends, checked: what follows slices by it."""
        ends = self._values(raw, cluster, column, self._events(cluster)).astype(np.int64, copy=False)
        if (np.diff(ends, prepend=0) < 0).any():
            raise ValueError(f"the lists of cluster {cluster} do not add up")
        return ends

    def _values(self, raw: Mapping[Place, memoryview], cluster: int, column: int, due: int) -> npt.NDArray[Any]:
        """Return the values of a column in a cluster, which must be so many."""
        stored, pages = self._pages_of(cluster, column)
        record = self._ntuple.column_records[stored]
        parts = [decode_page(_verified(page, raw[page.place]), page.values, record) for page in pages]
        found = sum(map(len, parts))
        if found < due and record.first_element_index > 0:
            # The column came when the file was half written: until then all values are zero and all lists are empty.
            parts = [np.zeros(due - found, ENCODINGS[int(record.type)].dtype), *parts]
            found = due
        if found != due:
            raise ValueError(f"column {column} holds {found} values in cluster {cluster} where {due} are due")
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, np.int64)])

    def _pages_of(self, cluster: int, column: int) -> tuple[int, list[Page]]:
        """Return the column in which a cluster holds the values of another, mostly itself, and its pages; none if it came later."""
        if (cluster, column) not in self._pages:
            links = self._ntuple.page_link_list[cluster]
            there = [number for number in _representations(self._ntuple, column) if number < len(links)]
            stored = next((number for number in there if not links[number].suppressed), column)
            described = links[stored].pages if stored < len(links) else []
            self._pages[cluster, column] = stored, [_page(page) for page in described]
        return self._pages[cluster, column]

    def _clusters(self, start: int, stop: int) -> range:
        first = int(np.searchsorted(self.bounds, start, side="right")) - 1
        return range(first, int(np.searchsorted(self.bounds, stop, side="left")))

    def _events(self, cluster: int) -> int:
        return int(self.bounds[cluster + 1] - self.bounds[cluster])


def _page(described: Any) -> Page:
    locator, checksum = described.locator, bool(described.has_checksum)
    place = int(locator.offset), int(locator.num_bytes) + (CHECKSUM_BYTES if checksum else 0)
    return Page(place, int(described.num_elements), checksum)


def _joined(parts: Sequence[npt.NDArray[Any]], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return values.astype(dtype, copy=False)


def _verified(page: Page, raw: memoryview) -> memoryview:
    """Return the bytes of a page without its checksum, which is verified."""
    if not page.checksum:
        return raw
    data = raw[:-CHECKSUM_BYTES]
    if xxhash.xxh3_64_intdigest(data) != int.from_bytes(raw[-CHECKSUM_BYTES:], "little"):
        raise ValueError(f"the checksum of the page at byte {page.place[0]} is wrong")
    return data
