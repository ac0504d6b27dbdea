"""The compiled loops that copy events which are encoded already; each has a slow twin in the tests."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["checksum", "copy_bytes", "copy_rows"]

Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]
UInt64 = npt.NDArray[np.uint64]


@numba.njit(nogil=True, cache=True)
def copy_rows(
    source: npt.NDArray[np.float32], rows: Int64, destinations: Int64, x: npt.NDArray[np.float32], mask: UInt8
) -> None:
    """Copy rows to rows of a block, and part them into values and mask.

    Parameters
    ----------
    source : float32 array of shape ``[n, places]``
        NaN where absent.
    rows, destinations : int64 array of shape ``[k]``
        Row of the source, and row of the block that it goes to.
    x : float32 array of shape ``[block, places]``
        Filled with the values, 0 where absent.
    mask : uint8 array of shape ``[block, places]``
        Filled with 1 where absent.
    """
    for index in range(rows.size):
        row = source[rows[index]]
        to_x = x[destinations[index]]
        to_mask = mask[destinations[index]]
        for place in range(row.size):
            value = row[place]
            absent = value != value  # noqa: PLR0124 - NaN
            to_x[place] = np.float32(0.0) if absent else value
            to_mask[place] = absent


@numba.njit(nogil=True, cache=True)
def copy_bytes(source: UInt8, rows: Int64, destinations: Int64, to: UInt8) -> None:
    """Copy rows of bytes to rows of others: several times as fast as numpy's indexing where a row is a record.

    Parameters
    ----------
    source : uint8 array of shape ``[n, bytes]``
    rows, destinations : int64 array of shape ``[k]``
        Row of the source, and row that it goes to.
    to : uint8 array of shape ``[block, bytes]``
    """
    for index in range(rows.size):
        row = source[rows[index]]
        to_row = to[destinations[index]]
        for place in range(row.size):
            to_row[place] = row[place]


@numba.njit(nogil=True, cache=True)
def checksum(words: UInt64, rest: UInt64, length: int) -> np.uint64:
    """Return a checksum of 64 bits at the speed of memory: it finds what disks and people do to files, and no forger.

    As in Fletcher's checksum a first sum tells that a word has changed and a second one that words have changed places; eight of each run side by
    side.

    Parameters
    ----------
    words : uint64 array of shape ``[8 n]``
    rest : uint64 array of shape ``[8]``
        What is behind them, filled up with zeros.
    length : int
        Bytes of the file.
    """
    first = np.zeros(8, np.uint64)
    second = np.zeros(8, np.uint64)
    for start in range(0, words.size, 8):
        for lane in range(8):
            first[lane] += words[start + lane]
            second[lane] += first[lane]
    total = np.uint64(length)
    for lane in range(8):
        first[lane] += rest[lane]
        second[lane] += first[lane]
        for part in (first[lane], second[lane]):
            total = (total ^ part) * np.uint64(0x9E3779B97F4A7C15)
            total ^= total >> np.uint64(29)
    return total
