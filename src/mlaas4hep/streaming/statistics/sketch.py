"""Quantiles of any number of values in bounded memory: a histogram with one bin for each bfloat16 number.

A float32 without the lower half of its bits is a bfloat16: a sign, the exponent and 7 bits of the mantissa. Bins of that form are as wide everywhere
relative to the value, at most 1/128 of it, need no range to be known beforehand, and add up exactly, so pieces can be counted anywhere and in any
order.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.formats.base import Column

__all__ = ["LEVELS", "QuantileSketch", "sketch_column"]

LEVELS = (0.01, 0.05, 0.16, 0.25, 0.5, 0.75, 0.84, 0.95, 0.99)
"""Quantiles that are written into specs: median, the central 68 %, 90 % and 98 %, and the quartiles."""

BINS = 2**16
_NO_BINS = np.empty(0, np.uint16)
_NO_COUNTS = np.empty(0, np.int64)


class _Scratch(threading.local):
    """Bins to count in, one set a thread; all 0 between two uses, since clearing a megabyte costs more than most columns."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, BINS), np.int64)


_scratch = _Scratch()


@dataclass(frozen=True, slots=True, eq=False)
class QuantileSketch:
    """Counts of values by bin.

    Parameters
    ----------
    bins : uint16 array of shape ``[occupied]``
        Numbers of the occupied bins, rising; a larger value has a larger number.
    counts : int64 array of shape ``[occupied]``
        Values in each.
    whole : bool
        Whether all values are whole numbers; then so are the quantiles.

    Examples
    --------
    >>> values = np.arange(1, 1001, dtype=np.float32)
    >>> everything, _ = sketch_column(Column(values, None), np.ones(1000, bool), np.arange(1001))
    >>> everything.quantile(0.5)
    501.0
    """

    bins: npt.NDArray[np.uint16] = field(default_factory=lambda: _NO_BINS)
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: _NO_COUNTS)
    whole: bool = False

    def __add__(self, other: QuantileSketch) -> QuantileSketch:
        if not len(other.bins):
            return self
        if not len(self.bins):
            return other
        bins, place = np.unique(np.concatenate([self.bins, other.bins]), return_inverse=True)
        counts = np.zeros(len(bins), np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return QuantileSketch(bins, counts, self.whole and other.whole)

    def quantile(self, level: float) -> float:
        """Return the value below which a share ``level`` of the values lies, within 1/256 of itself; 0 where there is no value.

        Parameters
        ----------
        level : float
            In ``[0, 1]``.
        """
        if not len(self.bins):
            return 0.0
        upto = np.cumsum(self.counts)
        place = min(int(np.searchsorted(upto, level * upto[-1], side="right")), len(upto) - 1)
        middle = _middle(int(self.bins[place]))
        return float(round(middle)) if self.whole else middle


def sketch_column(
    column: Column, chosen: npt.NDArray[np.bool_], flat_offsets: npt.NDArray[np.int64]
) -> tuple[QuantileSketch, QuantileSketch]:
    """Count the values of a column over all events, and over the chosen ones; what float32 cannot hold does not count.

    Parameters
    ----------
    column : Column
    chosen : bool array of shape ``[events]``
    flat_offsets : int64 array of shape ``[events + 1]``
        ``0 … events``, made once for all flat columns.
    """
    from mlaas4hep.streaming.encoding import kernels

    with np.errstate(over="ignore"):
        bits = np.ascontiguousarray(column.content.astype(np.float32, copy=False)).view(np.uint32)
    counts = _scratch.counts
    low, high = 0, BINS - 1
    whole = column.content.dtype.kind in "biu"
    try:
        low, high = kernels.count_bins(bits, flat_offsets if column.offsets is None else column.offsets, chosen, counts)
        if low > high:
            return QuantileSketch(), QuantileSketch()
        return _occupied(counts[0], low, high, whole), _occupied(counts[1], low, high, whole)
    finally:
        counts[:, low : high + 1] = 0


def _occupied(counts: npt.NDArray[np.int64], low: int, high: int, whole: bool) -> QuantileSketch:
    bins = np.flatnonzero(counts[low : high + 1]) + low
    return QuantileSketch(bins.astype(np.uint16), counts[bins], whole)


def _middle(number: int) -> float:
    """Value in the middle of a bin; 0 for the bin that 0 begins."""
    inner, outer = _edge(number), _edge(number + 1 if number >= 0x8000 else number - 1)
    largest = float(np.finfo(np.float32).max)
    return 0.0 if inner == 0 else min(max((inner + outer) / 2, -largest), largest)


def _edge(number: int) -> float:
    """Value of a bin that is nearest to 0: the inverse of the order that :func:`mlaas4hep.streaming.encoding.kernels.count_bins` gives to bits."""
    upper = number - 0x8000 if number >= 0x8000 else 0xFFFF - number
    return float(np.array([upper << 16], np.uint32).view(np.float32)[0])
