"""How well probabilities tell classes apart, with the statistical error of each number.

All of it is weighted, with weights of either sign (:mod:`mlaas4hep.training.weighted` says what these mean), exact where scores are tied, and needs
nothing but numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.training.weighted import mean_with_error

__all__ = [
    "Evaluation",
    "RocCurve",
    "accuracy",
    "area_under_roc",
    "error_of_placements",
    "evaluate",
    "log_loss",
    "placements",
    "roc_curve",
]

Floats = npt.NDArray[np.float64]
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class RocCurve:
    """Efficiencies of a cut at each of its values.

    Parameters
    ----------
    background, signal : float64 arrays of one shape
        Fraction of background and of signal that passes; both rise from 0 to 1.
    """

    background: Floats
    signal: Floats


@dataclass(frozen=True)
class Evaluation:
    """What probabilities are worth on events that the training has not seen.

    Parameters
    ----------
    events : int
        Number of events.
    auc, auc_error : float
        Area under the ROC curve; with more than two classes the mean over classes, each against the rest. NaN where a
        class has no event.
    accuracy, accuracy_error : float
        Fraction of events whose most probable class is the true one.
    log_loss : float
        Mean of ``-ln p`` of the true class.
    class_auc : tuple of (str, float, float)
        Name, AUC and its error for each class against the rest; for two classes only the second.
    log_loss_error : float
        Statistical error of the log-loss.
    """

    events: int
    auc: float
    auc_error: float
    accuracy: float
    accuracy_error: float
    log_loss: float
    class_auc: tuple[tuple[str, float, float], ...] = ()
    log_loss_error: float = math.nan

    def __str__(self) -> str:
        return (
            f"AUC {self.auc:.4f} ± {self.auc_error:.4f}, accuracy {self.accuracy:.4f} ± {self.accuracy_error:.4f}"
            f" on {self.events:,} events"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON, None where a number is not defined."""
        numbers = {
            name: None if math.isnan(value := getattr(self, name)) else value
            for name in ("auc", "auc_error", "accuracy", "accuracy_error", "log_loss", "log_loss_error")
        }
        per_class = {
            name: {"auc": None if math.isnan(auc) else auc, "auc_error": None if math.isnan(error) else error}
            for name, auc, error in self.class_auc
        }
        return {"events": self.events, **numbers, "class_auc": per_class}


def evaluate(
    probabilities: npt.NDArray[np.floating[Any]],
    y: npt.NDArray[np.integer[Any]],
    weight: npt.NDArray[np.floating[Any]] | None = None,
    classes: Sequence[str] = (),
) -> Evaluation:
    """Compare probabilities with the true classes.

    Parameters
    ----------
    probabilities : float array of shape ``[n, classes]``
        Probability of each class.
    y : int array of shape ``[n]``
        Index of the true class.
    weight : float array of shape ``[n]``, optional
        Weight of each event.
    classes : sequence of str, optional
        Names of the classes.

    Examples
    --------
    >>> result = evaluate(np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]]), np.array([0, 1, 1]))
    >>> result.auc, round(result.accuracy, 3)
    (1.0, 0.667)
    """
    columns = probabilities.shape[1]
    names = tuple(classes) or tuple(str(index) for index in range(columns))
    weight = np.ones(len(y)) if weight is None else weight
    judged = [1] if columns == 2 else range(columns)
    class_auc = tuple((names[k], *area_under_roc(probabilities[:, k], y == k, weight)) for k in judged)
    share, share_error = accuracy(probabilities, y, weight)
    loss, loss_error = mean_with_error(_event_loss(probabilities, y), weight)
    return Evaluation(
        events=len(y),
        auc=float(np.mean([auc for _, auc, _ in class_auc])),
        # the classes' errors are correlated; their mean is the most that the mean's error can be
        auc_error=float(np.mean([error for _, _, error in class_auc])),
        accuracy=share,
        accuracy_error=share_error,
        log_loss=loss,
        class_auc=class_auc,
        log_loss_error=loss_error,
    )


def area_under_roc(
    score: npt.NDArray[np.floating[Any]],
    signal: npt.NDArray[np.bool_],
    weight: npt.NDArray[np.floating[Any]] | None = None,
) -> tuple[float, float]:
    """Return the area under the ROC curve and its standard deviation.

    The area is the probability that a signal event scores above a background event, a tie counting one half.

    Parameters
    ----------
    score : float array of shape ``[n]``
        Higher for signal.
    signal : bool array of shape ``[n]``
        Whether an event is signal.
    weight : float array of shape ``[n]``, optional
        Weight of each event.

    Returns
    -------
    auc, error : float
        NaN where there is no signal or no background.

    References
    ----------
    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44 (1988) 837: each event's *placement* is the share
    of the other class that it is on the right side of; the variance of the area is that of the two means of
    placements. With weights a mean's variance is taken as ``sum(w² d²) / sum(w)²`` times ``m / (m - 1)``, ``m`` being
    the effective number of events, which is DeLong's for weights of one, and holds for weights of either sign.

    Examples
    --------
    >>> area_under_roc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))[0]
    0.75
    """
    placed = placements(score, signal, weight)
    if placed is None:
        return math.nan, math.nan
    weights = np.ones(len(score)) if weight is None else np.asarray(weight, np.float64)
    auc = float((weights[signal] * placed[signal]).sum() / weights[signal].sum())
    return auc, error_of_placements(placed, signal, weights)


