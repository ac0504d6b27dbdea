"""Baskets of a TTree straight into columns: what uproot does for any branch, for numbers only and with less work for each basket.

uproot opens the file, finds the tree and interprets its branches; only the path that every event takes is here. It is worth having because a
cluster of a NanoAOD has a thousand small baskets: read in few large pieces and decoded with a handful of calls each, a pass takes about half as
long (``benchmarks/streaming.py``). Branches that are anything but numbers or lists of numbers are left to uproot.

Formats: TKey, https://root.cern/doc/master/classTKey.html; TBasket, https://root.cern/doc/master/classTBasket.html; compressed blocks,
https://root.cern/doc/master/RZip_8cxx_source.html.
"""

from __future__ import annotations

import lzma
import os
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cramjam
import numpy as np
import numpy.typing as npt
import xxhash
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.numerical import AsDtype

from mlaas4hep.streaming.formats.base import Column

__all__ = ["BasketBranch", "Baskets", "LocalBaskets", "Place", "basket_branch", "check_within", "places_of"]

Place = tuple[int, int, str, int]
"""Position and bytes of a basket in the file, its branch and its number there."""

KEY = struct.Struct(">ihiIhh")
"""Bytes with the key, version, bytes without compression, date, length of the key, cycle."""

BASKET = struct.Struct(">HiIIiB")
"""At the end of a basket's key: version, buffer size, offsets' size, events, end of the values (counted with the key), flag."""

BLOCK_HEADER = 9
MAX_GAP = 64 * 1024
MAX_PIECE = 8 * 2**20


@dataclass(frozen=True)
class BasketBranch:
    """A branch of numbers and where its baskets are.

    Parameters
    ----------
    stored, dtype : numpy.dtype
        Type of a value in the file and in memory.
    jagged : bool
        Whether an event holds a list.
    entries : int64 array of shape ``[baskets + 1]``
        First entry of each basket, and the number of entries.
    seek, size : int64 array of shape ``[baskets]``
        Position and bytes of each basket in the file.
    """

    stored: np.dtype[Any]
    dtype: np.dtype[Any]
    jagged: bool
    entries: npt.NDArray[np.int64]
    seek: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]


def basket_branch(branch: Any, entries: int) -> BasketBranch | None:
    """Describe a branch of uproot's; None where it is not of plain numbers, or some of its baskets stand within the tree itself."""
    interpretation = branch.interpretation
    jagged = isinstance(interpretation, AsJagged)
    content = interpretation.content if jagged else interpretation
    if not isinstance(content, AsDtype) or content.from_dtype.subdtype or (jagged and interpretation.header_bytes):
        return None
    count = int(branch.num_baskets)
    seek, size, first = (
        np.asarray(branch.member(name)[:count], np.int64) for name in ("fBasketSeek", "fBasketBytes", "fBasketEntry")
    )
    if (
        len(branch.embedded_baskets)
        or count == 0
        or len(first) != count
        or not (seek > 0).all()
        or not (size > 0).all()
    ):
        return None
    bounds = np.append(first, np.int64(entries))
    if bounds[0] != 0 or not (np.diff(bounds) > 0).all():
        return None
    return BasketBranch(content.from_dtype, content.to_dtype.newbyteorder("="), jagged, bounds, seek, size)


class Baskets(ABC):
    """Reads baskets of one file; used by one thread at a time."""

    @abstractmethod
    def close(self) -> None:
        """Give the file back."""

    @abstractmethod
    def fetch(self, places: Sequence[Place]) -> dict[tuple[str, int], memoryview]:
        """Return the bytes of baskets, by branch and number.

        Raises
        ------
        ValueError
            If one lies beyond the end of the file.
        """

    def read(self, start: int, stop: int, branches: Mapping[str, BasketBranch]) -> dict[str, Column]:
        """Read the events ``start … stop - 1`` of some branches.

        Raises
        ------
        ValueError
            If a basket is not what the tree says of it, or is damaged.
        """
        raw = self.fetch(places_of(start, stop, branches))
        columns = {}
        for name, branch in branches.items():
            numbers = _baskets_of(branch, start, stop)
            try:
                columns[name] = _column(branch, [raw[name, i] for i in numbers], numbers, start, stop)
            except (ValueError, struct.error, zlib.error, lzma.LZMAError, cramjam.DecompressionError) as error:
                raise ValueError(f"branch '{name}': {error}") from error
        return columns


class LocalBaskets(Baskets):
    """Baskets of a local file.

    Parameters
    ----------
    path : str
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def fetch(self, places: Sequence[Place]) -> dict[tuple[str, int], memoryview]:
        """Read baskets; those that lie close together come in one piece."""
        check_within(places, os.fstat(self._file).st_size)
        fetched: dict[tuple[str, int], memoryview] = {}
        position = 0
        while position < len(places):
            begin, size = places[position][:2]
            end = begin + size
            following = position + 1
            while following < len(places):
                seek, size = places[following][:2]
                if seek - end > MAX_GAP or seek + size - begin > MAX_PIECE:
                    break
                end = max(end, seek + size)
                following += 1
            piece = memoryview(os.pread(self._file, end - begin, begin))
            if len(piece) < end - begin:
                raise ValueError(
                    f"the file ends at byte {begin + len(piece)}, before a basket that reaches to byte {end}"
                )
            for seek, size, name, index in places[position:following]:
                fetched[name, index] = piece[seek - begin : seek - begin + size]
            position = following
        return fetched


def places_of(start: int, stop: int, branches: Mapping[str, BasketBranch]) -> list[Place]:
    """Return where the baskets of some events and branches are, in the file's order."""
    return sorted(
        (int(branch.seek[i]), int(branch.size[i]), name, i)
        for name, branch in branches.items()
        for i in _baskets_of(branch, start, stop)
    )


