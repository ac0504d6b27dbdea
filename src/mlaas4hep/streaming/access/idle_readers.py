"""Local files that stay open from one pass over the events to the next: opening a file of a thousand branches costs as much as reading a cluster."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from pathlib import Path

from mlaas4hep.streaming.formats import Reader

__all__ = ["IdleReaders", "Signature", "signature_of"]

MOST_IDLE = 8
"""Files that are kept open while nobody reads from them."""

Signature = tuple[int, int, int, int]
"""Device, inode, size and time of change of a local file: another one is another file, or another content."""


def signature_of(path: str) -> Signature | None:
    """Return the signature of a local file; None of a remote one, which is opened anew, and of what is not there."""
    if "://" in path:
        return None
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class IdleReaders:
    """Readers that nobody uses at the moment, the least recently used closed first; shared by threads, and not by processes."""

    def __init__(self, limit: int = MOST_IDLE) -> None:
        self._limit = limit
        self._readers: OrderedDict[str, tuple[Signature, Reader]] = OrderedDict()
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._readers)

    def __reduce__(self) -> tuple[type[IdleReaders], tuple[int]]:
        return IdleReaders, (self._limit,)

    def take(self, path: str) -> Reader | None:
        """Return the reader of a file that has not changed since it was opened, and forget it; None if there is none."""
        with self._lock:
            kept = self._readers.pop(path, None)
        if kept is None:
            return None
        signature, reader = kept
        if signature != signature_of(path):
            reader.close()
            return None
        return reader

    def give(self, path: str, signature: Signature | None, reader: Reader) -> None:
        """Keep a reader, or close it.

        Parameters
        ----------
        path : str
            Name of its file.
        signature : Signature or None
            Of the file before it was opened.
        reader : Reader
        """
        unwanted = [reader]
        if signature is not None:
            with self._lock:
                unwanted = [self._readers.pop(path)[1]] if path in self._readers else []
                self._readers[path] = signature, reader
                if len(self._readers) > self._limit:
                    unwanted.append(self._readers.popitem(last=False)[1][1])
        for one in unwanted:
            one.close()


def _close(readers: OrderedDict[str, tuple[Signature, Reader]]) -> None:
    while readers:
        readers.popitem()[1][1].close()
