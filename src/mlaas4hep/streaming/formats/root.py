"""ROOT files, local or remote: TTree and RNTuple, opened and described by uproot.

Every branch of numbers is read, one value or a list of values an event; strings, objects and nested lists are passed over and named. Reading is
aligned to clusters by the caller, the file stays open between reads, and nothing is cached, since the stream needs each cluster once an epoch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import uproot

from mlaas4hep.errors import MLaaS4HEPError, SourceError, TreeNotFoundError
from mlaas4hep.streaming.access.retry import is_remote
from mlaas4hep.streaming.formats.base import Column, ColumnType
from mlaas4hep.streaming.formats.files import empty_column, open_local, reason
from mlaas4hep.streaming.formats.root_baskets import BasketBranch, basket_branch, places_of, read_baskets
from mlaas4hep.streaming.formats.root_bytes import LocalBytes, RootBytes
from mlaas4hep.streaming.formats.root_pages import NtupleField, Pages, ntuple_field
from mlaas4hep.streaming.formats.root_remote import RemoteBytes, drop_handle, remote_options
from mlaas4hep.streaming.formats.root_types import form_column, tree_column

__all__ = ["RootReader"]

TREE_CLASSES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple", "ROOT::Experimental::RNTuple")


class RootReader:
    """One open ROOT file and one of its trees.

    Parameters
    ----------
    path : str
        Local path or URL.
    tree : str
        Name of the TTree or RNTuple.

    Raises
    ------
    SourceError
        If the file is missing, empty, truncated, out of reach, or not a ROOT file.
    TreeNotFoundError
        If it holds no such tree; the error names those that it holds.
    """

    def __init__(self, path: str, tree: str) -> None:
        self.path = path
        self._file = _open(path)
        try:
            self.size = int(self._file.file.source.num_bytes)
            _require_whole(self._file, path, self.size)
            self._bytes: RootBytes = (
                RemoteBytes(self._file.file.source, self.size) if is_remote(path) else LocalBytes(path)
            )
            self._source = _find_tree(self._file, path, tree)
            self._layout: _TreeLayout | _NtupleLayout = (
                _NtupleLayout(self._source, self._bytes)
                if "RNTuple" in self._source.classname
                else _TreeLayout(self._source, self._bytes)
            )
            self.entries = int(self._source.num_entries)
        except MLaaS4HEPError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise SourceError(path, f"its tree '{tree}' cannot be understood: {_reason(error)}") from error
        self.uuid = str(self._file.file.uuid)
        self.columns: Mapping[str, ColumnType] = self._layout.columns
        self.skipped: Mapping[str, str] = self._layout.skipped

    def clusters(self, columns: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the entries at which every one of the branches begins a new piece, with 0 first and ``entries`` last.

        Raises
        ------
        SourceError
            If the baskets of a branch do not add up to its events.
        """
        try:
            bounds = self._layout.clusters(columns)
        except Exception as error:
            raise SourceError(self.path, f"its clusters do not add up: {_reason(error)}") from error
        if bounds[0] != 0 or bounds[-1] != self.entries:
            raise SourceError(
                self.path,
                f"its clusters reach from entry {bounds[0]} to {bounds[-1]}, its tree from 0 to {self.entries}",
            )
        return bounds

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        """Read the events ``start … stop - 1`` of some branches.

        Raises
        ------
        SourceError
            If the data are damaged or out of reach, or a branch does not hold the number of events that it should.
        """
        if start == stop or not columns:
            return {name: empty_column(self.columns[name]) for name in columns}
        try:
            read = self._layout.read(start, stop, columns)
        except Exception as error:
            raise SourceError(self.path, f"entries {start}–{stop - 1} cannot be read: {_reason(error)}") from error
        for name, column in read.items():
            problem = _problem(column, stop - start)
            if problem:
                raise SourceError(self.path, f"branch '{name}', entries {start}–{stop - 1}: {problem}")
        return read

    def prefetch(self, start: int, stop: int, columns: Sequence[str]) -> None:
        """Ask for the bytes of some events that will be read soon, where the file is remote; does not wait for them."""
        self._layout.prefetch(start, stop, columns)

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_bytes"):
            self._bytes.close()
        self._file.close()
        if is_remote(self.path):
            drop_handle(self._file.file.source)


