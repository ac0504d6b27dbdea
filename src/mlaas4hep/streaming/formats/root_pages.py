"""Checksums of an RNTuple's pages: uproot verifies those of header, footer and page lists, and reads the pages without looking at theirs.

Each page is verified once for as long as its file is open; the pages of a run are fetched in one request.

Format: https://github.com/root-project/root/blob/master/tree/ntuple/doc/BinaryFormatSpecification.md, "Page Locations".
"""

from __future__ import annotations

import queue
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import xxhash

__all__ = ["PageChecksums", "columns_of"]

CHECKSUM_BYTES = 8


def columns_of(form: Any) -> frozenset[int]:
    """Return the numbers of the columns that an awkward form of uproot's for a field is read from."""
    return frozenset(int(number) for number in re.findall(r'"column-(\d+)', form.to_json()))


class PageChecksums:
    """Verifies the pages of one open RNTuple.

    Parameters
    ----------
    ntuple : uproot.models.RNTuple
    source : uproot.source.chunk.Source
        Its file.
    size : int
        Bytes of the file.
    """

    def __init__(self, ntuple: Any, source: Any, size: int) -> None:
        self._ntuple = ntuple
        self._source = source
        self._size = size
        self._starts = np.array([int(summary.num_first_entry) for summary in ntuple.cluster_summaries], np.int64)
        self._verified: set[tuple[int, int]] = set()

    def verify(self, start: int, stop: int, columns: Iterable[int]) -> None:
        """Verify all pages of the clusters that hold the events ``start … stop - 1``, for some columns.

        Raises
        ------
        ValueError
            If a page lies beyond the end of the file or its checksum is wrong.
        """
        first = max(int(np.searchsorted(self._starts, start, side="right")) - 1, 0)
        last = int(np.searchsorted(self._starts, stop, side="left"))
        wanted = [
            (cluster, column)
            for cluster in range(first, last)
            for column in columns
            if (cluster, column) not in self._verified
        ]
        ranges = sorted(
            {
                (int(page.locator.offset), int(page.locator.offset) + int(page.locator.num_bytes) + CHECKSUM_BYTES)
                for cluster, column in wanted
                for page in self._ntuple.page_link_list[cluster][column].pages
                if page.has_checksum
            }
        )
        if ranges and max(end for _, end in ranges) > self._size:
            raise ValueError(f"the file ends at byte {self._size}, within or before one of its pages")
        for (begin, _), chunk in zip(ranges, self._source.chunks(ranges, queue.Queue()) if ranges else (), strict=True):
            raw = memoryview(chunk.raw_data)
            expected = int.from_bytes(raw[-CHECKSUM_BYTES:], "little")
            if xxhash.xxh3_64_intdigest(raw[:-CHECKSUM_BYTES]) != expected:
                raise ValueError(f"the checksum of the page at byte {begin} is wrong")
        self._verified.update(wanted)