def check_within(places: Sequence[Place], size: int) -> None:
    """Refuse baskets that lie beyond the end of a file, before anything is allocated for them.

    Raises
    ------
    ValueError
        If one does.
    """
    reach = max((seek + length for seek, length, _, _ in places), default=0)
    if reach > size:
        raise ValueError(f"the file ends at byte {size}, before a basket that reaches to byte {reach}")


def _baskets_of(branch: BasketBranch, start: int, stop: int) -> range:
    first = int(np.searchsorted(branch.entries, start, side="right")) - 1
    last = int(np.searchsorted(branch.entries, stop, side="left"))
    return range(first, last)


def _column(branch: BasketBranch, baskets: Sequence[memoryview], numbers: range, start: int, stop: int) -> Column:
    """Decode baskets that follow one another and cut out the events that are wanted."""
    values = []
    offsets = [np.zeros(1, np.int64)]
    total = 0
    itemsize = branch.stored.itemsize
    for raw, number in zip(baskets, numbers, strict=True):
        events = int(branch.entries[number + 1] - branch.entries[number])
        data, border, key_length = _decode(raw, events)
        if border % itemsize or (not branch.jagged and border != events * itemsize):
            raise ValueError(
                f"basket {number} holds {border} bytes of values, which is no {events} events of {branch.stored}"
            )
        values.append(data[:border].view(branch.stored))
        if branch.jagged:
            offsets.append(_offsets(data, border, key_length, events, itemsize) + total)
        total += border // itemsize
    content = np.empty(total, branch.dtype)
    filled = 0
    for part in values:
        content[filled : filled + len(part)] = part
        filled += len(part)
    cut = slice(start - int(branch.entries[numbers.start]), stop - int(branch.entries[numbers.start]))
    if not branch.jagged:
        return Column(content[cut], None)
    bounds = np.concatenate(offsets)[cut.start : cut.stop + 1]
    return Column(content[bounds[0] : bounds[-1]], bounds - bounds[0] if bounds[0] else bounds)


def _decode(raw: memoryview, events: int) -> tuple[npt.NDArray[np.uint8], int, int]:
    """Return the bytes of a basket without compression, where its values end, and the length of its key."""
    size, _version, plain_size, _date, key_length, _cycle = KEY.unpack_from(raw)
    if size != len(raw) or not KEY.size + BASKET.size < key_length <= size or plain_size < 0:
        raise ValueError("a basket's key is damaged")
    _, _, _, found, last, _ = BASKET.unpack_from(raw, key_length - BASKET.size)
    border = last - key_length
    if found != events:
        raise ValueError(f"a basket holds {found} events where the tree has {events}")
    if not 0 <= border <= plain_size:
        raise ValueError("a basket's values end outside of it")
    if size - key_length == plain_size:
        return np.frombuffer(raw, np.uint8, plain_size, key_length), border, key_length
    return _decompress(raw[key_length:], plain_size), border, key_length


def _decompress(raw: memoryview, size: int) -> npt.NDArray[np.uint8]:
    """Decompress ROOT's blocks, each with a header of 9 bytes: method, 2 × 3 bytes of sizes."""
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
            f"compressed blocks of {position} bytes for {total} do not fit a basket of {len(raw)} bytes for {size}"
        )
    data = np.empty(size, np.uint8)
    into = data.data
    filled = 0
    for method, begin, packed, plain in blocks:
        _decompress_block(method, raw[begin : begin + packed], into[filled : filled + plain])
        filled += plain
    return data


def _decompress_block(method: bytes, packed: memoryview, out: memoryview) -> None:
    if method == b"ZS":
        written = cramjam.zstd.decompress_into(packed, out)
    elif method == b"L4":
        checksum, packed = bytes(packed[:8]), packed[8:]
        if xxhash.xxh64_digest(packed) != checksum:
            raise ValueError("the checksum of a compressed block is wrong")
        written = cramjam.lz4.decompress_block_into(packed, out, output_len=len(out))
    elif method in (b"ZL", b"XZ"):
        plain = zlib.decompress(packed, bufsize=len(out)) if method == b"ZL" else lzma.decompress(packed)
        written = len(plain)
        if written == len(out):
            out[:] = plain
    else:
        raise ValueError(f"a block is compressed by a method that is not known: {method!r}")
    if written != len(out):
        raise ValueError(f"a compressed block gave {written} bytes where its header says {len(out)}")


def _offsets(
    data: npt.NDArray[np.uint8], border: int, key_length: int, events: int, itemsize: int
) -> npt.NDArray[np.int64]:
    """Return where each event of a basket ends, counted in values: behind the values stand their number and the bounds in bytes, with the key."""
    stored = data[border:]
    if len(stored) != 4 * (events + 2):
        raise ValueError(f"a basket has {len(stored)} bytes of bounds for {events} events")
    bounds = stored.view(">i4")[1:].astype(np.int64)
    bounds -= key_length
    bounds[events] = border  # where ROOT writes 0
    if bounds[0] != 0 or (np.diff(bounds) < 0).any():
        raise ValueError("the bounds of a basket's events are damaged")
    return bounds[1:] // itemsize
