"""Whether a probability of 0.7 is right seven times in ten.

It can be so only for events as the training weighted them: a model that learned from classes of equal weight gives probabilities for classes of
equal weight. Calibration is therefore judged with the training's weights, where they are not those of physics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.training.bootstrap import REPLICAS, bootstrap
from mlaas4hep.training.weighted import mean_with_error

__all__ = ["BINS", "Reliability", "reliability"]

BINS = 10

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Predicted against observed shares of a class, in bins of the predicted probability.

    Parameters
    ----------
    edges : float64 array of shape ``[bins + 1]``
    predicted, observed, observed_error : float64 arrays of shape ``[bins]``
        Mean probability of the bin's events, and the share of them that are of the class, with its error; NaN where a bin's weights do not add up
        to a positive number.
    share : float64 array of shape ``[bins]``
        Share of all events that are in the bin.
    error, error_error : float
        Expected calibration error, and its own error.
    """

    edges: Floats
    predicted: Floats
    observed: Floats
    observed_error: Floats
    share: Floats
    error: float
    error_error: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        arrays = {name: getattr(self, name) for name in ("predicted", "observed", "observed_error", "share")}
        plain = {name: [_known(value) for value in values.tolist()] for name, values in arrays.items()}
        numbers = {
            "expected_calibration_error": _known(self.error),
            "expected_calibration_error_error": _known(self.error_error),
        }
        return {**numbers, "edges": self.edges.tolist(), **plain}


def reliability(
    probability: npt.NDArray[np.floating[Any]],
    of_class: npt.NDArray[np.bool_],
    weight: npt.NDArray[np.floating[Any]] | None = None,
    *,
    bins: int = BINS,
    replicas: int = REPLICAS,
    seed: int = 0,
) -> Reliability:
    """Compare a class's probability with how often it is right, in bins of equal width.

    Parameters
    ----------
    probability : float array of shape ``[n]``
        In ``[0, 1]``.
    of_class : bool array of shape ``[n]``
        Whether an event is of the class.
    weight : float array of shape ``[n]``, optional
        As the model was trained with.
    bins : int
        Number of bins.
    replicas, seed : int
        Of :func:`~mlaas4hep.training.bootstrap.bootstrap`, for the error of the expected calibration error.

    Returns
    -------
    Reliability
        Its error is ``sum(share × |observed - predicted|)`` over the bins. It is never negative, so that a perfect model of few events has one
        above 0 too.

    References
    ----------
    M. Naeini, G. Cooper, M. Hauskrecht, AAAI 2015, 2901.

    Examples
    --------
    >>> found = reliability(np.array([0.25, 0.25, 0.25, 0.25]), np.array([True, False, False, False]))
    >>> found.error, found.share.tolist()[:3]
    (0.0, [0.0, 0.0, 1.0])
    """
    weight = np.ones(len(probability)) if weight is None else np.asarray(weight, np.float64)
    values = np.asarray(probability, np.float64)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip((values * bins).astype(np.intp), 0, bins - 1)

    def compare(counts: Floats | float) -> tuple[Floats, Floats, Floats, float]:
        counted = weight * counts
        sums, predicted, observed = (
            np.bincount(place, counted * factor, bins).astype(np.float64)
            for factor in (1.0, values, of_class.astype(np.float64))
        )
        total = sums.sum()
        if not total > 0:
            nothing = np.full(bins, np.nan)
            return nothing, nothing, nothing, math.nan
        some = sums > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            predicted, observed = (np.where(some, part / sums, np.nan) for part in (predicted, observed))
        share = sums / total
        return predicted, observed, share, float((share[some] * np.abs(observed - predicted)[some]).sum())

    predicted, observed, share, error = compare(1.0)
    error_error = float(bootstrap(lambda counts: compare(counts)[3], len(values), replicas, seed))
    errors = np.array([mean_with_error(of_class[place == one], weight[place == one])[1] for one in range(bins)])
    return Reliability(edges, predicted, observed, errors, share, error, error_error)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
