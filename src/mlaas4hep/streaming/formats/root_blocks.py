"""ROOT's compressed blocks, of which baskets of a TTree and pages of an RNTuple are made; checksums are verified where a block has one.

Format: https://root.cern/doc/master/RZip_8cxx_source.html.
"""

from __future__ import annotations

import lzma
import zlib
from typing import Any

import cramjam
import numpy as np
import numpy.typing as npt
import xxhash

from mlaas4hep.streaming.stream.timing import stage

__all__ = ["decompress"]

BLOCK_HEADER = 9
LZMA_MEMORY = 1 << 28
"""Bytes that a stream of LZMA may ask for; ROOT's highest level needs 65 MiB."""


def decompress(raw: memoryview, size: int) -> npt.NDArray[np.uint8]:
    r"""Decompress blocks, each with a header of 9 bytes: method, 2 × 3 bytes of sizes.

    Parameters
    ----------
    raw : memoryview
        The blocks, and nothing behind them.
    size : int
        Bytes that they must hold.

    Returns
    -------
    uint8 array of shape ``[size]``

    Raises
    ------
    ValueError
        If the blocks are damaged.

    Examples
    --------
    >>> packed = zlib.compress(b"muon" * 100)
    >>> sizes = len(packed).to_bytes(3, "little") + (400).to_bytes(3, "little")
    >>> decompress(memoryview(b"ZL\x08" + sizes + packed), 400)[:4].tobytes()
    b'muon'
    """
    blocks = []
    position = total = 0
    while position < len(raw):
        if position + BLOCK_HEADER > len(raw):
            raise ValueError("a compressed block is cut off")
        packed = int.from_bytes(raw[position + 3 : position + 6], "little")
        plain = int.from_bytes(raw[position + 6 : position + 9], "little")
        blocks.append((bytes(raw[position : position + 2]), position + BLOCK_HEADER, packed, plain))
        position += BLOCK_HEADER + packed
        total += plain
    # Compared before anything is allocated: a block says at most 16 MB, and needs bytes of the file to say it.
    if position != len(raw) or total != size:
        raise ValueError(
            f"compressed blocks of {position} bytes for {total} do not fit the {len(raw)} bytes for {size} that are due"
        )
    data = np.empty(size, np.uint8)
    into = data.data
    filled = 0
    with stage("decompress"):
        for method, begin, packed, plain in blocks:
            try:
                _decompress_block(method, raw[begin : begin + packed], into[filled : filled + plain])
            except (zlib.error, lzma.LZMAError, cramjam.DecompressionError) as error:
                raise ValueError(f"a compressed block is damaged: {error}") from error
            filled += plain
    return data


def _decompress_block(method: bytes, packed: memoryview, out: memoryview) -> None:
    written: Any
    if method == b"ZS":
        written = cramjam.zstd.decompress_into(packed, out)
    elif method == b"L4":
        checksum, packed = bytes(packed[:8]), packed[8:]
        if xxhash.xxh64_digest(packed) != checksum:
            raise ValueError("the checksum of a compressed block is wrong")
        written = cramjam.lz4.decompress_block_into(packed, out, output_len=len(out))
    elif method == b"ZL":
        written = _decompress_at_most(zlib.decompressobj(), packed, out)
    elif method == b"XZ":
        written = _decompress_at_most(lzma.LZMADecompressor(memlimit=LZMA_MEMORY), packed, out)
    else:
        raise ValueError(f"a block is compressed by a method that is not known: {method!r}")
    if written != len(out):
        raise ValueError(f"a compressed block gave {written} bytes where its header says {len(out)}")


def _decompress_at_most(decompressor: Any, packed: memoryview, out: memoryview) -> int:
    """Decompress into ``out``, and not on and on where a block holds more than it says: one byte too many shows that."""
    plain = decompressor.decompress(packed, len(out) + 1)
    if not decompressor.eof:
        raise ValueError("a compressed block does not end where its header says")
    if len(plain) == len(out):
        out[:] = plain
    return len(plain)
