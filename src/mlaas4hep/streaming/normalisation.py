"""How a branch's values are scaled, from its statistics over training events."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping

from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.statistics import BranchStatistics

__all__ = ["NORMALISATIONS", "Normalisation", "chosen_normalisation", "scaling"]

Normalisation = str | Mapping[str, str]
"""One name for all branches, or name or pattern of branches → name; what no pattern matches is ``minmax``."""

Scaling = tuple[float, float]
"""Shift and scale: the scaled value is ``(value - shift) * scale``."""

UNCHANGED: Scaling = (0.0, 1.0)


def _minmax(found: BranchStatistics) -> Scaling:
    low, high = found.range
    return (low, 1.0 / (high - low)) if high > low else UNCHANGED


def _standard(found: BranchStatistics) -> Scaling:
    spread = math.sqrt(found.variance)
    # A constant has a spread of rounding errors at most.
    return (found.mean, 1.0 / spread) if spread > 1e-7 * abs(found.mean) else (found.mean, 1.0)


def _robust(found: BranchStatistics) -> Scaling:
    if not found.quantiles:
        return UNCHANGED
    median, below, above = (found.quantiles[level] for level in (0.5, 0.16, 0.84))
    return (median, 2.0 / (above - below)) if above > below else (median, 1.0)


NORMALISATIONS: Mapping[str, Callable[[BranchStatistics], Scaling]] = {
    "minmax": _minmax,
    "standard": _standard,
    "robust": _robust,
    "none": lambda found: UNCHANGED,
}
"""Name → function.

- ``minmax``: range to 0 … 1, as the original does; a constant is unchanged.
- ``standard``: mean to 0, standard deviation to 1; a constant becomes 0.
- ``robust``: median to 0, half the width of the central 68 % to 1; for branches with long tails.
- ``none``: unchanged.
"""


def scaling(kind: str, found: BranchStatistics) -> Scaling:
    """Return shift and scale of a branch.

    Parameters
    ----------
    kind : str
        One of :data:`NORMALISATIONS`.
    found : BranchStatistics
        Of the branch, over training events.

    Examples
    --------
    >>> scaling("minmax", BranchStatistics(count=2, minimum=10.0, maximum=14.0, mean=12.0, squares=8.0))
    (10.0, 0.25)
    >>> scaling("standard", BranchStatistics(count=2, minimum=10.0, maximum=14.0, mean=12.0, squares=8.0))
    (12.0, 0.5)
    """
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
