"""What the readers of all formats but ROOT share: opening a file, telling it from another, and saying what is wrong with it.

A local name is opened by the operating system, a URL through fsspec. Formats that carry no identifier of their own get one from their content.
"""

from __future__ import annotations

import hashlib
import importlib
import stat
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import numpy as np

from mlaas4hep.errors import MLaaS4HEPError, SourceError
from mlaas4hep.streaming.formats.base import Column, ColumnType

__all__ = [
    "NAMESPACE",
    "Remembered",
    "content_uuid",
    "empty_column",
    "open_bytes",
    "open_local",
    "opening",
    "reason",
    "require_magic",
]

T = TypeVar("T")

ENDS_BYTES = 1 << 20
NAMESPACE = uuid.UUID("7b0f5f1c-6a5e-5c47-9d0a-6d1c5a1be9a4")

OTHER_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_bytes(path: str) -> IO[bytes]:
    """Open a file for reading at any place.

    Raises
    ------
    SourceError
        If it is missing, empty, a folder, or out of reach.
    """
    try:
        if "://" in path:
            fsspec: Any = importlib.import_module("fsspec")  # comes with uproot, has no types
            from mlaas4hep.streaming.formats.root_remote import remote_options  # limits on waits, proxies and tokens

            options = {name: value for name, value in remote_options(path).items() if name != "coalesce_config"}
            stream: IO[bytes] = fsspec.open(path, "rb", **options).open()
        else:
            stream = open_local(path)
        empty = not stream.read(1)
        stream.seek(0)
    except SourceError:
        raise
    except FileNotFoundError:
        raise SourceError(path, "no such file") from None
    except Exception as error:  # whatever the file system of a URL raises
        raise SourceError(path, f"cannot be read: {reason(error)}") from error
    if empty:
        stream.close()
        raise SourceError(path, "the file is empty")
    return stream


def open_local(path: str) -> IO[bytes]:
    """Open a local file, and nothing that only looks like one: whoever waits for a pipe may wait for ever, and a device has no end.

    Raises
    ------
    SourceError
        If it is missing, a folder, a pipe, a device or a socket, or may not be read.
    """
    try:
        kind = stat.S_IFMT(Path(path).stat().st_mode)
        if kind != stat.S_IFREG:
            raise SourceError(path, f"is {OTHER_KINDS.get(kind, 'something else')}, not a file")
        return Path(path).open("rb")
    except FileNotFoundError:
        raise SourceError(path, "no such file") from None
    except OSError as error:
        raise SourceError(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # a zero byte in the name
        raise SourceError(path, f"is no name of a file: {error}") from error


def require_magic(stream: IO[bytes], path: str, magic: bytes, kind: str) -> None:
    """Raise a SourceError unless the file begins with the bytes of its format; ``kind`` is as in ``a Parquet file``."""
    stream.seek(0)
    found = stream.read(len(magic))
    stream.seek(0)
    if found != magic:
        raise SourceError(path, f"is not {kind}: it begins with {found!r}, not {magic!r}")


class Remembered(Generic[T]):
    """What a pass over a file found, so that it is made once in a process: files are opened anew for each epoch.

    Parameters
    ----------
    limit : int
        How many files to remember; the longest unused is forgotten first.
    """

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[Any, ...], T] = OrderedDict()

    def of(self, path: str, kind: str, make: Callable[[], T]) -> T:
        """Return what was found in this very file as a file of some kind, or look now; a URL is looked at each time."""
        before = _state(path)
        key = (kind, path, before)
        with self._lock:
            if before is not None and key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        found = make()
        if before is not None and _state(path) == before:
            with self._lock:
                self._found[key] = found
                if len(self._found) > self._limit:
                    self._found.popitem(last=False)
        return found


def _state(path: str) -> tuple[int, ...] | None:
    """Return what changes when a local file does, without reading it; None for a URL."""
    if "://" in path:
        return None
    try:
        status = Path(path).stat()
    except OSError as error:
        raise SourceError(path, f"cannot be read: {error.strerror}") from error
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def content_uuid(stream: IO[bytes], metadata: bytes = b"") -> str:
    """Return an identifier that follows from a file's content, wherever it lies and whatever its name.

    It is made of the size, the first and the last MiB, and what the reader says of the metadata. Files that differ in any of these have another one,
    and so has every file of up to 2 MiB that differs in any byte; a change of the same length in the middle of a larger file is not seen unless the
    metadata tell (statistics of row groups do).

    Parameters
    ----------
    stream : binary file
        Open; its position is changed.
    metadata : bytes
        More that tells this content from another.
    """
    size = stream.seek(0, 2)
    digest = hashlib.blake2b(metadata, digest_size=32)
    stream.seek(0)
    digest.update(stream.read(ENDS_BYTES))
    stream.seek(max(0, size - ENDS_BYTES))
    digest.update(stream.read(ENDS_BYTES))
    stream.seek(0)
    return str(uuid.uuid5(NAMESPACE, f"{size} {digest.hexdigest()}"))


@contextmanager
def opening(path: str, kind: str, close: Callable[[], Any]) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into a SourceError, and close the file."""
    try:
        yield
    except MLaaS4HEPError:
        close()
        raise
    except Exception as error:
        close()
        raise SourceError(path, f"it cannot be opened as {kind}: {reason(error)}") from error


def empty_column(kind: ColumnType) -> Column:
    """Return the column of no event."""
    return Column(np.empty(0, kind.dtype), np.zeros(1, np.int64) if kind.jagged else None)


def reason(error: BaseException) -> str:
    """First line of an error's text, shortened: libraries' go on for a screen."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0].rstrip(" ,:;") if lines else type(error).__name__
    return first if len(first) <= 200 else first[:197] + "…"
