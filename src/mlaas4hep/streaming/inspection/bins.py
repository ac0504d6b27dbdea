"""Histograms whose range need not be known beforehand.

A bin is as wide as a power of two and begins at a multiple of its width, so bins of one width nest in those of any larger one. Only occupied bins are
kept; when there are too many, all become twice as wide. Counts are therefore exact, add up in any order and over any pieces, and need bounded
memory; a far-off value (a ``-999`` for "not known") costs one bin and leaves the others as narrow as they were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_OCCUPIED", "BinCounts", "Histogram", "count_values"]

MAX_OCCUPIED = 2048
"""Occupied bins of a branch at most: enough that any stretch that holds most of the values can be drawn."""

SHOWN = 60
"""Bins of a drawn histogram at most; at least two thirds of it, where the values can be told apart so well."""

WHOLE_SHOWN = 80
"""Whole numbers that get a bin each at most."""

FEW = 64
"""Where fewer bins of a first try are occupied, the try may have been too coarse."""

FAR = 2.5
"""Of a range that is so many times that of the central 99 %, the tails are counted and not drawn."""

DENSE = 2**18
FINEST = -1000
MANTISSA = 53

Int64 = npt.NDArray[np.int64]
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges, ready to be drawn.

    Parameters
    ----------
    edges : float64 array of shape ``[bins + 1]``
    counts : int64 array of shape ``[bins]``
        Values with ``edges[i] <= value < edges[i + 1]``.
    below, above : int
        Values outside.
    """

    edges: npt.NDArray[np.float64]
    counts: Int64
    below: int = 0
    above: int = 0

    @property
    def total(self) -> int:
        """Number of values, also of those outside."""
        return int(self.counts.sum()) + self.below + self.above

    def to_dict(self) -> dict[str, Any]:
        """Return the histogram as plain values for JSON."""
        return {
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "below": self.below,
            "above": self.above,
        }


