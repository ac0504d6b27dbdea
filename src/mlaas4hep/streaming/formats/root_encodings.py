"""How the values of an RNTuple's columns are stored in a page, and how they are had back.

Format: https://github.com/root-project/root/blob/master/tree/ntuple/doc/BinaryFormatSpecification.md, "Column Encodings".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.formats.root_blocks import decompress

__all__ = ["ENCODINGS", "INDEX_TYPES", "Encoding", "decode_page"]

TRUNCATED, QUANTISED = 0x1C, 0x1D
"""Floats of fewer bits: the first of a float32, or whole numbers between the smallest and the largest value."""


@dataclass(frozen=True)
class Encoding:
    """How the values of a column are stored.

    Parameters
    ----------
    dtype : numpy.dtype
        Of a value; bool is stored as bits.
    split : bool
        First bytes of all values of a page come first, then all second ones, and so on.
    zigzag : bool
        Signed values are stored as 0, -1, 1, -2, …
    delta : bool
        Each value of a page but the first is stored as the difference from the one before.
    """

    dtype: np.dtype[Any]
    split: bool = False
    zigzag: bool = False
    delta: bool = False


def _encodings() -> dict[int, Encoding]:
    plain = {
        0x00: "?", 0x01: "u1", 0x02: "u1", 0x03: "i1", 0x04: "u1", 0x05: "<i2", 0x06: "<u2", 0x07: "<i4", 0x08: "<u4",
        0x09: "<i8", 0x0A: "<u8", 0x0B: "<f2", 0x0C: "<f4", 0x0D: "<f8", 0x0E: "<u4", 0x0F: "<i8",
        TRUNCATED: "<f4", QUANTISED: "<f4",
    }  # fmt: skip
    split = {0x12: "<u2", 0x14: "<u4", 0x16: "<u8", 0x17: "<f2", 0x18: "<f4", 0x19: "<f8"}
    zigzag = {0x11: "<i2", 0x13: "<i4", 0x15: "<i8"}
    delta = {0x1A: "<u4", 0x1B: "<i8"}
    return (
        {number: Encoding(np.dtype(name)) for number, name in plain.items()}
        | {number: Encoding(np.dtype(name), split=True) for number, name in split.items()}
        | {number: Encoding(np.dtype(name), split=True, zigzag=True) for number, name in zigzag.items()}
        | {number: Encoding(np.dtype(name), split=True, delta=True) for number, name in delta.items()}
    )


ENCODINGS = _encodings()
"""Type of a column in the file → how its values are stored."""

INDEX_TYPES = {0x0E, 0x0F, 0x1A, 0x1B}
"""Columns that hold where each list ends, counted from the beginning of the cluster."""


def decode_page(raw: memoryview, count: int, record: Any) -> npt.NDArray[Any]:
    """Return the values of a page.

    Parameters
    ----------
    raw : memoryview
        The page without its checksum, compressed or not.
    count : int
        Number of its values.
    record : uproot's column record
        With ``type``, one of :data:`ENCODINGS`, ``nbits``, ``min_value`` and ``max_value``.

    Returns
    -------
    array of shape ``[count]``
        Of the encoding's dtype; indices as int64.

    Raises
    ------
    ValueError
        If the page is damaged, or does not hold so many values.
    """
    encoding, bits = ENCODINGS[int(record.type)], int(record.nbits)
    dtype = encoding.dtype
    if record.type not in (TRUNCATED, QUANTISED) and bits != (1 if dtype == np.bool_ else 8 * dtype.itemsize):
        raise ValueError(f"a column of {dtype} has {bits} bits a value")
    size = -(-count * bits // 8)
    data = np.frombuffer(raw, np.uint8) if len(raw) == size else decompress(raw, size)
    if dtype == np.bool_:
        return np.unpackbits(data, count=count, bitorder="little").view(np.bool_)
    if record.type in (TRUNCATED, QUANTISED):
        return _few_bits(data, count, record)
    if encoding.split:
        whole = np.empty(size, np.uint8)
        for place in range(dtype.itemsize):
            whole[place :: dtype.itemsize] = data[place * count : (place + 1) * count]
        data = whole
    values = data.view(dtype)
    if encoding.zigzag:
        unsigned = data.view(dtype.str.replace("i", "u"))
        values = ((unsigned >> 1) ^ -(unsigned & 1)).view(dtype)
    if encoding.delta:
        values = np.cumsum(values, dtype=np.int64)
    return values


def _few_bits(data: npt.NDArray[np.uint8], count: int, record: Any) -> npt.NDArray[np.float32]:
    """Return floats of which only some bits are stored, one value behind the other."""
    bits = int(record.nbits)
    if not 1 <= bits <= 32:
        raise ValueError(f"a column of floats has {bits} bits a value")
    whole = np.zeros((count, 32), np.uint8)
    whole[:, :bits] = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    numbers = np.packbits(whole, axis=1, bitorder="little").reshape(-1).view(np.uint32)
    if record.type == TRUNCATED:
        return np.left_shift(numbers, 32 - bits, dtype=np.uint32).view(np.float32)
    step = float(record.max_value - record.min_value) / ((1 << bits) - 1)
    return (float(record.min_value) + numbers * step).astype(np.float32)