class _TreeLayout:
    """Branches of a TTree; those of plain numbers are read basket by basket, all others by uproot.

    Parameters
    ----------
    tree : uproot.TTree
    source : RootBytes
        Its file.
    """

    def __init__(self, tree: Any, source: RootBytes) -> None:
        self._tree = tree
        self._source = source
        self._described: dict[str, BasketBranch | None] = {}
        self._branches: dict[str, Any] = {}
        self.columns: dict[str, ColumnType] = {}
        self.skipped: dict[str, str] = {}
        for name, branch in tree.iteritems(recursive=True, full_paths=False):
            if name in self._branches:
                self.skipped[name] = "two branches of this name"
                continue
            kind = tree_column(branch, int(tree.num_entries))
            if isinstance(kind, ColumnType):
                self._branches[name] = branch
                self.columns[name] = kind
            elif kind:
                self.skipped[name] = kind

    def clusters(self, columns: Sequence[str]) -> npt.NDArray[np.int64]:
        common: set[int] | None = None
        for name in columns:
            starts = self._branches[name].entry_offsets
            common = set(starts) if common is None else common.intersection(starts)
        return np.array(sorted((common or set()) | {0, self._tree.num_entries}), np.int64)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        plain = self._plain(columns)
        raw = self._source.fetch(places_of(start, stop, plain.values()))
        read = read_baskets(raw, start, stop, plain)
        others = [name for name in columns if name not in read]
        return read | (self._read_with_uproot(start, stop, others) if others else {})

    def prefetch(self, start: int, stop: int, columns: Sequence[str]) -> None:
        self._source.prefetch(places_of(start, stop, self._plain(columns).values()))

    def _plain(self, columns: Sequence[str]) -> dict[str, BasketBranch]:
        return {name: branch for name in columns if (branch := self._described_branch(name)) is not None}

    def _described_branch(self, name: str) -> BasketBranch | None:
        if name not in self._described:
            self._described[name] = basket_branch(self._branches[name], int(self._tree.num_entries))
        return self._described[name]

    def _read_with_uproot(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        names = {id(self._branches[name]): name for name in columns}
        arrays = self._tree.arrays(
            filter_branch=lambda branch: id(branch) in names,
            entry_start=start,
            entry_stop=stop,
            array_cache=None,
            library="ak",
            how=dict,
        )
        by_name = {
            key.rpartition("/")[2]: array for key, array in arrays.items()
        }  # a branch inside another comes with its path
        return {name: _column(by_name[name], self.columns[name].dtype) for name in columns}


class _NtupleLayout:
    """Fields of an RNTuple.

    Parameters
    ----------
    ntuple : uproot.models.RNTuple
    source : RootBytes
        Its file.
    """

    def __init__(self, ntuple: Any, source: RootBytes) -> None:
        self._ntuple = ntuple
        self._source = source
        self._pages = Pages(ntuple)
        self._fields: dict[str, NtupleField] = {}
        self.columns: dict[str, ColumnType] = {}
        self.skipped: dict[str, str] = {}
        form = ntuple.to_akform()[0]
        for name, content in zip(form.fields, form.contents, strict=True):
            kind = form_column(content)
            field = ntuple_field(ntuple, content, kind.dtype) if isinstance(kind, ColumnType) else kind
            if isinstance(kind, str) or isinstance(field, str):
                self.skipped[name] = str(field)
            else:
                self.columns[name] = replace(kind, dtype=field.dtype)
                self._fields[name] = field

    def clusters(self, columns: Sequence[str]) -> npt.NDArray[np.int64]:
        return np.unique(self._pages.bounds)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        fields = {name: self._fields[name] for name in columns}
        raw = self._source.fetch(self._pages.places(start, stop, fields.values()))
        return self._pages.read(raw, start, stop, fields)

    def prefetch(self, start: int, stop: int, columns: Sequence[str]) -> None:
        self._source.prefetch(self._pages.places(start, stop, [self._fields[name] for name in columns]))


_OWN_MODELS = [(kind, dict(kind.known_versions)) for kind in uproot.classes.values() if hasattr(kind, "known_versions")]
"""uproot's own models of ROOT's classes, by version."""


def _open(path: str) -> Any:
    # A damaged version number makes uproot replace a model of its own by one that it makes from the damaged file, for every file to come.
    for kind, versions in _OWN_MODELS:
        kind.known_versions.update(versions)
    if is_remote(path):
        options = remote_options(path)
    else:
        _check_local(path)
        options = {"handler": uproot.source.file.MultithreadedFileSource}
    try:
        # {path: None} keeps uproot from reading an object name into a colon of the path.
        return uproot.open({path: None}, object_cache=None, array_cache=None, **options)
    except Exception as error:
        raise SourceError(path, f"it cannot be opened as a ROOT file: {_reason(error)}") from error


def _check_local(path: str) -> None:
    with open_local(path) as stream:
        magic = stream.read(4)
    if not magic:
        raise SourceError(path, "the file is empty")
    if magic != b"root":
        raise SourceError(path, f"is not a ROOT file: it begins with {magic!r}, not b'root'")


def _require_whole(file: Any, path: str, size: int) -> None:
    due = int(file.file.fEND)
    if due <= 0:
        raise SourceError(path, f"its header is damaged: it says that the file ends at byte {due}")
    if size < due:
        raise SourceError(path, f"is cut off: it has {size} of {due} bytes")


def _find_tree(file: Any, path: str, tree: str) -> Any:
    classes = {name.partition(";")[0]: kind for name, kind in file.classnames(recursive=True).items()}
    trees = [name for name, kind in classes.items() if kind in TREE_CLASSES]
    if tree not in trees:
        raise TreeNotFoundError(tree, path, trees)
    return file[tree]


def _column(array: ak.Array, dtype: np.dtype[Any]) -> Column:
    """Take content and offsets out of an awkward array of numbers, without copying where it is contiguous."""
    layout = array.layout
    if isinstance(layout, ak.contents.NumpyArray) and layout.data.ndim == 1:
        return Column(np.ascontiguousarray(layout.data, dtype), None)
    if isinstance(layout, ak.contents.NumpyArray):
        events, length = layout.data.shape
        return Column(
            np.ascontiguousarray(layout.data, dtype).reshape(-1), np.arange(events + 1, dtype=np.int64) * length
        )
    if not (isinstance(layout, ak.contents.ListOffsetArray) and isinstance(layout.content, ak.contents.NumpyArray)):
        layout = ak.to_packed(ak.from_regular(array)).layout
        if isinstance(layout, ak.contents.NumpyArray):
            return Column(np.ascontiguousarray(layout.data, dtype), None)
    offsets = np.asarray(layout.offsets.data).astype(np.int64, copy=False)
    content = layout.content.data[offsets[0] : offsets[-1]]
    return Column(np.ascontiguousarray(content, dtype), offsets - offsets[0] if offsets[0] else offsets)


def _problem(column: Column, events: int) -> str | None:
    """Return what is wrong with a column, if anything: the kernels trust offsets."""
    offsets = column.offsets
    if offsets is None:
        return None if len(column.content) == events else f"it holds {len(column.content)} of {events} events"
    if len(offsets) != events + 1:
        return f"it holds {len(offsets) - 1} of {events} events"
    if offsets[0] != 0 or offsets[-1] != len(column.content) or (np.diff(offsets) < 0).any():
        return "its lists do not add up"
    return None


def _reason(error: BaseException) -> str:
    """First line of an error's text, without what the XRootD layer puts before it."""
    return re.sub(r"^Failed to submit <.*> request: ", "", reason(error))
