"""Baskets of a TTree straight into columns: what uproot does for any branch, for numbers only and with less work for each basket.

uproot opens the file, finds the tree and interprets its branches; only the path that every event takes is here. It is worth having because a
cluster of a NanoAOD has a thousand small baskets: read in few large pieces and decoded with a handful of calls each, a pass takes about half as
long (``benchmarks/streaming.py``). Branches that are anything but numbers or lists of numbers are left to uproot.

Formats: TKey, https://root.cern/doc/master/classTKey.html; TBasket, https://root.cern/doc/master/classTBasket.html.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.numerical import AsDtype

from mlaas4hep.streaming.formats.base import Column
from mlaas4hep.streaming.formats.root_blocks import decompress
from mlaas4hep.streaming.formats.root_bytes import Place

__all__ = ["BasketBranch", "basket_branch", "places_of", "read_baskets"]

KEY = struct.Struct(">ihiIhh")
"""Bytes with the key, version, bytes without compression, date, length of the key, cycle."""

BASKET = struct.Struct(">HiIIiB")
"""At the end of a basket's key: version, buffer size, offsets' size, events, end of the values (counted with the key), flag."""


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


def places_of(start: int, stop: int, branches: Iterable[BasketBranch]) -> set[Place]:
    """Return where the baskets of some events and branches are."""
    return {(int(branch.seek[i]), int(branch.size[i])) for branch in branches for i in _baskets_of(branch, start, stop)}


def read_baskets(
    raw: Mapping[Place, memoryview], start: int, stop: int, branches: Mapping[str, BasketBranch]
) -> dict[str, Column]:
    """Decode the events ``start … stop - 1`` of some branches.

    Parameters
    ----------
    raw : mapping of Place to memoryview
        The bytes at :func:`places_of` these events and branches.
    start, stop : int
        The events.
    branches : mapping of str to BasketBranch

    Raises
    ------
    ValueError
        If a basket is not what the tree says of it, or is damaged.
    """
    columns = {}
    for name, branch in branches.items():
        numbers = _baskets_of(branch, start, stop)
        try:
            baskets = [raw[int(branch.seek[i]), int(branch.size[i])] for i in numbers]
            columns[name] = _column(branch, baskets, numbers, start, stop)
        except (ValueError, struct.error) as error:
            raise ValueError(f"branch '{name}': {error}") from error
    return columns


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
    return decompress(raw[key_length:], plain_size), border, key_length


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
