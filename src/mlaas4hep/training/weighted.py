"""Means of weighted events, with their errors, and what weights with signs mean for them.

Generators at next-to-leading order give some events a negative weight: such an event cancels another one. Sums of weights are then still what is
expected, and everything here is made of sums: a mean is ``sum(w v) / sum(w)``, and its error adds the squares of what each event contributes,
whatever its sign. The effective number of events, ``sum(w)² / sum(w²)``, is smaller than the number of events and says how many events of weight
one would be as good. Where a sum is not positive, nothing can be said, and the answer is NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["effective_events", "mean_with_error"]

Values = npt.NDArray[np.generic]


def effective_events(weight: npt.NDArray[np.floating[Any]]) -> float:
    """Return the number of events of weight one that would be as good: ``sum(w)² / sum(w²)``; 0 if the sum is not positive.

    Examples
    --------
    >>> effective_events(np.array([2.0, 2.0])), effective_events(np.array([1.0, 1.0, 1.0, -1.0]))
    (2.0, 1.0)
    """
    # Relative to the largest, so that neither sums nor squares of tiny or huge weights leave the range of numbers.
    largest = float(np.abs(weight).max(initial=0.0))
    if not largest > 0:
        return 0.0
    relative = np.asarray(weight, np.float64) / largest
    total = float(relative.sum())
    return total**2 / float(np.square(relative).sum()) if total > 0 else 0.0


def mean_with_error(
    values: npt.NDArray[Any], weight: npt.NDArray[np.floating[Any]] | None = None
) -> tuple[float, float]:
    """Return a weighted mean and its statistical error.

    Parameters
    ----------
    values : array of shape ``[n]``
        Numbers or bools; the mean of bools is a share.
    weight : float array of shape ``[n]``, optional
        Weight of each event, of either sign; 1 if not given.

    Returns
    -------
    mean, error : float
        The error is ``sqrt(sum(w² (v - mean)²)) / sum(w)``: that of a ratio of two sums over the same events. For bools and weights of one it is the
        binomial ``sqrt(p (1 - p) / n)``. NaN where the weights do not add up to a positive number.

    Examples
    --------
    >>> mean_with_error(np.array([True, False, False, False]))
    (0.25, 0.21650635094610965)
    >>> mean_with_error(np.array([1.0, 2.0]), np.array([1.0, -1.0]))
    (nan, nan)
    """
    if weight is None:
        weight = np.ones(len(values))
    largest = float(np.abs(weight).max(initial=0.0))
    if not largest > 0:
        return math.nan, math.nan
    relative = np.asarray(weight, np.float64) / largest
    numbers = np.asarray(values, np.float64)
    total = float(relative.sum())
    if not total > 0:
        return math.nan, math.nan
    mean = float((relative * numbers).sum()) / total
    return mean, math.sqrt(float(np.square(relative * (numbers - mean)).sum())) / total
