"""The compiled loop of an inspection; its slow twin is ``numpy.histogram`` in the tests."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["count_bins"]


@numba.njit(nogil=True, cache=True)
def count_bins(values: npt.NDArray[np.float64], scale: float, first: int, counts: npt.NDArray[np.int64]) -> None:
    """Count values in bins of equal width.

    Parameters
    ----------
    values : float64 array of shape ``[values]``
        NaN and ±inf do not count; every other must lie in one of the bins.
    scale : float
        One over the width of a bin.
    first : int
        Number of the first bin; bin ``k`` begins at ``k / scale``.
    counts : int64 array of shape ``[bins]``
        Added to.
    """
    for value in values:
        if np.isfinite(value):
            number = np.int64(np.floor(value * scale))
            # A negative value so small that the product is 0 is in the last bin below 0.
            if number == 0 and value < 0:
                number = np.int64(-1)
            counts[number - first] += 1
