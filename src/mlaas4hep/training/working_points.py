"""How much signal a cut keeps that lets a given share of the background pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.training.bootstrap import REPLICAS, bootstrap

__all__ = ["WorkingPoint", "working_points"]


@dataclass(frozen=True)
class WorkingPoint:
    """A cut, by the share of the background that passes it.

    Parameters
    ----------
    background : float
        Share of the background that may pass.
    cut : float
        The loosest one for which no more does; events of at least this score pass. NaN if even the highest score lets more pass.
    signal, signal_error : float
        Share of the signal that passes, and the error of it that comes from the signal's and from the background's statistics together.
    """

    background: float
    cut: float
    signal: float
    signal_error: float

    def to_dict(self) -> dict[str, float | None]:
        """Return it as plain values for JSON."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def working_points(
    score: npt.NDArray[np.floating[Any]],
    signal: npt.NDArray[np.bool_],
    weight: npt.NDArray[np.floating[Any]] | None = None,
    backgrounds: Sequence[float] = (0.01, 0.1),
    *,
    replicas: int = REPLICAS,
    seed: int = 0,
) -> tuple[WorkingPoint, ...]:
    """Return the signal efficiency at each background efficiency.

    Parameters
    ----------
    score : float array of shape ``[n]``
        Higher for signal.
    signal : bool array of shape ``[n]``
    weight : float array of shape ``[n]``, optional
        Of either sign. Where negative weights make the background's efficiency rise and fall, the cut is the loosest one above which it never was
        larger.
    backgrounds : sequence of float
        Shares of the background.
    replicas, seed : int
        Of :func:`~mlaas4hep.training.bootstrap.bootstrap`. In each replica the cut is found anew, so that the error holds that of the background
        too.

    Returns
    -------
    tuple of WorkingPoint
        One for each share; NaN where signal or background do not add up to a positive number.

    Examples
    --------
    >>> score = np.array([0.1, 0.2, 0.3, 0.4, 0.35, 0.9])
    >>> point, = working_points(score, np.array([False, False, False, False, True, True]), backgrounds=[0.25])
    >>> point.cut, point.signal
    (0.35, 1.0)
    """
    weight = np.ones(len(score)) if weight is None else np.asarray(weight, np.float64)
    values, group = np.unique(score, return_inverse=True)
    falling = len(values) - 1 - group  # 0 for the highest score
    weights_of = np.where(signal, weight, 0.0), np.where(signal, 0.0, weight)
    shares = np.asarray(backgrounds, np.float64)

    def passing(counts: npt.NDArray[np.float64] | float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        """Return signal efficiency, and number of scores above the cut, at each share."""
        kept, passed = (np.cumsum(np.bincount(falling, part * counts, len(values))) for part in weights_of)
        if not (len(values) and kept[-1] > 0 and passed[-1] > 0):
            return np.full(len(shares), np.nan), np.zeros(len(shares), np.intp)
        # The largest so far only rises, even where the efficiency does not.
        number = np.searchsorted(np.maximum.accumulate(passed / passed[-1]), shares * (1 + 1e-12), side="right")
        return np.where(number > 0, kept[number - 1] / kept[-1], 0.0), number

    found, number = passing(1.0)
    errors = bootstrap(lambda counts: passing(counts)[0], len(score), replicas, seed)
    cuts = [float(values[len(values) - count]) if count else math.nan for count in number.tolist()]
    return tuple(
        WorkingPoint(float(share), cut, float(signal_share), float(error))
        for share, cut, signal_share, error in zip(shares, cuts, found, errors, strict=True)
    )