def placements(
    score: npt.NDArray[np.floating[Any]],
    signal: npt.NDArray[np.bool_],
    weight: npt.NDArray[np.floating[Any]] | None = None,
) -> Floats | None:
    """Return for each event the share of the other class that it is on the right side of; their mean over signal is the area.

    Parameters
    ----------
    score, signal, weight : arrays of shape ``[n]``
        As for :func:`area_under_roc`.

    Returns
    -------
    float64 array of shape ``[n]``, or None
        None where a class does not add up to a positive number.

    Examples
    --------
    >>> placements(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    array([1. , 0.5, 0.5, 1. ])
    """
    signal_weight = np.where(signal, 1.0 if weight is None else weight, 0.0)
    background_weight = np.where(signal, 0.0, 1.0 if weight is None else weight)
    total_signal, total_background = signal_weight.sum(), background_weight.sum()
    if not (total_signal > 0 and total_background > 0):
        return None
    _, group = np.unique(score, return_inverse=True)  # groups of equal scores, in rising order
    background_below = _share_below(group, background_weight) / total_background
    signal_above = 1 - _share_below(group, signal_weight) / total_signal
    return np.asarray(np.where(signal, background_below, signal_above), np.float64)


def error_of_placements(placed: Floats, signal: npt.NDArray[np.bool_], weight: npt.NDArray[np.floating[Any]]) -> float:
    """Return the standard deviation of an area, or with differences of placements that of the difference of two areas of the same events."""
    weights = np.asarray(weight, np.float64)
    return math.sqrt(
        _variance_of_mean(placed[signal], weights[signal]) + _variance_of_mean(placed[~signal], weights[~signal])
    )


def roc_curve(
    score: npt.NDArray[np.floating[Any]],
    signal: npt.NDArray[np.bool_],
    weight: npt.NDArray[np.floating[Any]] | None = None,
) -> RocCurve:
    """Return the efficiencies of ``score >= cut`` for every cut that tells events apart, from none to all passing.

    Parameters
    ----------
    score, signal, weight : arrays of shape ``[n]``
        As for :func:`area_under_roc`.

    Examples
    --------
    >>> curve = roc_curve(np.array([0.1, 0.4, 0.8]), np.array([False, True, True]))
    >>> curve.background, curve.signal
    (array([0., 0., 0., 1.]), array([0. , 0.5, 1. , 1. ]))
    """
    weight = np.ones(len(score)) if weight is None else weight
    values, group = np.unique(score, return_inverse=True)
    efficiencies = []
    for chosen in (~signal, signal):
        passing = np.cumsum(np.bincount(group, np.where(chosen, weight, 0.0), len(values))[::-1])
        total = passing[-1] if len(passing) and passing[-1] > 0 else math.nan
        efficiencies.append(np.concatenate([[0.0], passing / total]))
    return RocCurve(*efficiencies)


def accuracy(
    probabilities: npt.NDArray[np.floating[Any]],
    y: npt.NDArray[np.integer[Any]],
    weight: npt.NDArray[np.floating[Any]] | None = None,
) -> tuple[float, float]:
    """Return the weighted share of events whose most probable class is the true one, and its error.

    The error is that of :func:`~mlaas4hep.training.weighted.mean_with_error`: with weights of one the binomial ``sqrt(a (1 - a) / n)``.

    Examples
    --------
    >>> accuracy(np.array([[0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.1, 0.9]]), np.array([0, 1, 0, 1]))
    (0.75, 0.21650635094610965)
    """
    return mean_with_error(np.argmax(probabilities, axis=1) == y, weight)


def log_loss(
    probabilities: npt.NDArray[np.floating[Any]],
    y: npt.NDArray[np.integer[Any]],
    weight: npt.NDArray[np.floating[Any]] | None = None,
) -> float:
    """Return the weighted mean of ``-ln p`` of the true class.

    A probability counts as float32's epsilon at least, so that one event that is sure and wrong does not make it
    infinite.

    Examples
    --------
    >>> round(log_loss(np.array([[0.8, 0.2], [0.3, 0.7]]), np.array([0, 1])), 4)
    0.2899
    """
    return mean_with_error(_event_loss(probabilities, y), weight)[0]


def _event_loss(probabilities: npt.NDArray[np.floating[Any]], y: npt.NDArray[np.integer[Any]]) -> Floats:
    """Return ``-ln p`` of each event's true class."""
    true = np.take_along_axis(probabilities, y[:, None].astype(np.intp), axis=1)[:, 0].astype(np.float64)
    return np.asarray(-np.log(np.clip(true, SMALLEST_PROBABILITY, 1.0)), np.float64)


def _share_below(group: npt.NDArray[np.intp], weight: Floats) -> Floats:
    """Return for each event the weight of those that score less, and half of those that score the same."""
    per_group = np.bincount(group, weight)
    return (np.cumsum(per_group) - per_group / 2)[group]


def _variance_of_mean(values: Floats, weight: Floats) -> float:
    """Return the variance of a weighted mean, estimated from the scatter of its values."""
    total, squares = weight.sum(), np.square(weight).sum()
    effective = total**2 / squares
    if not effective > 1:
        return math.nan
    mean = (weight * values).sum() / total
    return float(np.square(weight * (values - mean)).sum() / total**2 * effective / (effective - 1))
