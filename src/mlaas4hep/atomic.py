"""Write files so that each is whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_file", "write_atomically"]


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing under a temporary name beside its own; at the end it is renamed into place.

    Parameters
    ----------
    path : Path
        The file; its folder must exist.

    Raises
    ------
    OSError
        If it cannot be written; then, as after any other error, nothing of it is left.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101 - mkstemp makes files that only their owner reads
        os.replace(temporary, path)  # noqa: PTH105
        _sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, then rename it into place.

    Parameters
    ----------
    path : Path
        The file; its folder must exist.
    content : bytes
        All of it.

    Raises
    ------
    OSError
        If it cannot be written; then nothing of it is left.
    """
    with atomic_file(path) as stream:
        stream.write(content)


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder last through a power cut, where the system lets a folder be opened for that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
