"""Errors of numbers that have no formula for one: the same number again and again, of events drawn anew.

In each replica every event counts as often as a Poisson number of mean one says, independently of all others. That is the bootstrap of a sample
whose size is itself random, as that of a counting experiment is, and it needs no drawing with replacement: one array of counts a replica,
multiplied to the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["REPLICAS", "bootstrap", "replica_counts"]

REPLICAS = 200
"""Replicas; an error is then itself known to 5 %."""

Floats = npt.NDArray[np.float64]


def bootstrap(
    statistic: Callable[[Floats], npt.ArrayLike], events: int, replicas: int = REPLICAS, seed: int = 0
) -> Floats:
    """Return the standard deviation of each number over the replicas.

    Parameters
    ----------
    statistic : callable
        Takes how often each event counts, float64 ``[events]``, and returns one number or an array of them, always of one shape.
    events : int
        Number of events.
    replicas : int
        How often; at least 2.
    seed : int
        What the counts follow from: the same seed gives the same errors to the bit.

    Returns
    -------
    float64 array of the statistic's shape
        NaN where fewer than half of the replicas have a number; of the others those without one are left out.

    Notes
    -----
    One replica is in memory at a time: 8 bytes an event, whatever the number of replicas.

    Examples
    --------
    >>> values = np.arange(100.0)
    >>> round(float(bootstrap(lambda counts: counts @ values / counts.sum(), 100)), 1)  # 28.9 / sqrt(100) is 2.9
    2.9
    """
    found = np.array([np.asarray(statistic(counts), np.float64) for counts in replica_counts(events, replicas, seed)])
    known = np.isfinite(found)
    number = known.sum(axis=0)
    enough = number >= max(2, replicas / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, found, 0).sum(axis=0) / number
        spread = np.where(known, found - mean, 0)
        deviation = np.sqrt(np.square(spread).sum(axis=0) / (number - 1))
    return np.asarray(np.where(enough, deviation, np.nan), np.float64)


def replica_counts(events: int, replicas: int, seed: int) -> Iterator[Floats]:
    """Give for each replica how often each event counts, float64 ``[events]``.

    Examples
    --------
    >>> next(replica_counts(6, 1, seed=1)).shape
    (6,)
    """
    random = np.random.default_rng(seed)
    table = _poisson_table()
    for _ in range(replicas):
        yield table[random.integers(0, len(table), events, np.uint16)]


@cache
def _poisson_table() -> Floats:
    """Return 65,536 numbers that are distributed as Poisson's with mean 1, to 1 in 65,536.

    One look-up costs a fifth of a draw from the distribution. What is lost is 9 and more, which comes once in 900,000 events.
    """
    probabilities = [math.exp(-1) / math.factorial(count) for count in range(9)]
    shares: Any = np.round(np.array(probabilities) * 2**16).astype(int)
    shares[0] += 2**16 - shares.sum()
    return np.repeat(np.arange(9, dtype=np.float64), shares)
