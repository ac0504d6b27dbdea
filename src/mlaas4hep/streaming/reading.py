"""Read runs of clusters ahead of whoever needs them, in a thread of its own, with files kept open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.bounded_queue import BoundedQueue, QueueClosedError
from mlaas4hep.streaming.catalog import Catalog, Run
from mlaas4hep.streaming.formats import Column, Reader, open_reader

__all__ = ["MAX_OPEN_FILES", "OpenFiles", "read_ahead"]

MAX_OPEN_FILES = 32

Loaded = tuple[Run, dict[str, Column]]


class OpenFiles:
    """Open files of a catalogue, the least recently used closed first; used by one thread."""

    def __init__(self, catalog: Catalog, limit: int = MAX_OPEN_FILES) -> None:
        self._catalog = catalog
        self._limit = limit
        self._readers: OrderedDict[int, Reader] = OrderedDict()

    def __getitem__(self, index: int) -> Reader:
        """Return the reader of a file.

        Raises
        ------
        SourceError
            If the file is out of reach, or is another than when the catalogue was made.
        """
        if index in self._readers:
            self._readers.move_to_end(index)
            return self._readers[index]
        file = self._catalog.files[index]
        reader = open_reader(file.path, self._catalog.tree)
        if reader.uuid != file.uuid or reader.entries < file.entries:
            reader.close()
            raise SourceError(
                file.path,
                f"has changed since it was catalogued: uuid {reader.uuid}, {reader.entries} events; it had {file.uuid}, {file.entries}",
            )
        self._readers[index] = reader
        if len(self._readers) > self._limit:
            self._readers.popitem(last=False)[1].close()
        return reader

    def close(self) -> None:
        """Close all files."""
        while self._readers:
            self._readers.popitem()[1].close()


@contextmanager
def read_ahead(
    catalog: Catalog, runs: Iterable[Run], columns: Sequence[str], max_bytes: int
) -> Iterator[Callable[[], Loaded | None]]:
    """Read runs in order in a thread; gives a function that returns the next one, and None after the last.

    Parameters
    ----------
    catalog : Catalog
    runs : iterable of Run
        In the order in which they are wanted.
    columns : sequence of str
        Branches to read.
    max_bytes : int
        What may wait, read and not yet taken.

    Raises
    ------
    SourceError
        From the function, if a run cannot be read.
    """
    queue: BoundedQueue[Loaded] = BoundedQueue(max_bytes)

    def read() -> None:
        files = OpenFiles(catalog)
        try:
            for run in runs:
                loaded = files[run.file].read(run.start, run.stop, columns)
                queue.put((run, loaded), sum(column.nbytes for column in loaded.values()))
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
