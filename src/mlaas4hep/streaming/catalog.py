"""What there is: every file of a dataset, its events and its clusters, from metadata alone.

One pass opens each file, checks that its branches are those of the first one, and notes where reading can begin without decompressing anything twice.
No event is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.access.faults import BAD_FILE_ERRORS, Faults
from mlaas4hep.streaming.access.idle_readers import IdleReaders
from mlaas4hep.streaming.access.losses import Loss, LossReport
from mlaas4hep.streaming.access.opening import Opener, size_of
from mlaas4hep.streaming.access.sources import SourceFile
from mlaas4hep.streaming.formats import ColumnType, Reader
from mlaas4hep.streaming.selecting.alignment import Alignment, Settled
from mlaas4hep.streaming.selecting.view import View

__all__ = ["Catalog", "CatalogFile", "Run", "build_catalog"]


@dataclass(frozen=True)
class CatalogFile:
    """One file of a dataset.

    Parameters
    ----------
    path : str
        Name by which it is opened.
    uuid : str
        What tells its content from any other file's.
    entries : int
        Number of its events that belong to the dataset.
    clusters : int64 array
        Entries at which reading may begin, with 0 first and ``entries`` last.
    size : int
        Bytes of the file; -1 where that is not known.
    tree : str or None
        Its tree, where that is another than the catalogue's.
    alternatives : tuple of str
        Further names by which it can be opened.
    """

    path: str
    uuid: str
    entries: int
    clusters: npt.NDArray[np.int64]
    size: int = -1
    tree: str | None = None
    alternatives: tuple[str, ...] = ()

    def first(self, entries: int) -> CatalogFile:
        """Return the file with only its first events."""
        if entries >= self.entries:
            return self
        return replace(
            self, entries=entries, clusters=np.append(self.clusters[self.clusters < entries], np.int64(entries))
        )


@dataclass(frozen=True, slots=True)
class Run:
    """The unit of reading: whole consecutive clusters of one file, ``start … stop - 1``."""

    file: int
    start: int
    stop: int

    @property
    def events(self) -> int:
        """Number of events."""
        return self.stop - self.start


@dataclass(frozen=True)
class Catalog:
    """All files of a dataset and the branches that are read from them.

    Parameters
    ----------
    tree : str
        Name of the tree.
    files : tuple of CatalogFile
        In the order in which they were named.
    columns : mapping of str to ColumnType
        Type of every branch that is read, and of every new column.
    faults : Faults
        What is done about files that turn out to be bad.
    dtype : str, optional
        Format of all files, whatever their extensions.
    view : View
        How the files are seen.
    idle : IdleReaders
        Files that are open already, seen this way.
    """

    tree: str
    files: tuple[CatalogFile, ...]
    columns: Mapping[str, ColumnType]
    faults: Faults = field(default_factory=Faults, compare=False)
    dtype: str | None = None
    view: View = field(default_factory=View, compare=False)
    idle: IdleReaders = field(default_factory=IdleReaders, compare=False, repr=False)

    @cached_property
    def entries(self) -> int:
        """Number of events of all files."""
        return sum(file.entries for file in self.files)

    def bytes_per_event(self, columns: Sequence[str] | None = None) -> float:
        """Uncompressed bytes of an average event in some columns (all of them when not given), with all that is read for them."""
        wanted = columns or self.columns
        held = dict.fromkeys((*self.view.branches(tuple(wanted)), *wanted))
        return sum(self.columns[name].bytes_per_event for name in held) or 1.0

    def first(self, events: int) -> Catalog:
        """Return the catalogue with only about the first ``events`` events, from each file in proportion."""
        if events >= self.entries:
            return self
        bounds = np.cumsum([0, *(file.entries for file in self.files)], dtype=np.int64)
        shares = np.diff(bounds * events // self.entries)
        return replace(
            self, files=tuple(file.first(int(share)) for file, share in zip(self.files, shares, strict=True))
        )

    def runs(self, run_bytes: int, columns: Sequence[str] | None = None, *, split: bool = False) -> list[Run]:
        """Cut every file into runs of whole clusters, each of about so many uncompressed bytes.

        Parameters
        ----------
        run_bytes : int
            What a run should hold at most; a single larger cluster is a run of its own.
        columns : sequence of str, optional
            Branches that are read.
        split : bool
            Whether a single larger cluster is cut into several runs, at the price of decompressing it for each.
        """
        target = max(1, int(run_bytes / self.bytes_per_event(columns)))
        runs: list[Run] = []
        for index, file in enumerate(self.files):
            bounds = file.clusters.tolist()
            start = 0
            for position in range(1, len(bounds)):
                if position == len(bounds) - 1 or bounds[position + 1] - start > target:
                    events = bounds[position] - start
                    pieces = -(-events // target) if split else 1
                    cuts = [start + events * piece // pieces for piece in range(pieces)] if events else []
                    runs.extend(Run(index, *bound) for bound in pairwise([*cuts, bounds[position]]))
                    start = bounds[position]
        return runs

    def to_dict(self) -> list[dict[str, Any]]:
        """Return what identifies the files, as plain values for JSON."""
        return [
            {"path": file.path, "uuid": file.uuid, "entries": file.entries}
            | ({"size": file.size} if file.size >= 0 else {})
            for file in self.files
        ]


def build_catalog(
    files: Sequence[SourceFile],
    opener: Opener,
    alignment: Alignment,
    view: View,
    first: Reader,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Catalog, Settled, LossReport]:
    """Make the catalogue of some files, of the files' own branches only.

    Parameters
    ----------
    files : sequence of SourceFile
    opener : Opener
        Opens them, and knows what to do with those that cannot be.
    alignment : Alignment
        Knows which branches are wanted, and what to do where files do not agree.
    view : View
        Its preprocessing changes what a file has.
    first : Reader
        The first of the files, open and preprocessed.
    progress : callable, optional
        Called with the number of files done and of all.

    Returns
    -------
    catalog : Catalog
    settled : Settled
        What the files have in common.
    losses : LossReport
        Files that were left out; empty unless the rule is to skip or quarantine bad files.

    Raises
    ------
    SourceError, TreeNotFoundError
        If a file cannot be read or has no such tree.
    BranchesDifferError
        If a file lacks one of the branches that it must have, or has it with another type.
    """
    losses = LossReport()
    described: list[CatalogFile] = []

    def describe(reader: Reader, source: SourceFile) -> None:
        alignment.add(reader.path, reader.columns, reader.entries)
        described.append(_describe(reader, source, [name for name in alignment.wanted if name in reader.columns]))

    describe(first, files[0])
    for done, source in enumerate(files[1:], start=2):
        try:
            with opener.open(source) as reader:
                describe(view.preprocessed(reader), source)
        except BAD_FILE_ERRORS as error:
            losses.add(Loss(source.path, 0, None, opener.faults.lose(source.path, error)))
        if progress is not None:
            progress(done, len(files))
    settled = alignment.settle()
    return Catalog(opener.tree, tuple(described), settled.columns, opener.faults, opener.dtype), settled, losses


def _describe(reader: Reader, source: SourceFile, columns: Sequence[str]) -> CatalogFile:
    return CatalogFile(
        source.path,
        reader.uuid,
        reader.entries,
        reader.clusters(columns),
        size_of(reader),
        source.tree,
        source.alternatives,
    )
