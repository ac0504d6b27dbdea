"""How a branch's values are scaled, from its statistics over training events."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.encoding.encoding import Transform
from mlaas4hep.streaming.statistics.statistics import BranchStatistics

__all__ = ["NORMALISATIONS", "Normalisation", "Scaling", "chosen_normalisation", "scaling"]

Normalisation = str | Mapping[str, str]
"""One name for all branches, or name or pattern of branches → name; what no pattern matches is ``minmax``."""

FLOAT32_MAX = float(np.finfo(np.float32).max)


class Scaling(NamedTuple):
    """How the values of a branch are scaled, as :class:`~mlaas4hep.streaming.encoding.encoding.Feature` says it."""

    shift: float = 0.0
    scale: float = 1.0
    transform: Transform = "linear"
    log_shift: float = 0.0
    log_scale: float = 1.0


UNCHANGED = Scaling()


def _inverse(width: float) -> float | None:
    """Return what makes a width 1, or None where float32 holds no such factor: it is 0, or almost."""
    return 1.0 / width if width > 2 / FLOAT32_MAX else None


def _minmax(found: BranchStatistics) -> Scaling:
    low, high = found.range
    return Scaling(low, 1.0 / (high - low)) if high > low else UNCHANGED


def _standard(found: BranchStatistics) -> Scaling:
    spread = math.sqrt(found.variance)
    # A constant has a spread of rounding errors at most.
    return Scaling(found.mean, 1.0 / spread if spread > 1e-7 * abs(found.mean) else 1.0)


def _robust(found: BranchStatistics) -> Scaling:
    if not found.quantiles:
        return UNCHANGED
    median, below, above = (found.quantiles[level] for level in (0.5, 0.16, 0.84))
    return Scaling(median, (_inverse(above - below) or 0.5) * 2.0)


def _log(found: BranchStatistics) -> Scaling:
    if not found.quantiles:
        return UNCHANGED
    low = found.minimum
    median, below, above = (found.quantiles[level] for level in (0.5, 0.16, 0.84))
    # Where half of the values are the smallest one, the mean stands for the unit.
    scale = _inverse(median - low) or _inverse(found.mean - low)
    if scale is None:
        return Scaling(low)
    middle, lower, upper = (math.log1p((value - low) * scale) for value in (median, below, above))
    return Scaling(low, scale, "log", middle, (_inverse(upper - lower) or 0.5) * 2.0)


NORMALISATIONS: Mapping[str, Callable[[BranchStatistics], Scaling]] = {
    "minmax": _minmax,
    "standard": _standard,
    "robust": _robust,
    "log": _log,
    "none": lambda found: UNCHANGED,
}
"""Name → function.

- ``minmax``: range to 0 … 1, as the original does; a constant is unchanged.
- ``standard``: mean to 0, standard deviation to 1; a constant becomes 0.
- ``robust``: median to 0, half the width of the central 68 % to 1; for branches with long tails.
- ``log``: the same of the logarithm of ``1 + (value - minimum) / (median - minimum)``, which does not depend on the unit; for momenta and
  energies. Where minimum and median are one, the mean takes the median's place; a constant becomes 0.
- ``none``: unchanged.
"""

FROM_QUANTILES = ("robust", "log")


def scaling(kind: str, found: BranchStatistics) -> Scaling:
    """Return how a branch is scaled.

    Parameters
    ----------
    kind : str
        One of :data:`NORMALISATIONS`.
    found : BranchStatistics
        Of the branch, over training events.

    Raises
    ------
    SettingError
        If the statistics have no quantiles and these are needed: they were read from files and merged.

    Examples
    --------
    >>> scaling("minmax", BranchStatistics(count=2, minimum=10.0, maximum=14.0, mean=12.0, squares=8.0))
    Scaling(shift=10.0, scale=0.25, transform='linear', log_shift=0.0, log_scale=1.0)
    >>> scaling("standard", BranchStatistics(count=2, minimum=10.0, maximum=14.0, mean=12.0, squares=8.0))[:2]
    (12.0, 0.5)
    """
    if kind in FROM_QUANTILES and found.stored_quantiles is None:
        raise SettingError(
            "normalisation", "one that needs no quantiles with statistics that have none (of merged files)", kind
        )
    return NORMALISATIONS[kind](found)


def chosen_normalisation(normalisation: Normalisation, branch: str) -> str:
    """Return the name of a branch's normalisation: its own, that of the first pattern that matches, or ``minmax``.

    Raises
    ------
    SettingError
        If there is no normalisation of that name.

    Examples
    --------
    >>> chosen_normalisation({"*_pt": "robust", "MET_pt": "none"}, "MET_pt")
    'none'
    """
    if isinstance(normalisation, str):
        kind = normalisation
    elif branch in normalisation:
        kind = normalisation[branch]
    else:
        matching = (name for pattern, name in normalisation.items() if fnmatch.fnmatchcase(branch, pattern))
        kind = next(matching, "minmax")
    if kind not in NORMALISATIONS:
        raise SettingError("normalisation", f"one of {', '.join(NORMALISATIONS)}", kind)
    return kind
