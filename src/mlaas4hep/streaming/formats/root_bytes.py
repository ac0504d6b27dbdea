"""Pieces of a ROOT file in few large requests: those of a run of clusters and the branches that are wanted, whatever they hold."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Protocol

from mlaas4hep.streaming.stream.timing import count_bytes

__all__ = ["LocalBytes", "Place", "RootBytes", "check_within"]

Place = tuple[int, int]
"""Position and number of bytes in the file."""

MAX_GAP = 64 * 1024
MAX_PIECE = 8 * 2**20


class RootBytes(Protocol):
    """One open file; used by one thread at a time."""

    def prefetch(self, places: Iterable[Place]) -> None:
        """Ask for bytes that will be fetched soon, where that is of use; does not wait for them."""
        ...

    def fetch(self, places: Iterable[Place]) -> dict[Place, memoryview]:
        """Return the bytes at some places.

        Raises
        ------
        ValueError
            If one lies beyond the end of the file.
        """
        ...

    def close(self) -> None:
        """Give the file back."""
        ...


class LocalBytes:
    """Bytes of a local file.

    Parameters
    ----------
    path : str
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def prefetch(self, places: Iterable[Place]) -> None:
        """Do nothing: the operating system reads ahead."""

    def fetch(self, places: Iterable[Place]) -> dict[Place, memoryview]:
        """Read bytes; places that lie close together come in one piece."""
        ordered = sorted(places)
        check_within(ordered, os.fstat(self._file).st_size)
        fetched: dict[Place, memoryview] = {}
        position = 0
        while position < len(ordered):
            begin, size = ordered[position]
            end = begin + size
            following = position + 1
            while following < len(ordered):
                seek, size = ordered[following]
                if seek - end > MAX_GAP or seek + size - begin > MAX_PIECE:
                    break
                end = max(end, seek + size)
                following += 1
            piece = self._piece(begin, end)
            count_bytes("fetched", end - begin)
            for seek, size in ordered[position:following]:
                fetched[seek, size] = piece[seek - begin : seek - begin + size]
            position = following
        return fetched

    def _piece(self, begin: int, end: int) -> memoryview:
        data = os.pread(self._file, end - begin, begin)
        while len(data) < end - begin:  # a read gives 2 GiB at most, and less when a signal comes
            more = os.pread(self._file, end - begin - len(data), begin + len(data))
            if not more:
                raise ValueError(f"the file ends at byte {begin + len(data)}, before byte {end} that should be in it")
            data += more
        return memoryview(data)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def check_within(places: Sequence[Place], size: int) -> None:
    """Refuse places that are not within a file, before anything is allocated for them.

    Parameters
    ----------
    places : sequence of Place
    size : int
        Bytes of the file.

    Raises
    ------
    ValueError
        If one is not.

    Examples
    --------
    >>> check_within([(100, 10), (110, 20)], 120)
    Traceback (most recent call last):
    ValueError: the file ends at byte 120, before byte 130 that should be in it
    """
    if any(seek < 0 or length < 0 for seek, length in places):
        raise ValueError("a piece of it should be before the beginning of the file")
    reach = max((seek + length for seek, length in places), default=0)
    if reach > size:
        raise ValueError(f"the file ends at byte {size}, before byte {reach} that should be in it")
