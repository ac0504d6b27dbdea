"""Everything that is said of a classifier, in one object: each number with its error, each from the events that it may be told of.

Cuts are chosen on validation events and told on test events; training events serve the comparison with test events only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.training.agreement import Agreement, compare_distributions
from mlaas4hep.training.bootstrap import REPLICAS
from mlaas4hep.training.calibration import Reliability, reliability
from mlaas4hep.training.evaluation import Evaluation, evaluate
from mlaas4hep.training.sample import Sample
from mlaas4hep.training.significance import Yields, best_cut, count_above
from mlaas4hep.training.weighted import mean_with_error
from mlaas4hep.training.working_points import WorkingPoint, working_points

__all__ = ["ClassPerformance", "Performance", "judge", "judged_classes"]


@dataclass(frozen=True)
class ClassPerformance:
    """One class against the rest, by the class's probability.

    Parameters
    ----------
    name : str
    auc, auc_error : float
    working_points : tuple of WorkingPoint
        Efficiency for the class at each efficiency for the rest.
    reliability : Reliability
        Calibration of the class's probability, with the training's weights.
    chosen_cut : Yields or None
        The cut of the largest significance, and what validation events expect above it; None without validation events or without such a cut.
    expected : Yields or None
        What test events expect above that cut: the numbers to tell.
    """

    name: str
    auc: float
    auc_error: float
    working_points: tuple[WorkingPoint, ...]
    reliability: Reliability
    chosen_cut: Yields | None
    expected: Yields | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "working_points": [point.to_dict() for point in self.working_points],
            "calibration": self.reliability.to_dict(),
            "best_cut": None
            if self.chosen_cut is None or self.expected is None
            else {"validation": self.chosen_cut.to_dict(), "test": self.expected.to_dict()},
        }


@dataclass(frozen=True)
class Performance:
    """What test events say of a classifier.

    Parameters
    ----------
    evaluation : Evaluation
        AUC, accuracy, log-loss.
    classes : tuple of ClassPerformance
        For two classes only the second.
    confusion, confusion_error : float64 arrays of shape ``[classes, classes]``
        Share of the events of a true class (row) that get a class (column); NaN where a class has no event.
    agreement : mapping of str to Agreement
        Class → comparison of the scores of its training events with those of its test events; empty without training events.
    """

    evaluation: Evaluation
    classes: tuple[ClassPerformance, ...]
    confusion: npt.NDArray[np.float64]
    confusion_error: npt.NDArray[np.float64]
    agreement: dict[str, Agreement]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON, as it stands in ``metrics.json`` under ``test``."""
        return {
            **self.evaluation.to_dict(),
            "against_rest": {one.name: one.to_dict() for one in self.classes},
            "confusion": _plain(self.confusion),
            "confusion_error": _plain(self.confusion_error),
            "train_against_test": {name: one.to_dict() for name, one in self.agreement.items()},
        }


def judge(
    test: Sample,
    classes: Sequence[str],
    *,
    train: Sample | None = None,
    validation: Sample | None = None,
    test_share: float = 1.0,
    validation_share: float = 1.0,
    background_uncertainty: float = 0.0,
    replicas: int = REPLICAS,
    seed: int = 0,
) -> Performance:
    """Judge a classifier.

    Parameters
    ----------
    test : Sample
        Held-out events.
    classes : sequence of str
        Names of the classes.
    train : Sample, optional
        Training events, or some of them, for the over-training check.
    validation : Sample, optional
        Events that choose the cuts.
    test_share, validation_share : float
        Which share of all events each part is; yields are divided by it.
    background_uncertainty : float
        Systematic uncertainty of the background as a share of it, for the significance.
    replicas, seed : int
        Of :func:`~mlaas4hep.training.bootstrap.bootstrap`.

    Examples
    --------
    >>> p = np.linspace(0.01, 0.99, 99)
    >>> sample = Sample(np.stack([1 - p, p], axis=1), (p > 0.4).astype(int), np.ones(99))
    >>> found = judge(sample, ("background", "signal"), train=sample, replicas=10)
    >>> found.evaluation.auc, found.classes[0].working_points[0].signal, found.agreement["signal"].distance
    (1.0, 1.0, 0.0)
    """
    judged = []
    evaluation = evaluate(test.probabilities, test.y, test.weight, classes)
    for place, index in enumerate(judged_classes(len(classes))):
        score, of_class = test.probabilities[:, index], test.y == index
        chosen = expected = None
        if validation is not None:
            chosen = best_cut(
                validation.probabilities[:, index],
                validation.y == index,
                validation.weight,
                share=validation_share,
                background_uncertainty=background_uncertainty,
            )
        if chosen is not None:
            expected = count_above(
                chosen.cut,
                score,
                of_class,
                test.weight,
                share=test_share,
                background_uncertainty=background_uncertainty,
            )
        name, auc, auc_error = evaluation.class_auc[place]
        points = working_points(score, of_class, test.weight, replicas=replicas, seed=seed)
        calibrated = reliability(score, of_class, test.loss_weight, replicas=replicas, seed=seed)
        judged.append(ClassPerformance(name, auc, auc_error, points, calibrated, chosen, expected))
    return Performance(evaluation, tuple(judged), *_confusion(test, len(classes)), _agreement(test, train, classes))


def judged_classes(classes: int) -> tuple[int, ...]:
    """Return the classes that are judged against the rest: all, of two only the second, since it says the same.

    Examples
    --------
    >>> judged_classes(2), judged_classes(3)
    ((1,), (0, 1, 2))
    """
    return (1,) if classes == 2 else tuple(range(classes))


def _confusion(test: Sample, classes: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    predicted = np.argmax(test.probabilities, axis=1)
    shares, errors = np.full((2, classes, classes), np.nan)
    for true in range(classes):
        chosen = test.y == true
        for given in range(classes):
            shares[true, given], errors[true, given] = mean_with_error(predicted[chosen] == given, test.weight[chosen])
    return shares, errors


def _agreement(test: Sample, train: Sample | None, classes: Sequence[str]) -> dict[str, Agreement]:
    """Compare, for each true class, the scores that its plot shows: of two classes that of the second, else its own."""
    if train is None:
        return {}
    found = {}
    for index, name in enumerate(classes):
        column = 1 if len(classes) == 2 else index
        there, here = train.y == index, test.y == index
        found[name] = compare_distributions(
            train.probabilities[there, column], train.weight[there], test.probabilities[here, column], test.weight[here]
        )
    return found


def _plain(values: npt.NDArray[np.float64]) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in values]
