"""Where a repository writes what is not yet, and keeps for a moment what is no longer, one of its models.

A process that is killed leaves its folders behind. Each has a lock that ends with its process, so that another one knows which may be removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Staging"]

FRESH_SECONDS = 60.0  # a folder this young may belong to a process that has not yet taken its lock


class Staging:
    """Folders for work in progress.

    Parameters
    ----------
    root : path
        Made if it is not there; leftovers of processes that are gone are removed from it.
    """

    def __init__(self, root: Path) -> None:
        self._work = root / "staging"
        self.trash = root / "trash"
        self._work.mkdir(parents=True, exist_ok=True)
        self.trash.mkdir(exist_ok=True)
        self.clean()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Give an empty folder, and remove it with all that is left in it."""
        own = self._work / uuid.uuid4().hex
        own.mkdir()
        lock = os.open(own / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            files = own / "files"
            files.mkdir()
            yield files
        finally:
            shutil.rmtree(own, ignore_errors=True)
            os.close(lock)

    def clean(self) -> None:
        """Remove what processes that are gone have left."""
        for leftover in self.trash.iterdir():
            shutil.rmtree(leftover, ignore_errors=True)
        for own in self._work.iterdir():
            with suppress(OSError):
                if time.time() - own.stat().st_mtime > FRESH_SECONDS:
                    _remove_if_unlocked(own)


def _remove_if_unlocked(own: Path) -> None:
    lock = os.open(own / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(own, ignore_errors=True)
    finally:
        os.close(lock)
