"""The pass over files: every branch of every file summarised, whether or not the files have the same branches."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlaas4hep.errors import BranchNotFoundError, BranchTypeError, SettingError, SourceError
from mlaas4hep.streaming.access.checksums import Checksums
from mlaas4hep.streaming.access.faults import BAD_FILE_ERRORS, Faults, OnBadFile
from mlaas4hep.streaming.access.losses import Loss, LossReport
from mlaas4hep.streaming.access.opening import Opener
from mlaas4hep.streaming.access.retry import RetryPolicy
from mlaas4hep.streaming.access.sources import DEFAULT_REDIRECTOR, SourceFile, find_files
from mlaas4hep.streaming.catalog import Catalog, build_catalog
from mlaas4hep.streaming.features import is_generator_level
from mlaas4hep.streaming.formats import Reader
from mlaas4hep.streaming.identity import IDENTIFIERS
from mlaas4hep.streaming.inspection.summary import BranchSummary, summarise_branch
from mlaas4hep.streaming.selecting.alignment import Alignment
from mlaas4hep.streaming.selecting.preprocessing import Preprocessing
from mlaas4hep.streaming.selecting.view import View
from mlaas4hep.streaming.statistics.scan import QUEUE_BYTES, RUN_BYTES
from mlaas4hep.streaming.stream.reading import loaded_runs

__all__ = ["MAX_COMPARED", "InspectedFile", "Inspection", "inspect_files"]

MAX_COMPARED = 8
"""Files up to which each keeps summaries of its own; of more there is only their sum, so that memory does not grow with their number."""


@dataclass(frozen=True)
class InspectedFile:
    """One file of an inspection.

    Parameters
    ----------
    name : str
        As it was found.
    tree, uuid : str
    entries : int
        Events of the file.
    events : int
        Events that were read.
    size : int
        Bytes of the file; -1 where that is not known.
    branches : mapping of str to BranchSummary
        Empty where there are more than :data:`MAX_COMPARED` files.
    """

    name: str
    tree: str
    uuid: str
    entries: int
    events: int
    size: int
    branches: Mapping[str, BranchSummary] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what identifies the file, as plain values for JSON."""
        return {
            "name": self.name,
            "tree": self.tree,
            "uuid": self.uuid,
            "entries": self.entries,
            "events": self.events,
            "size": self.size,
        }


