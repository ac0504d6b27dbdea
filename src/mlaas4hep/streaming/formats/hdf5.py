"""HDF5 files, read with h5py: the datasets of one group, or the fields of one dataset of records.

Datasets of one dimension are flat columns; those of two are lists of fixed length. All have one element an event. Lists of HDF5's own
variable-length type are left out: they come as one Python object an event, and a flipped byte in their heap was seen to keep the HDF5 library busy
without end. Checksums (Fletcher32) are verified where the file has them; elsewhere a flipped byte changes values silently. Datasets that are not
wholly in the file are refused: HDF5 would fill the gaps with zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import MissingExtraError, SourceError, TreeNotFoundError
from mlaas4hep.streaming.formats.base import Column, ColumnType
from mlaas4hep.streaming.formats.files import content_uuid, empty_column, open_bytes, opening, reason, require_magic

__all__ = ["Hdf5Reader"]

DEFAULT_TREE = "Events"
CLUSTER_ROWS = 8192


class Hdf5Reader:
    """One open HDF5 file.

    Parameters
    ----------
    path : str
        Local path or URL.
    tree : str
        Name of a group, or of a dataset whose elements are records; where there is no ``Events``, the file's root.

    Raises
    ------
    SourceError
        If the file is missing, empty, truncated, out of reach, not an HDF5 file, or its datasets are of different lengths.
    TreeNotFoundError
        If it holds no such group.
    MissingExtraError
        If h5py is not installed.
    """

    def __init__(self, path: str, tree: str) -> None:
        try:
            import h5py
        except ImportError as error:
            raise MissingExtraError("h5py", "hdf5") from error
        self._h5py: Any = h5py
        self.path = path
        self._stream = open_bytes(path)
        self._file: Any = None
        self.columns: dict[str, ColumnType] = {}
        self.skipped: dict[str, str] = {}
        self._datasets: dict[str, Any] = {}
        with opening(path, "an HDF5 file", self.close):
            require_magic(self._stream, path, b"\x89HDF\r\n\x1a\n", "an HDF5 file")
            self.uuid = content_uuid(self._stream)
            # The library's own locks fail on shared file systems, and nobody writes.
            self._file = h5py.File(self._stream, "r") if "://" in path else h5py.File(path, "r", locking=False)
            self._record = self._find(tree)
            self.entries = self._common_length()

    def _find(self, tree: str) -> Any:
        """Find the datasets; return the dataset of records if they are its fields."""
        where = self._inside(self._file, tree)
        if where is None:
            groups = [name for name in self._file if self._is_tree(self._inside(self._file, name))]
            if tree != DEFAULT_TREE:
                raise TreeNotFoundError(tree, self.path, groups)
            where = self._file
        if not self._is_tree(where):
            raise SourceError(self.path, f"'{tree}' is one dataset of numbers; name the group that holds it")
        if isinstance(where, self._h5py.Dataset):
            for name in where.dtype.names:
                self._add(name, where, where.dtype.fields[name][0])
            return where
        for name in where:
            found = self._inside(where, name)
            if isinstance(found, self._h5py.Dataset):
                self._add(name, found, found.dtype)
            else:
                self.skipped[name] = "is a link to elsewhere" if found is None else "is a group"
        return None

    def _inside(self, group: Any, name: str) -> Any:
        """Return what a path within a group leads to; None if nothing, or out of this file."""
        for part in filter(None, name.split("/")):
            if not isinstance(group, self._h5py.Group) or part not in group.keys():  # noqa: SIM118 - `in` follows links
                return None
            if not isinstance(group.get(part, getlink=True), self._h5py.HardLink):
                return None
            group = group[part]
        return group

    def _is_tree(self, found: Any) -> bool:
        return isinstance(found, self._h5py.Group) or (
            isinstance(found, self._h5py.Dataset) and found.dtype.names is not None
        )

    def _add(self, name: str, dataset: Any, dtype: np.dtype[Any]) -> None:
        kind = self._describe(dataset, dtype)
        if isinstance(kind, str):
            self.skipped[name] = kind
        else:
            self.columns[name] = kind
            self._datasets[name] = dataset

    def _describe(self, dataset: Any, dtype: np.dtype[Any]) -> ColumnType | str:
        """Return the type of a dataset's column, or why it has none."""
        if not dataset.shape:
            return "holds one value, not one an event"
        if dataset.is_virtual or dataset.external:
            return "lies in other files"
        dtype, inner = dtype.base, dtype.shape
        if self._h5py.check_vlen_dtype(dtype) is not None:
            return "holds lists of HDF5's variable-length type, which cannot be read safely; use lists of fixed length, or Parquet"
        nested = len(dataset.shape) - 1 + len(inner)
        if dtype.kind not in "biuf":
            names = dtype.names or ()
            what = f"objects with {len(names)} members" if names else "strings or objects"
            return f"holds {what}, not numbers" + ("; name it as the tree to use them" if names else "")
        if nested > 1:
            return "holds lists of lists"
        plain = np.dtype({2: np.float32, 16: np.float64}.get(dtype.itemsize, dtype) if dtype.kind == "f" else dtype)
        width = math.prod((*dataset.shape[1:], *inner))
        return ColumnType(plain.newbyteorder("="), nested == 1, plain.itemsize * float(width))

    def _common_length(self) -> int:
        lengths = {name: int(dataset.shape[0]) for name, dataset in self._datasets.items()}
        first = next(iter(lengths), "")
        for name, dataset in self._datasets.items():
            if lengths[name] != lengths[first]:
                raise SourceError(
                    self.path,
                    f"datasets are of different lengths: '{first}' holds {lengths[first]} events, '{name}' {lengths[name]}",
                )
            if lengths[name] and not _is_whole(dataset):
                raise SourceError(self.path, f"dataset '{name}' is not wholly written: {lengths[name]} events are due")
        return lengths.get(first, 0)

    def clusters(self, columns: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return events at which every one of the datasets begins a new chunk, with 0 first and ``entries`` last."""
        chunks = {int(d.chunks[0]) for name in columns if (d := self._datasets[name]).chunks} or {1}
        step = math.lcm(*chunks)
        if step > 8 * max(*chunks, CLUSTER_ROWS):  # they hardly ever meet: some chunks are read twice
            step = max(chunks)
        step *= -(-CLUSTER_ROWS // step)
        return np.append(np.arange(0, max(self.entries, 1), step), self.entries).astype(np.int64)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        """Read the events ``start … stop - 1`` of some datasets.

        Raises
        ------
        SourceError
            If the data are damaged or out of reach.
        """
        if start == stop or not columns:
            return {name: empty_column(self.columns[name]) for name in columns}
        try:
            if self._record is not None:
                records = self._record[start:stop]
                return {name: _column(records[name], self.columns[name]) for name in columns}
            return {name: _column(self._datasets[name][start:stop], self.columns[name]) for name in columns}
        except Exception as error:
            raise SourceError(self.path, f"entries {start}–{stop - 1} cannot be read: {reason(error)}") from error

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._stream.close()


def _is_whole(dataset: Any) -> bool:
    """Whether every element is in the file, as far as it can be told without reading."""
    if dataset.chunks is None:
        return bool(dataset.id.get_storage_size() >= math.prod(dataset.shape) * dataset.id.get_type().get_size())
    due = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    return bool(dataset.id.get_num_chunks() == due)


def _column(values: npt.NDArray[Any], kind: ColumnType) -> Column:
    content = np.ascontiguousarray(values, kind.dtype)
    if not kind.jagged:
        return Column(content, None)
    length = content.shape[1]
    return Column(content.reshape(-1), np.arange(len(content) + 1, dtype=np.int64) * length)
