"""What a cut on the score is worth to a search: events that are expected, their significance, and the cut that maximises it.

Yields are sums of the signed physics weights. A part of the events stands for all of them, so the sums are multiplied by one over that part's
share: for 20 % test events by 5. The cut is chosen on validation events and its significance told on test events; told on the events that it was
chosen on, it would be the largest of many fluctuations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import SettingError
from mlaas4hep.training.weighted import effective_events

__all__ = ["LEAST_BACKGROUND", "Yields", "add_yields", "asimov_significance", "best_cut", "count_above"]

LEAST_BACKGROUND = 10.0
"""Effective background events that must be left above a cut; with fewer, its background is hardly known."""

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Yields:
    """What is expected above a cut.

    Parameters
    ----------
    cut : float
        Events of at least this score are taken.
    signal, signal_error, background, background_error : float
        Expected events with the errors of the simulated samples, ``sqrt(sum(w²))``, scaled likewise.
    background_uncertainty : float
        Systematic uncertainty of the background as a share of it.
    significance, significance_error : float
        In standard deviations; the error follows from those of the yields. NaN where the background is not positive.
    """

    cut: float
    signal: float
    signal_error: float
    background: float
    background_error: float
    background_uncertainty: float
    significance: float
    significance_error: float

    def to_dict(self) -> dict[str, float | None]:
        """Return it as plain values for JSON."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def asimov_significance(signal: float, background: float, uncertainty: float = 0.0) -> float:
    """Return the median discovery significance of a counting experiment.

    Parameters
    ----------
    signal, background : float
        Expected numbers of events after the cut; ``background > 0``. A signal that is not positive gives 0.
    uncertainty : float
        Standard deviation of the background, in events.

    Returns
    -------
    float
        In standard deviations.

    Raises
    ------
    SettingError
        If the background is not positive, or the uncertainty is negative.

    References
    ----------
    G. Cowan, K. Cranmer, E. Gross, O. Vitells, Eur. Phys. J. C 71 (2011) 1554, eq. 97. With an uncertainty: the same for a background that is
    measured in a control region of that relative error, G. Cowan, "Discovery sensitivity for a counting experiment with background uncertainty"
    (2012), eq. 20.

    Examples
    --------
    >>> round(asimov_significance(10.0, 100.0), 3)
    0.984
    >>> round(asimov_significance(10.0, 100.0, uncertainty=10.0), 3)
    0.69
    """
    if not background > 0:
        raise SettingError("background", "a positive number of events", background)
    if not uncertainty >= 0:
        raise SettingError("uncertainty", "a number of events ≥ 0", uncertainty)
    return float(_significance(np.float64(signal), np.float64(background), np.float64(uncertainty)))


def count_above(
    cut: float,
    score: Floats,
    signal: Bools,
    weight: Floats,
    *,
    share: float = 1.0,
    background_uncertainty: float = 0.0,
) -> Yields:
    """Return what is expected above a cut.

    Parameters
    ----------
    cut : float
        Events with ``score >= cut`` are taken.
    score : float array of shape ``[n]``
    signal : bool array of shape ``[n]``
    weight : float array of shape ``[n]``
        Physics weights, with their signs.
    share : float
        Which share of all events these are.
    background_uncertainty : float
        Systematic uncertainty of the background as a share of it: 0.1 for 10 %.

    Examples
    --------
    >>> score, signal = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])
    >>> found = count_above(0.5, score, signal, np.ones(4), share=0.1)
    >>> found.signal, found.background, round(found.significance, 2)
    (20.0, 10.0, 5.09)
    """
    _check(share, background_uncertainty)
    taken = score >= cut
    yields, errors = [], []
    for chosen in (signal & taken, ~signal & taken):
        part = np.asarray(weight[chosen], np.float64) / share
        yields.append(float(part.sum()))
        errors.append(math.sqrt(float(np.square(part).sum())))
    return _with_significance(float(cut), *yields, *errors, uncertainty=background_uncertainty)


