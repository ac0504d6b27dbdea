"""Read runs of clusters ahead of whoever needs them, in a thread of its own, with files kept open.

Remote files are asked for the next runs while the present one is decoded. A run that cannot be read, in spite of further attempts and at none of
its file's locations, raises an error or is handed on as lost, as the catalogue's rules for bad files say; it is never left out without a word.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import MLaaS4HEPError, SourceError
from mlaas4hep.streaming.access.faults import BAD_FILE_ERRORS
from mlaas4hep.streaming.access.idle_readers import Signature, signature_of
from mlaas4hep.streaming.access.losses import Loss, LossReport
from mlaas4hep.streaming.access.opening import size_of
from mlaas4hep.streaming.catalog import Catalog, Run
from mlaas4hep.streaming.formats import Column, Reader, open_reader
from mlaas4hep.streaming.selecting.view import read_events
from mlaas4hep.streaming.stream.bounded_queue import BoundedQueue, QueueClosedError
from mlaas4hep.streaming.stream.timing import EpochReport, StageClock, count_bytes, stage

__all__ = ["MAX_OPEN_FILES", "LoadedRun", "LostRun", "OpenFiles", "loaded_runs", "read_ahead"]

MAX_OPEN_FILES = 32

RUNS_AHEAD = 3
"""Runs that a remote file is asked for before they are decoded."""


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """A run in memory.

    Parameters
    ----------
    run : Run
    columns : dict of str to Column
        Of all its events; empty where none is taken.
    passed : bool array of shape ``[events]``, or None
        Which events the selection takes; None for all.
    """

    run: Run
    columns: dict[str, Column]
    passed: npt.NDArray[np.bool_] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        return sum(column.nbytes for column in self.columns.values())

    def taken(self, names: Iterable[str]) -> dict[str, Column]:
        """Return some columns with only the events that are taken."""
        if self.passed is None:
            return {name: self.columns[name] for name in names}
        return {name: self.columns[name].events_where(self.passed) for name in names}

    @property
    def nothing_passed(self) -> bool:
        """Whether the selection takes none of the events, so that no column was read."""
        return self.passed is not None and not self.columns


@dataclass(frozen=True, slots=True)
class LostRun:
    """A run that could not be read, in place of its columns.

    Parameters
    ----------
    run : Run
    file : str
        Name of its file in the catalogue.
    reason : str
    """

    run: Run
    file: str
    reason: str

    @property
    def loss(self) -> Loss:
        """The same for a report."""
        return Loss(self.file, self.run.start, self.run.stop, self.reason)


class OpenFiles:
    """Open files of a catalogue, the least recently used closed first; used by one thread."""

    def __init__(self, catalog: Catalog, limit: int = MAX_OPEN_FILES) -> None:
        self._catalog = catalog
        self._limit = limit
        self._readers: OrderedDict[int, Reader] = OrderedDict()
        self._signatures: dict[int, Signature | None] = {}

    def __getitem__(self, index: int) -> Reader:
        """Return the reader of a file.

        Raises
        ------
        SourceError
            If the file is out of reach, or is another than when the catalogue was made.
        """
        file = self._catalog.files[index]
        return self._catalog.faults.attempt(
            (file.path, *file.alternatives), lambda location: self._open(index, location)
        )

    def load(self, run: Run, columns: Sequence[str]) -> LoadedRun | LostRun:
        """Read a run, or say that and why it is lost.

        Raises
        ------
        SourceError
            If it cannot be read and the rule for bad files is to fail.
        """
        file, faults = self._catalog.files[run.file], self._catalog.faults
        if file.path in faults.quarantined:
            return LostRun(run, file.path, f"quarantined: {faults.quarantined[file.path]}")
        try:
            values, passed = faults.attempt(
                (file.path, *file.alternatives), lambda location: self._read_at(location, run, columns)
            )
            return LoadedRun(run, values, passed)
        except BAD_FILE_ERRORS as error:
            return LostRun(run, file.path, faults.lose(file.path, error))

    def prefetch(self, run: Run, columns: Sequence[str]) -> None:
        """Ask for the bytes of a run that will be read soon, if its file is open and the format can do so."""
        prefetch = getattr(self._readers.get(run.file), "prefetch", None)
        if prefetch is not None:
            # What fails now fails again when it is read, and is dealt with there.
            with suppress(Exception):
                prefetch(run.start, run.stop, columns)

    def close(self) -> None:
        """Give all files back: local ones stay open for the next pass."""
        while self._readers:
            index, reader = self._readers.popitem()
            self._catalog.idle.give(self._catalog.files[index].path, self._signatures[index], reader)

    def _read_at(
        self, location: str, run: Run, columns: Sequence[str]
    ) -> tuple[dict[str, Column], npt.NDArray[np.bool_] | None]:
        reader = self._open(run.file, location)
        try:
            return read_events(reader, run.start, run.stop, columns)
        except SourceError:
            # A handle that failed once is not trusted: the next attempt opens the file anew.
            self._readers.pop(run.file).close()
            raise

    def _open(self, index: int, location: str) -> Reader:
        """Return the reader of a file; one that is open counts, wherever it was opened."""
        if index in self._readers:
            self._readers.move_to_end(index)
            return self._readers[index]
        file = self._catalog.files[index]
        signature = signature_of(file.path) if location == file.path else None
        reader = self._catalog.idle.take(file.path) if location == file.path else None
        if reader is None:
            reader = open_reader(location, file.tree or self._catalog.tree, self._catalog.dtype)
            try:
                _check_unchanged(reader, file.uuid, file.entries, file.size)
                reader = self._catalog.view.of(reader)
            except MLaaS4HEPError:
                reader.close()
                raise
        self._readers[index] = reader
        self._signatures[index] = signature
        if len(self._readers) > self._limit:
            self._readers.popitem(last=False)[1].close()
        return reader


def _check_unchanged(reader: Reader, uuid: str, entries: int, size: int) -> None:
    found = size_of(reader)
    if reader.uuid == uuid and reader.entries >= entries and size in (found, -1):
        return
    raise SourceError(
        reader.path,
        f"has changed since it was catalogued: uuid {reader.uuid}, {reader.entries} events, {found} bytes; it had {uuid}, {entries}, {size}",
    )


@contextmanager
def read_ahead(
    catalog: Catalog, runs: Iterable[Run], columns: Sequence[str], max_bytes: int, report: EpochReport | None = None
) -> Iterator[Callable[[], LoadedRun | LostRun | None]]:
    """Read runs in order in a thread; gives a function that returns the next one, and None after the last.

    Parameters
    ----------
    catalog : Catalog
        Its rules for bad files say whether a run that cannot be read raises an error or comes as a :class:`LostRun`.
    runs : iterable of Run
        In the order in which they are wanted.
    columns : sequence of str
        Branches to read.
    max_bytes : int
        What may wait, read and not yet taken.
    report : EpochReport, optional
        Takes up where the time went, at the end.

    Raises
    ------
    SourceError
        From the function, if a run cannot be read and the rule is to fail.
    """
    queue: BoundedQueue[LoadedRun | LostRun] = BoundedQueue(max_bytes)

    clock = StageClock()

    def read() -> None:
        files = OpenFiles(catalog)
        try:
            for run in _announced(runs, lambda following: files.prefetch(following, columns)):
                with clock, stage("fetch"):
                    loaded = files.load(run, columns)
                    count_bytes("read", 0 if isinstance(loaded, LostRun) else loaded.nbytes)
                queue.put(loaded, 0 if isinstance(loaded, LostRun) else loaded.nbytes)
            queue.finish()
        except QueueClosedError:
            pass
        except BaseException as error:  # whatever it is, it belongs to the thread that waits
            queue.finish(error)
        finally:
            with suppress(Exception):
                files.close()

    thread = threading.Thread(target=read, name="mlaas4hep-read", daemon=True)
    thread.start()
    try:
        yield queue.get
    finally:
        queue.close()
        thread.join()
        if report is not None:
            report.add(clock)


@contextmanager
def loaded_runs(
    catalog: Catalog, runs: Iterable[Run], columns: Sequence[str], max_bytes: int, losses: LossReport
) -> Iterator[Iterator[LoadedRun]]:
    """Read runs as :func:`read_ahead` does, for a pass that needs only those that could be read and hold an event that is taken.

    Parameters
    ----------
    catalog, runs, columns, max_bytes
        As there.
    losses : LossReport
        Takes up the others.
    """
    with read_ahead(catalog, runs, columns, max_bytes) as following:

        def readable() -> Iterator[LoadedRun]:
            while (loaded := following()) is not None:
                if isinstance(loaded, LostRun):
                    losses.add(loaded.loss)
                elif not loaded.nothing_passed:
                    yield loaded

        yield readable()


def _announced(runs: Iterable[Run], announce: Callable[[Run], None]) -> Iterator[Run]:
    """Iterate over runs; before each, call a function with those that follow, again and again, since their files may not have been open yet."""
    source = iter(runs)
    waiting = deque(islice(source, 1))
    while waiting:
        run = waiting.popleft()
        waiting.extend(islice(source, RUNS_AHEAD - len(waiting)))
        for following in waiting:
            announce(following)
        yield run