@dataclass(frozen=True, slots=True, eq=False)
class BinCounts:
    """Counts of values in bins of one width, of any range.

    Parameters
    ----------
    exponent : int
        A bin is ``2**exponent`` wide.
    bins : int64 array of shape ``[occupied]``
        Numbers of the occupied bins, rising; bin ``k`` begins at ``k * 2**exponent``.
    counts : int64 array of shape ``[occupied]``

    Examples
    --------
    >>> left = count_values(np.array([0.0, 1.0, 1.5]))
    >>> right = count_values(np.array([1.0, 200.0]))
    >>> histogram = (left + right).histogram(np.array([0.0, 1.0, 2.0]))
    >>> histogram.counts.tolist(), histogram.above
    ([1, 3], 1)
    """

    exponent: int = FINEST
    bins: Int64 = field(default_factory=lambda: _NONE)
    counts: Int64 = field(default_factory=lambda: _NONE)

    def __add__(self, other: BinCounts) -> BinCounts:
        if not len(other.bins):
            return self
        if not len(self.bins):
            return other
        exponent = max(self.exponent, other.exponent)
        parts = [part.coarsened(exponent) for part in (self, other)]
        bins, place = np.unique(np.concatenate([part.bins for part in parts]), return_inverse=True)
        counts = np.zeros(len(bins), np.int64)
        np.add.at(counts, place, np.concatenate([part.counts for part in parts]))
        return BinCounts(exponent, bins, counts)._bounded()

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self.exponent)

    def coarsened(self, exponent: int) -> BinCounts:
        """Return the counts in bins of another width, not smaller than the present one."""
        if exponent == self.exponent:
            return self
        return _joined(exponent, self.bins >> min(exponent - self.exponent, 63), self.counts)

    def histogram(self, edges: npt.NDArray[np.float64]) -> Histogram:
        """Return the counts between edges; exact where the edges are some of a bin's own, as :meth:`edges` chooses them.

        Parameters
        ----------
        edges : float64 array of shape ``[bins + 1]``
            Rising.
        """
        if not len(self.bins):
            return Histogram(edges, np.zeros(len(edges) - 1, np.int64))
        place = np.searchsorted(edges, np.ldexp(self.bins.astype(np.float64), self.exponent), side="right")
        counts = np.zeros(len(edges) + 1, np.int64)
        np.add.at(counts, place, self.counts)
        return Histogram(edges, counts[1:-1].copy(), int(counts[0]), int(counts[-1]))

    def quantile(self, level: float) -> float:
        """Return the middle of the bin below which a share ``level`` of the values lies; NaN where there is no value."""
        if not len(self.bins):
            return math.nan
        upto = np.cumsum(self.counts)
        place = min(int(np.searchsorted(upto, level * upto[-1], side="right")), len(upto) - 1)
        return math.ldexp(float(self.bins[place]) + 0.5, self.exponent)

    def edges(self, *, whole: bool = False) -> npt.NDArray[np.float64]:
        """Choose edges that show where the values are: all of them, or without far tails that would leave one bin for the rest.

        Parameters
        ----------
        whole : bool
            Whether the values are whole numbers; few different ones get a bin each, with the number in its middle.

        Returns
        -------
        float64 array of shape ``[bins + 1]``
        """
        if not len(self.bins):
            return np.array([0.0, 1.0])
        low, high = self._stretch()
        if whole and self.exponent <= 0:
            least, most = low >> -self.exponent, high >> -self.exponent
            if most - least < WHOLE_SHOWN:
                return np.arange(least, most + 2, dtype=np.float64) - 0.5
            low, high, unit = least, most, 0
        else:
            unit = self.exponent
        if low == high:
            # One value, or several that the bins cannot tell apart: a bin that can be seen.
            middle = math.ldexp(float(low), unit)
            half = max(0.5, abs(middle) / 100)
            return np.array([middle - half, middle + half])
        step = _step(high - low + 1)
        numbers = low + step * np.arange(-(-(high - low + 1) // step) + 1)
        with np.errstate(over="ignore"):
            edges = np.ldexp(numbers.astype(np.float64), unit)
        largest = np.finfo(np.float64).max
        return np.asarray(np.clip(edges, -largest, largest), np.float64)

    def _stretch(self) -> tuple[int, int]:
        """First and last bin to show."""
        first, last = int(self.bins[0]), int(self.bins[-1])
        upto = np.cumsum(self.counts)
        low, high = (int(self.bins[np.searchsorted(upto, share * upto[-1], side="right")]) for share in (0.005, 0.995))
        core = high - low
        if core and last - first > FAR * core:
            return max(first, low - core // 2), min(last, high + core // 2)
        return first, last

    def _bounded(self) -> BinCounts:
        bounded = self
        while len(bounded.bins) > MAX_OCCUPIED:
            bounded = bounded.coarsened(bounded.exponent + 1)
        return bounded


def count_values(values: npt.NDArray[Any]) -> BinCounts:
    """Count values; NaN and ±inf do not count.

    Parameters
    ----------
    values : number array of shape ``[values]``
    """
    from mlaas4hep.streaming.inspection import kernels

    whole = values.dtype.kind in "biu"
    numbers = np.ascontiguousarray(values, np.float64)
    finite = numbers if whole else numbers[np.isfinite(numbers)]
    if not len(finite):
        return BinCounts()
    low, high = float(finite.min()), float(finite.max())
    finest = _finest(low, high, whole)
    exponent = _narrowest(low, high, finest, min(max(64 * len(finite), 4 * MAX_OCCUPIED), DENSE))
    first = _bin_of(low, exponent)
    dense = np.zeros(_bin_of(high, exponent) - first + 1, np.int64)
    kernels.count_bins(finite, math.ldexp(1.0, -exponent), first, dense)
    occupied = np.flatnonzero(dense)
    if len(occupied) < FEW and exponent > finest:
        # Few different values, or a far-off one beside many: equal values are counted first, which takes longer and needs no range.
        different, counts = np.unique(finite, return_counts=True)
        bins = np.floor(np.ldexp(different, -finest)).astype(np.int64)
        bins[(different < 0) & (bins == 0)] = -1
        return _joined(finest, bins, counts.astype(np.int64))._bounded()
    return BinCounts(exponent, occupied + first, dense[occupied])._bounded()


def _step(span: int) -> int:
    """Return how many bins become one in a drawing, so that as little as possible of its last one lies outside the span."""
    smallest = -(-span // SHOWN)
    return min(
        range(smallest, max(smallest, 3 * span // (2 * SHOWN)) + 1)[:1000], key=lambda step: (-span % step) / step
    )


def _joined(exponent: int, bins: Int64, counts: Int64) -> BinCounts:
    """Return the counts of bins that rise, and of which some may be the same."""
    starts = np.flatnonzero(np.diff(bins, prepend=bins[:1] - 1))
    return BinCounts(exponent, bins[starts], np.add.reduceat(counts, starts))


def _finest(low: float, high: float, whole: bool) -> int:
    """Exponent of the narrowest width at which the numbers of all bins are exact."""
    finest = max(math.frexp(max(abs(low), abs(high)))[1] - MANTISSA, FINEST)
    return max(finest, 0) if whole else finest


def _narrowest(low: float, high: float, finest: int, bins: int) -> int:
    """Exponent of the narrowest width, not below the finest, with which so many bins cover a range."""
    exponent = max(finest, math.frexp(high / 2 - low / 2)[1] - math.frexp(bins)[1]) if high > low else finest
    while _bin_of(high, exponent) - _bin_of(low, exponent) >= bins:
        exponent += 1
    return exponent


def _bin_of(value: float, exponent: int) -> int:
    """Return the number of a value's bin; a negative one so small beside the width that the quotient is 0 is in the last below 0."""
    number = math.floor(math.ldexp(value, -exponent))
    return -1 if value < 0 and number == 0 else number
