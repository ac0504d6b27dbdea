"""What one branch looks like over some events; summaries of parts add up to that of the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.formats.base import Column, ColumnType
from mlaas4hep.streaming.inspection.bins import BinCounts, Histogram, count_values
from mlaas4hep.streaming.statistics.statistics import BranchStatistics, summarise_column

__all__ = ["BranchSummary", "summarise_branch"]


@dataclass(frozen=True, slots=True)
class BranchSummary:
    """What one branch looks like.

    Parameters
    ----------
    types : tuple of str
        Type of a value, as numpy names it, with ``[]`` behind that of a list; several where files differ.
    jagged : bool
        Whether an event holds a list of values rather than one.
    whole : bool
        Whether the type is one of whole numbers or bools.
    events : int
    empty : int
        Events without a value.
    nan, infinite : int
        Values that are NaN, and that are ±inf.
    statistics : BranchStatistics
        Of the finite values.
    bins : BinCounts
        Of the finite values.
    lengths : BinCounts
        Of the number of values of an event; empty for a flat branch.
    """

    types: tuple[str, ...] = ()
    jagged: bool = False
    whole: bool = True
    events: int = 0
    empty: int = 0
    nan: int = 0
    infinite: int = 0
    statistics: BranchStatistics = field(default_factory=BranchStatistics)
    bins: BinCounts = field(default_factory=BinCounts)
    lengths: BinCounts = field(default_factory=BinCounts)

    def __add__(self, other: BranchSummary) -> BranchSummary:
        return BranchSummary(
            tuple(dict.fromkeys((*self.types, *other.types))),
            self.jagged or other.jagged,
            self.whole and other.whole,
            self.events + other.events,
            self.empty + other.empty,
            self.nan + other.nan,
            self.infinite + other.infinite,
            self.statistics + other.statistics,
            self.bins + other.bins,
            self.lengths + other.lengths,
        )

    @property
    def values(self) -> int:
        """Number of values, finite or not."""
        return self.statistics.count + self.statistics.not_finite

    @property
    def nan_fraction(self) -> float:
        """Share of the values that are NaN; 0 where there is no value."""
        return self.nan / self.values if self.values else 0.0

    @property
    def empty_fraction(self) -> float:
        """Share of the events that hold no value; 0 where there is no event."""
        return self.empty / self.events if self.events else 0.0

    @property
    def mean_length(self) -> float:
        """Values of an average event; 0 where there is no event."""
        return self.values / self.events if self.events else 0.0

    @property
    def std(self) -> float:
        """Standard deviation of the finite values."""
        return math.sqrt(self.statistics.variance)

    @property
    def median(self) -> float:
        """Median of the finite values, within 1/256 of itself or 1/1000 of where they lie, whichever is better; NaN where there is none."""
        if not self.statistics.count:
            return math.nan
        relative = self.statistics.quantiles[0.5]
        if self.bins.width * 128 > abs(relative):
            return relative
        median = min(max(self.bins.quantile(0.5), self.statistics.minimum), self.statistics.maximum)
        return float(math.floor(median)) if self.whole else median

    def edges(self) -> npt.NDArray[np.float64]:
        """Edges at which the values are drawn."""
        return self.bins.edges(whole=self.whole)

    def histogram(self, edges: npt.NDArray[np.float64] | None = None) -> Histogram:
        """Count the finite values between edges; those that :meth:`edges` chooses where none are given."""
        return self.bins.histogram(self.edges() if edges is None else edges)

    def length_histogram(self) -> Histogram:
        """Count the events by their number of values."""
        return self.lengths.histogram(self.lengths.edges(whole=True))

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as plain values for JSON; None where there is no value."""
        some = self.statistics.count > 0
        low, high = self.statistics.range
        described = {
            "type": " | ".join(self.types),
            "jagged": self.jagged,
            "events": self.events,
            "values": self.values,
            "min": low if some else None,
            "max": high if some else None,
            "mean": self.statistics.mean if some else None,
            "std": self.std if some else None,
            "quantiles": {str(level): value for level, value in self.statistics.quantiles.items()},
            "nan": self.nan,
            "infinite": self.infinite,
            "empty": self.empty,
            "nan_fraction": self.nan_fraction,
            "empty_fraction": self.empty_fraction,
            "widest": self.statistics.widest,
            "histogram": self.histogram().to_dict(),
        }
        if self.jagged:
            described |= {"mean_length": self.mean_length, "lengths": self.length_histogram().to_dict()}
        return described


def summarise_branch(
    column: Column, kind: ColumnType, events: int, flat_offsets: npt.NDArray[np.int64]
) -> BranchSummary:
    """Return the summary of a branch over consecutive events.

    Parameters
    ----------
    column : Column
    kind : ColumnType
        Of the branch.
    events : int
        Number of events.
    flat_offsets : int64 array of shape ``[events + 1]``
        ``0 … events``, made once for all flat branches.
    """
    statistics, _ = summarise_column(column, events, np.zeros(events, np.bool_), flat_offsets)
    nan = int(np.isnan(column.content).sum()) if column.content.dtype.kind == "f" else 0
    lengths = None if column.offsets is None else np.bincount(np.diff(column.offsets))
    return BranchSummary(
        (str(kind),),
        kind.jagged,
        kind.dtype.kind in "biu",
        events,
        0 if lengths is None or not events else int(lengths[0]),
        nan,
        statistics.not_finite - nan,
        statistics,
        count_values(column.content),
        BinCounts() if lengths is None else BinCounts(0, np.flatnonzero(lengths), lengths[lengths > 0]),
    )