def add_yields(parts: Sequence[Yields]) -> Yields:
    """Return what several samples expect together, each above its own cut; ``cut`` is then NaN.

    Examples
    --------
    >>> one = Yields(0.5, 3.0, 1.0, 10.0, 2.0, 0.0, 0.91, 0.3)
    >>> found = add_yields([one, one])
    >>> found.signal, round(found.background_error, 3), round(found.significance, 3)
    (6.0, 2.828, 1.282)
    """
    return _with_significance(
        math.nan,
        sum(part.signal for part in parts),
        sum(part.background for part in parts),
        math.hypot(*(part.signal_error for part in parts)),
        math.hypot(*(part.background_error for part in parts)),
        uncertainty=parts[0].background_uncertainty,
    )


def best_cut(
    score: Floats,
    signal: Bools,
    weight: Floats,
    *,
    share: float = 1.0,
    background_uncertainty: float = 0.0,
    least_background: float = LEAST_BACKGROUND,
) -> Yields | None:
    """Return the cut of the largest significance, every score being tried, and what is expected above it.

    Parameters
    ----------
    score, signal, weight, share, background_uncertainty
        As for :func:`count_above`.
    least_background : float
        Effective background events, ``sum(w)² / sum(w²)``, that must be left above the cut.

    Returns
    -------
    Yields or None
        None where no cut leaves enough background, or there is no signal.

    Examples
    --------
    >>> score = np.linspace(0, 1, 201)
    >>> found = best_cut(score, score > 0.5, np.ones(201), least_background=5)
    >>> round(found.cut, 3), found.background
    (0.48, 5.0)
    """
    _check(share, background_uncertainty)
    if effective_events(weight[signal]) == 0:
        return None
    values, group = np.unique(score, return_inverse=True)
    wide = np.asarray(weight, np.float64) / share

    def above(part: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        summed: npt.NDArray[np.float64] = np.bincount(group, part, len(values)).astype(np.float64)
        return np.cumsum(summed[::-1])[::-1]

    s, b = above(np.where(signal, wide, 0)), above(np.where(signal, 0, wide))
    squares = above(np.where(signal, 0, np.square(wide)))
    with np.errstate(divide="ignore", invalid="ignore"):
        allowed = (b > 0) & (np.square(b) >= least_background * squares * (1 - 1e-12))
    if not allowed.any():
        return None
    significance = np.full(len(values), -np.inf)
    significance[allowed] = _significance(s[allowed], b[allowed], background_uncertainty * b[allowed])
    cut = float(values[int(np.argmax(significance))])
    return count_above(cut, score, signal, weight, share=share, background_uncertainty=background_uncertainty)


def _with_significance(cut: float, s: float, b: float, s_error: float, b_error: float, *, uncertainty: float) -> Yields:
    """Return the yields with their significance, its error from its derivatives."""

    def at(s: float, b: float) -> float:
        return float(_significance(np.float64(s), np.float64(b), np.float64(uncertainty * b)))

    found, error = math.nan, math.nan
    if b > 0:
        found = at(s, b)
        step = 1e-4
        by_signal = (at(s * (1 + step), b) - at(s * (1 - step), b)) / (2 * step * s) if s > 0 else 0.0
        by_background = (at(s, b * (1 + step)) - at(s, b * (1 - step))) / (2 * step * b)
        error = math.hypot(by_signal * s_error, by_background * b_error)
    return Yields(cut, s, s_error, b, b_error, uncertainty, found, error)


def _significance(s: Any, b: Any, uncertainty: Any) -> Any:
    """Return eq. 97, or eq. 20 where there is an uncertainty; arrays or numbers, ``b > 0``."""
    s = np.maximum(s, 0.0)
    variance = np.square(uncertainty)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # log1p(x) - x of small x loses all digits otherwise: a signal of 10 events over a background of 10^9.
        known = (s + b) * np.log1p(s / b) - s
        total = s + b
        first = total * np.log1p(s * b / (b * b + total * variance))
        second = np.square(b) / variance * np.log1p(variance * s / (b * (b + variance)))
        squared = 2 * np.where(variance > 0, first - second, known)
        naive = s / np.sqrt(b + variance)  # the limit of both, where their terms cancel
    return np.where(s < 1e-5 * b, naive, np.sqrt(np.maximum(squared, 0.0)))


def _check(share: float, background_uncertainty: float) -> None:
    if not 0 < share <= 1:
        raise SettingError("share", "a number in (0, 1]", share)
    if not 0 <= background_uncertainty < math.inf:
        raise SettingError(
            "background_uncertainty", "a number ≥ 0, as a share of the background", background_uncertainty
        )
