"""Mergeable one-pass statistics of a branch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.formats.base import Column
from mlaas4hep.streaming.statistics.sketch import LEVELS, QuantileSketch, sketch_column

__all__ = ["BranchStatistics", "summarise_column"]


@dataclass(frozen=True, slots=True)
class BranchStatistics:
    """What is known of the values of a branch.

    Parameters
    ----------
    count : int
        Number of finite values.
    minimum, maximum : float
        Over the finite values; +inf and -inf where there is none.
    mean : float
        Of the finite values; 0 where there is none.
    squares : float
        Sum of squared deviations from the mean.
    not_finite : int
        Number of values that are NaN or infinite.
    widest : int
        Values of the longest event; 1 for a flat branch.
    sketch : QuantileSketch
        Counts from which quantiles follow; empty when the statistics come from a file.
    stored_quantiles : mapping of float to float, or None
        Level → quantile, when the statistics come from a file; None where quantiles cannot be known, since such statistics were merged.

    Examples
    --------
    >>> left = BranchStatistics(2, 1.0, 3.0, 2.0, 2.0, 0, 1)
    >>> right = BranchStatistics(1, 5.0, 5.0, 5.0, 0.0, 1, 1)
    >>> (left + right).mean, (left + right).variance
    (3.0, 2.6666666666666665)
    """

    count: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0
    not_finite: int = 0
    widest: int = 0
    sketch: QuantileSketch = field(default_factory=QuantileSketch)
    stored_quantiles: Mapping[float, float] | None = field(default_factory=dict)

    def __add__(self, other: BranchStatistics) -> BranchStatistics:
        count = self.count + other.count
        difference = other.mean - self.mean
        share = other.count / count if count else 0.0
        lost = self._without_bins or other._without_bins
        return BranchStatistics(
            count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.mean + difference * share,
            self.squares + other.squares + difference * difference * self.count * share,
            self.not_finite + other.not_finite,
            max(self.widest, other.widest),
            QuantileSketch() if lost else self.sketch + other.sketch,
            None if lost else {},
        )

    @property
    def _without_bins(self) -> bool:
        """Whether there are, or were, quantiles but nothing to merge them from."""
        return self.stored_quantiles is None or (bool(self.stored_quantiles) and not len(self.sketch.bins))

    @property
    def quantiles(self) -> Mapping[float, float]:
        """Level → quantile for each of :data:`~mlaas4hep.streaming.statistics.sketch.LEVELS`, within 1/256 of itself; empty where none is known."""
        if not len(self.sketch.bins):
            return self.stored_quantiles or {}
        return {level: min(max(self.sketch.quantile(level), self.minimum), self.maximum) for level in LEVELS}

    @property
    def variance(self) -> float:
        """Of the finite values, with ``count`` in the denominator; 0 where there is none."""
        return self.squares / self.count if self.count else 0.0

    @property
    def range(self) -> tuple[float, float]:
        """Minimum and maximum; both 0 where there is no finite value."""
        return (self.minimum, self.maximum) if self.count else (0.0, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return count, mean, standard deviation and the squares behind it, number of values that are not finite, and quantiles, for JSON."""
        return {
            "count": self.count,
            "mean": self.mean,
            "std": math.sqrt(self.variance),
            "squares": self.squares,
            "not_finite": self.not_finite,
            "quantiles": None
            if self.stored_quantiles is None
            else {str(level): value for level, value in self.quantiles.items()},
        }


def summarise_column(
    column: Column, events: int, chosen: npt.NDArray[np.bool_], flat_offsets: npt.NDArray[np.int64]
) -> tuple[BranchStatistics, BranchStatistics]:
    """Return the statistics of a column over all events, and over the chosen ones.

    Parameters
    ----------
    column : Column
    events : int
        Number of events.
    chosen : bool array of shape ``[events]``
    flat_offsets : int64 array of shape ``[events + 1]``
        ``0 … events``, made once for all flat columns.
    """
    from mlaas4hep.streaming.encoding import kernels

    offsets = flat_offsets if column.offsets is None else column.offsets
    content = column.content.view(np.uint8) if column.content.dtype == np.bool_ else column.content
    everything = np.empty(kernels.STATISTICS)
    selected = np.empty(kernels.STATISTICS)
    widest_chosen = int(kernels.summarise(content, offsets, chosen, everything, selected))
    widest = int(np.diff(offsets).max(initial=0))
    sketch, sketch_chosen = sketch_column(column, chosen, flat_offsets)
    return _statistics(everything, widest, sketch), _statistics(selected, widest_chosen, sketch_chosen)


def _statistics(filled: npt.NDArray[np.float64], widest: int, sketch: QuantileSketch) -> BranchStatistics:
    count, low, high, mean, squares, bad = filled.tolist()
    return BranchStatistics(int(count), low, high, mean, squares, int(bad), widest, sketch)