@dataclass(frozen=True)
class Inspection:
    """What files and their branches look like.

    Parameters
    ----------
    files : tuple of InspectedFile
        Without those that could not be opened.
    branches : mapping of str to BranchSummary
        Over all files, in their order; ``events`` tells over how many.
    skipped : mapping of str to str
        Branches that hold no numbers, and what they hold.
    losses : LossReport
        What could not be read.
    seconds : float
        How long it took.
    nbytes : int
        Uncompressed bytes that were read.
    """

    files: tuple[InspectedFile, ...]
    branches: Mapping[str, BranchSummary]
    skipped: Mapping[str, str]
    losses: LossReport
    seconds: float
    nbytes: int

    @property
    def events(self) -> int:
        """Number of events that were read."""
        return sum(file.events for file in self.files)

    @property
    def entries(self) -> int:
        """Number of events of all files."""
        return sum(file.entries for file in self.files)

    @property
    def compared(self) -> bool:
        """Whether there are several files, each with summaries of its own."""
        return 1 < len(self.files) <= MAX_COMPARED

    def mark(self, branch: str) -> str:
        """Return ``identifier`` or ``generator level`` for branches that no model should read, else nothing."""
        return "identifier" if branch in IDENTIFIERS else "generator level" if is_generator_level(branch) else ""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values for JSON, without NaN or infinity."""
        branches = {}
        for name, summary in self.branches.items():
            branches[name] = summary.to_dict() | {"mark": self.mark(name)}
            if self.compared:
                edges = summary.edges()
                branches[name]["files"] = [
                    file.branches[name].to_dict() | {"histogram": file.branches[name].histogram(edges).to_dict()}
                    if name in file.branches
                    else None
                    for file in self.files
                ]
        return {
            "events": self.events,
            "entries": self.entries,
            "seconds": self.seconds,
            "bytes": self.nbytes,
            "files": [file.to_dict() for file in self.files],
            "branches": branches,
            "skipped": dict(self.skipped),
            "losses": self.losses.to_dict(),
        }


def inspect_files(
    files: str | Path | Sequence[str | Path],
    *,
    tree: str = "Events",
    dtype: str | None = None,
    branches: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    max_events: int = -1,
    redirector: str | Sequence[str] = DEFAULT_REDIRECTOR,
    on_bad_file: OnBadFile = "fail",
    retry: RetryPolicy | None = None,
    checksums: str | Path | None = None,
    preproc: str | Path | Preprocessing | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> Inspection:
    """Read files once and summarise every branch that holds numbers; files need not have the same branches.

    Parameters
    ----------
    files, tree, dtype, redirector, on_bad_file, retry, checksums, preproc
        As of :func:`mlaas4hep.open`.
    branches : sequence of str, optional
        Names or patterns (``Jet_*``) of the branches; all of them when not given.
    exclude : sequence of str
        Names or patterns of branches to leave out.
    max_events : int
        Read only so many, from each file in proportion; -1 for all.
    progress : callable, optional
        Called with the number of events done and of all, and the bytes read so far.

    Returns
    -------
    Inspection

    Raises
    ------
    SourceError, TreeNotFoundError
        If a file is missing or cannot be read, and the rule is to fail, or none of the files can.
    BranchNotFoundError, BranchTypeError
        If a name or pattern means no branch of any file, or one that holds no numbers.
    SettingError
        If another argument has a value that it must not have.

    Examples
    --------
    >>> found = inspect_files("examples/data/VBF_HToTauTau.root", branches=["Jet_*"])
    >>> jets = found.branches["Jet_pt"]
    >>> jets.events, jets.values, jets.statistics.widest, round(jets.empty_fraction, 3)
    (24000, 90682, 11, 0.002)
    """
    if isinstance(max_events, bool) or not isinstance(max_events, int) or (max_events < 1 and max_events != -1):
        raise SettingError("max_events", "an integer ≥ 1, or -1 for all", max_events)
    started = time.perf_counter()
    faults = Faults(on_bad_file=on_bad_file, retry=retry or RetryPolicy())
    opener = Opener(tree, faults, None if checksums is None else Checksums.read(checksums), dtype)
    losses = LossReport()
    choice = _Choice(branches, exclude)
    preprocessing = preproc if isinstance(preproc, Preprocessing | None) else Preprocessing.load(preproc)
    view = View(preprocessing=preprocessing)
    catalogs = _catalogs(find_files(files, redirector), opener, choice, view, losses)
    choice.check(tree)

    entries = [catalog.entries for catalog in catalogs]
    wanted = _shares(entries, max_events)
    compared = len(catalogs) <= MAX_COMPARED
    together: dict[str, BranchSummary] = {}
    inspected = []
    done = nbytes = 0
    for catalog, events in zip(catalogs, wanted, strict=True):
        own: dict[str, BranchSummary] = {}
        into = own if compared else together
        for name in catalog.columns:
            into.setdefault(name, BranchSummary())
        part = catalog.first(events)
        lost = LossReport()
        with loaded_runs(part, part.runs(RUN_BYTES), list(part.columns), QUEUE_BYTES, lost) as loaded:
            for one in loaded:
                flat_offsets = np.arange(one.run.events + 1)
                for name, column in one.columns.items():
                    into[name] += summarise_branch(column, part.columns[name], one.run.events, flat_offsets)
                    nbytes += column.nbytes
                done += one.run.events
                if progress is not None:
                    progress(done, sum(wanted), nbytes)
        losses.extend(lost)
        file = catalog.files[0]
        inspected.append(
            InspectedFile(
                file.path,
                file.tree or tree,
                file.uuid,
                file.entries,
                events - lost.events_of(file.path),
                file.size,
                own,
            )
        )
    for one_file in inspected:
        for name, summary in one_file.branches.items():
            together[name] = together.get(name, BranchSummary()) + summary
    return Inspection(
        tuple(inspected), together, choice.skipped, losses, max(time.perf_counter() - started, 1e-9), nbytes
    )


class _Choice:
    """Which branches are wanted; remembers which were found."""

    def __init__(self, branches: Sequence[str] | None, exclude: Sequence[str]) -> None:
        self._branches, self._exclude = branches, exclude
        self._unmatched = set(branches or ())
        self._known: dict[str, None] = {}
        self._first = ""
        self.skipped: dict[str, str] = {}

    def of(self, reader: Reader, tree: str) -> list[str]:
        """Return the branches of a file that are wanted; an error where it has none of them."""
        self._first = self._first or reader.path
        self._known.update(dict.fromkeys(reader.columns))
        self.skipped.update(
            {name: why for name, why in reader.skipped.items() if self._branches is None and not self._excluded(name)}
        )
        chosen = set(reader.columns) if self._branches is None else set()
        for pattern in self._branches or ():
            if pattern in reader.skipped:
                raise BranchTypeError(pattern, reader.path, reader.skipped[pattern])
            matching = _matching(pattern, reader.columns)
            if matching:
                self._unmatched.discard(pattern)
            chosen.update(matching)
        wanted = [name for name in reader.columns if name in chosen and not self._excluded(name)]
        if not wanted and self._branches:
            raise BranchNotFoundError(self._branches[0], tree, reader.path, reader.columns)
        if not wanted:
            raise SourceError(reader.path, f"tree '{tree}' has no branch of numbers that is wanted")
        return wanted

    def check(self, tree: str) -> None:
        """Raise an error for the first name or pattern that meant nothing."""
        for pattern in self._branches or ():
            if pattern in self._unmatched:
                raise BranchNotFoundError(pattern, tree, self._first, self._known)

    def _excluded(self, name: str) -> bool:
        return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in self._exclude)


def _matching(pattern: str, names: Mapping[str, Any]) -> list[str]:
    """Names that a pattern means; a name that holds signs of a pattern itself means itself too."""
    return [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]


def _catalogs(
    sources: Sequence[SourceFile], opener: Opener, choice: _Choice, view: View, losses: LossReport
) -> list[Catalog]:
    """Return a catalogue for each file that can be opened."""
    catalogs = []
    problem: Exception | None = None
    for source in sources:
        try:
            with opener.open(source) as opened:
                reader = view.preprocessed(opened)
                wanted = choice.of(reader, source.tree or opener.tree)
                catalog, _, _ = build_catalog([source], opener, Alignment(wanted), view, reader)
                catalogs.append(replace(catalog, view=view))
        except BAD_FILE_ERRORS as error:
            problem = problem or error
            losses.add(Loss(source.path, 0, None, opener.faults.lose(source.path, error)))
    if not catalogs:
        raise problem or SourceError("files", "names no file")
    return catalogs


def _shares(entries: Sequence[int], wanted: int) -> list[int]:
    """Return how many events to read of each file: in proportion, and as many in all as are wanted."""
    total = sum(entries)
    if wanted == -1 or wanted >= total:
        return list(entries)
    bounds = np.cumsum([0, *entries], dtype=np.int64)
    return [int(share) for share in np.diff(bounds * wanted // total)]
