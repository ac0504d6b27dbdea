"""Judge a trained model on the test part, once: numbers with their errors, and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlaas4hep.training.evaluation import Evaluation
from mlaas4hep.training.performance import Performance
from mlaas4hep.training.performance import judge as judge_classifier
from mlaas4hep.training.plots import draw_roc, draw_scores
from mlaas4hep.training.regression import RegressionEvaluation, evaluate_values
from mlaas4hep.training.report import make_report
from mlaas4hep.training.sample import Sample, predict_events

if TYPE_CHECKING:
    from mlaas4hep.training.frameworks.base import History, Trainer
    from mlaas4hep.training.reading import Reading

__all__ = ["RECONSTRUCTION_ERROR", "Verdict", "judge"]

RECONSTRUCTION_ERROR = "reconstruction_error"
DRAWN_TRAINING_EVENTS = 50_000


@dataclass(frozen=True)
class Verdict:
    """What a model is worth.

    Parameters
    ----------
    performance : Performance or None
        Of a classification.
    regression : RegressionEvaluation or None
        Of a regression.
    numbers : mapping
        All numbers as plain values; None where there is no test part.
    plots : mapping of str to bytes
        File name → PNG.
    files : mapping of str to bytes
        File name → content of what else a bundle gets: the page with all numbers and plots.
    importance : sequence
        Of the branches, as it stands in ``metrics.json``; empty where it was not asked for.
    """

    performance: Performance | None = None
    regression: RegressionEvaluation | None = None
    numbers: Mapping[str, Any] | None = None
    plots: Mapping[str, bytes] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    importance: Sequence[Mapping[str, Any]] = ()

    @property
    def evaluation(self) -> Evaluation | None:
        """The most important numbers of a classification."""
        return None if self.performance is None else self.performance.evaluation


def judge(
    reading: Reading, trainer: Trainer, events: Mapping[str, int], history: History | None = None, title: str = ""
) -> Verdict:
    """Predict the test part and judge it.

    Parameters
    ----------
    reading : Reading
        The streams of the training.
    trainer : Trainer
        The trained model.
    events : mapping of str to int
        Number of events of each fold.
    history : History, optional
        The epochs.
    title : str
        Of the report, which is made where there is a title; without one two plots are.
    """
    if not events["test"]:
        return Verdict()
    if reading.targets is not None:
        return _of_values(reading, trainer)
    if not reading.dataset.classes:
        return _of_reconstruction(reading, trainer)
    if title:
        return _reported(reading, trainer, history, title)
    return _of_classes(reading, trainer)


def _reported(reading: Reading, trainer: Trainer, history: History | None, title: str) -> Verdict:
    report = make_report(reading.dataset, trainer.predict, history, title=title, facts={"Framework": trainer.framework})
    if report is None:
        return Verdict()
    plots = {name: content for name, content in report.files.items() if name.endswith(".png")}
    files = {name: content for name, content in report.files.items() if name not in plots}
    numbers = report.performance.to_dict()
    return Verdict(report.performance, None, numbers, plots, files, report.metrics["importance"])


def _of_classes(reading: Reading, trainer: Trainer) -> Verdict:
    dataset = reading.dataset
    test = predict_events(dataset, trainer.predict, "test")
    if test is None:
        return Verdict()
    train = predict_events(dataset, trainer.predict, "train", limit=DRAWN_TRAINING_EVENTS)
    performance = judge_classifier(
        test,
        dataset.classes,
        train=train,
        validation=predict_events(dataset, trainer.predict, "validation"),
        test_share=dataset.split.share("test"),
        validation_share=dataset.split.share("validation"),
    )
    plots = {"roc.png": draw_roc(*_plain(test), dataset.classes, performance.evaluation)}
    if train is not None:
        plots["scores.png"] = draw_scores(_plain(test), _plain(train), dataset.classes, performance.agreement)
    return Verdict(performance, numbers=performance.to_dict(), plots=plots)


def _of_values(reading: Reading, trainer: Trainer) -> Verdict:
    assert reading.targets is not None  # noqa: S101 - it is a regression
    parts = [(trainer.predict(b.x, b.mask), b.y.copy(), b.weight.copy()) for b in reading.judged("test")]
    values, y, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    found = evaluate_values(reading.targets.physical(values), y, weight, reading.dataset.labels.columns)
    return Verdict(regression=found, numbers=found.to_dict())


def _of_reconstruction(reading: Reading, trainer: Trainer) -> Verdict:
    parts = [trainer.predict(batch.x, batch.mask)[:, 0] for batch in reading.judged("test")]
    values = np.concatenate(parts).astype(np.float64)
    quantiles = {f"{share:g}": float(np.quantile(values, share)) for share in (0.5, 0.9, 0.99)}
    numbers = {"events": len(values), "mean": float(values.mean()), "quantiles": quantiles}
    return Verdict(numbers={RECONSTRUCTION_ERROR: numbers})


def _plain(sample: Sample) -> tuple[Any, Any, Any]:
    return sample.probabilities, sample.y, sample.weight
