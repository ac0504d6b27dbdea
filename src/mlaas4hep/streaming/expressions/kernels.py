"""The compiled loop of four-vectors: from polar to Cartesian in one pass, without arrays in between."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["add_polar"]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def add_polar(
    pt: npt.NDArray[Any],
    eta: npt.NDArray[Any],
    phi: npt.NDArray[Any],
    last: npt.NDArray[Any],
    last_is_mass: bool,
    chosen: npt.NDArray[np.int64],
    total: npt.NDArray[np.float64],
) -> None:
    """Add four-vectors to a sum.

    Parameters
    ----------
    pt, eta, phi, last : float32 or float64 array of shape ``[values]``
        ``last`` is the mass or the energy.
    last_is_mass : bool
    chosen : int64 array of shape ``[n]``
        Which values to take.
    total : float64 array of shape ``[4, n]``
        px, py, pz and E, to which they are added.
    """
    for index in range(chosen.size):
        place = chosen[index]
        transverse = np.float64(pt[place])
        angle = np.float64(phi[place])
        other = np.float64(last[place])
        # sinh by one exponential: what this loses near 0 is below the precision of pt.
        grown = math.exp(np.float64(eta[place]))
        along = transverse * 0.5 * (grown - 1.0 / grown)
        total[0, index] += transverse * math.cos(angle)
        total[1, index] += transverse * math.sin(angle)
        total[2, index] += along
        total[3, index] += math.sqrt(transverse * transverse + along * along + other * other) if last_is_mass else other
