"""Whether two samples have the same distribution: the over-training check.

Scores of training events that look better than those of held-out events of the same class show what the model has learned by heart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.training.weighted import effective_events

__all__ = ["Agreement", "compare_distributions", "kolmogorov_probability"]


@dataclass(frozen=True)
class Agreement:
    """Comparison of two distributions.

    Parameters
    ----------
    distance : float
        Largest difference between the two cumulative distributions.
    probability : float
        How often two samples of one distribution are at least so far apart. With weights of one it is distributed evenly if the distributions are
        the same.
    effective : tuple of float
        Effective number of events of each sample.
    """

    distance: float
    probability: float
    effective: tuple[float, float]

    def to_dict(self) -> dict[str, float | None]:
        """Return it as plain values for JSON."""
        known = not math.isnan(self.distance)
        return {
            "ks_distance": self.distance if known else None,
            "ks_probability": self.probability if known else None,
            "effective_events": self.effective[0],
            "effective_events_of_other": self.effective[1],
        }


def compare_distributions(
    first: npt.NDArray[np.floating[Any]],
    first_weight: npt.NDArray[np.floating[Any]],
    second: npt.NDArray[np.floating[Any]],
    second_weight: npt.NDArray[np.floating[Any]],
) -> Agreement:
    """Compare two weighted samples by Kolmogorov and Smirnov.

    Parameters
    ----------
    first, second : float arrays of shapes ``[n]`` and ``[m]``
        Values; unbinned.
    first_weight, second_weight : float arrays of the same shapes
        Weights, of either sign. The probability then takes each sample for one of as many events as it is worth, :func:`effective_events`.

    Returns
    -------
    Agreement
        Of NaN where a sample's weights do not add up to a positive number.

    References
    ----------
    F. James, Statistical Methods in Experimental Physics, 2nd ed., 11.4.2. The probability is that of Kolmogorov's limit with the correction for
    few events of M. A. Stephens, J. R. Stat. Soc. B 32 (1970) 115.

    Examples
    --------
    >>> same = np.linspace(0, 1, 50)
    >>> compare_distributions(same, np.ones(50), same, np.full(50, 2.0)).probability
    1.0
    """
    effective = effective_events(first_weight), effective_events(second_weight)
    if not all(effective):
        return Agreement(math.nan, math.nan, effective)
    values = np.concatenate([first, second])
    parts = [
        np.asarray(first_weight, np.float64) / np.sum(first_weight, dtype=np.float64),
        -np.asarray(second_weight, np.float64) / np.sum(second_weight, dtype=np.float64),
    ]
    order = np.argsort(values, kind="stable")
    sorted_values = values[order]
    difference = np.cumsum(np.concatenate(parts)[order])
    last_of_equals = np.append(
        sorted_values[1:] != sorted_values[:-1], False
    )  # behind the last one the difference is 0
    distance = float(np.abs(difference[last_of_equals]).max(initial=0.0))
    root = math.sqrt(effective[0] * effective[1] / (effective[0] + effective[1]))
    return Agreement(distance, kolmogorov_probability((root + 0.12 + 0.11 / root) * distance), effective)


def kolmogorov_probability(scaled: float) -> float:
    """Return ``2 sum((-1)^(k-1) exp(-2 k² scaled²))`` over ``k ≥ 1``: how often the scaled distance is at least so large.

    Examples
    --------
    >>> round(kolmogorov_probability(1.358), 3)
    0.05
    """
    if scaled < 0.1:  # the series needs ever more terms here, and the probability is 1 to 50 digits
        return 1.0
    terms = np.arange(1, 101)
    total = 2 * float((np.where(terms % 2, 1.0, -1.0) * np.exp(-2.0 * np.square(terms * scaled))).sum())
    return min(max(total, 0.0), 1.0)
