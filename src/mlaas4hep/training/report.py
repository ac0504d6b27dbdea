"""Everything about a trained model in one place: its numbers, its plots, and a page that holds both.

:func:`make_report` asks the model about held-out, validation and training events once each, and :meth:`Report.write` leaves ``report.html``,
``metrics.json`` and the plots in a folder; ``Report.files`` is what a bundle gets.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas4hep.streaming.encoding.encoding import Encoding
from mlaas4hep.training.canvas import spoken
from mlaas4hep.training.importance import MOST_ROWS, Importance, RawEvents, permutation_importance, raw_events
from mlaas4hep.training.performance import Performance, judge
from mlaas4hep.training.plots import draw_roc, draw_scores
from mlaas4hep.training.plots_inputs import draw_importance, draw_input
from mlaas4hep.training.plots_numbers import draw_calibration, draw_confusion, draw_history, draw_rejection
from mlaas4hep.training.report_page import Plot, report_page
from mlaas4hep.training.sample import Predict, Sample, predict_events

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset
    from mlaas4hep.training.frameworks.base import EpochResult, History

__all__ = ["Report", "make_report", "report_of", "write_report"]

TRAINING_EVENTS = 50_000
FEWEST_LEARNED = 100_000
DRAWN_INPUTS = 24
"""Branches whose distributions are drawn, the most important first: a page of 900 pictures would help nobody."""


@dataclass(frozen=True)
class Report:
    """What is said of a trained classifier.

    Parameters
    ----------
    performance : Performance
        Of test events.
    importance : tuple of Importance
        Loss of AUC without each branch, the largest first.
    metrics : mapping
        All numbers, as they stand in ``metrics.json``.
    plots : tuple of Plot
        Pictures with their names and captions.
    title, facts
        Of the page.
    """

    performance: Performance
    importance: tuple[Importance, ...]
    metrics: Mapping[str, Any]
    plots: tuple[Plot, ...]
    title: str
    facts: Mapping[str, str]

    @property
    def files(self) -> dict[str, bytes]:
        """File name → content: ``report.html`` and the plots, as a bundle takes them (without those of single inputs)."""
        pictures = {plot.file: plot.png for plot in self.plots if not plot.small}
        return {**pictures, "report.html": self.html.encode()}

    @property
    def html(self) -> str:
        """The page; it loads nothing."""
        return report_page(self.title, self.facts, self.performance, self.metrics, self.plots)

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``report.html``, ``metrics.json`` and all plots into a folder, which is made if it is not there.

        Returns
        -------
        list of Path
            The files.

        Raises
        ------
        OSError
            If they cannot be written.
        """
        into = Path(folder)
        into.mkdir(parents=True, exist_ok=True)
        metrics = json.dumps(self.metrics, indent=2, allow_nan=False) + "\n"
        files = {**self.files, **{plot.file: plot.png for plot in self.plots}, "metrics.json": metrics.encode()}
        for name, content in files.items():
            (into / name).write_bytes(content)
        return [into / name for name in files]


def make_report(
    dataset: Dataset,
    predict: Predict,
    history: History | None = None,
    *,
    title: str = "Training report",
    facts: Mapping[str, str] | None = None,
    background_uncertainty: float = 0.0,
    importance: bool = True,
    seed: int = 0,
) -> Report | None:
    """Judge a model on its dataset.

    Test events are predicted once, and again with exchanged values for the importance; validation events choose the cut.

    Parameters
    ----------
    dataset : Dataset
        With labels.
    predict : callable
        As :meth:`~mlaas4hep.training.frameworks.base.Trainer.predict`.
    history : History, optional
        The epochs.
    title : str
        Heading of the page.
    facts : mapping of str to str, optional
        What else stands at the top: model, settings, …
    background_uncertainty : float
        Systematic uncertainty of the background as a share of it, for the significance.
    importance : bool
        Whether the importance of the branches is found. It predicts at most as many events as the training learned from, so that it takes a part
        of the training's time, and at most 4 million.
    seed : int
        What bootstrap and exchange follow from.

    Returns
    -------
    Report or None
        None where there are no labels or no test events.
    """
    test = predict_events(dataset, predict, "test") if dataset.classes else None
    if test is None:
        return None
    train = predict_events(dataset, predict, "train", limit=TRAINING_EVENTS)
    validation = predict_events(dataset, predict, "validation")
    performance = judge(
        test,
        dataset.classes,
        train=train,
        validation=validation,
        test_share=dataset.split.share("test"),
        validation_share=dataset.split.share("validation") or 1.0,
        background_uncertainty=background_uncertainty,
        seed=seed,
    )
    counts = {fold: len(sample) for fold, sample in (("test", test), ("validation", validation)) if sample is not None}
    counts["train"] = sum(dataset.class_counts("train").values())
    events = raw_events(dataset, "test")
    found: tuple[Importance, ...] = ()
    if importance and events is not None:
        learned = counts["train"] * (1 if history is None else len(history.epochs))
        most_rows = min(MOST_ROWS, max(learned, FEWEST_LEARNED))
        found = permutation_importance(predict, dataset.encoding, events, most_rows=most_rows, seed=seed)
    known = {
        "Classes": ", ".join(dataset.classes),
        "Events": ", ".join(f"{counts[fold]:,} {fold}" for fold in ("train", "validation", "test") if fold in counts),
        "Branches": f"{len(dataset.features)}",
        **(facts or {}),
    }
    epochs = () if history is None else history.epochs
    best_epoch = None if history is None else history.best_epoch
    return report_of(
        performance,
        test,
        dataset.classes,
        train=train,
        epochs=epochs,
        best_epoch=best_epoch,
        importance=found,
        inputs=None if events is None else (dataset.encoding, events),
        title=title,
        facts=known,
    )


def write_report(dataset: Dataset, predict: Predict, folder: str | Path, **settings: Any) -> Report | None:
    """Judge a model and write its report into a folder; parameters as in :func:`make_report`."""
    report = make_report(dataset, predict, **settings)
    if report is not None:
        report.write(folder)
    return report


def report_of(
    performance: Performance,
    test: Sample,
    classes: Sequence[str],
    *,
    train: Sample | None = None,
    epochs: Sequence[EpochResult] = (),
    best_epoch: int | None = None,
    importance: Sequence[Importance] = (),
    inputs: tuple[Encoding, RawEvents] | None = None,
    metrics: Mapping[str, Any] | None = None,
    title: str = "Training report",
    facts: Mapping[str, str] | None = None,
) -> Report:
    """Draw and put together what is known already, of a k-fold for example.

    Parameters
    ----------
    performance : Performance
    test : Sample
        The events that it is of.
    classes : sequence of str
    train : Sample, optional
        Training events, for the score plot.
    epochs, best_epoch
        Of the history.
    importance : sequence of Importance
    inputs : (Encoding, RawEvents), optional
        Of which the inputs are drawn.
    metrics : mapping, optional
        Numbers to keep in place of those that follow from the others.
    title, facts
        Of the page.
    """
    two = len(classes) == 2
    plots = [
        Plot(
            "roc.png", "ROC curve", draw_roc(test.probabilities, test.y, test.weight, classes, performance.evaluation)
        ),
        Plot("rejection.png", "Rejection of the background", draw_rejection(test, classes)),
    ]
    if train is not None:
        shown = [(one.probabilities, one.y, one.weight) for one in (test, train)]
        plots.append(Plot("scores.png", "Scores", draw_scores(shown[0], shown[1], classes, performance.agreement)))
    plots += [
        Plot("confusion.png", "Confusion", draw_confusion(performance, classes)),
        Plot(
            "calibration.png",
            f"Calibration of the probability of {spoken(classes[1])}"
            if two
            else "Calibration of each class's probability",
            draw_calibration([(one.name, one.reliability) for one in performance.classes]),
        ),
    ]
    if epochs and best_epoch is not None:
        plots.append(Plot("history.png", "Epochs", draw_history(epochs, best_epoch)))
    if importance:
        plots.append(Plot("importance.png", "Importance of the branches", draw_importance(importance)))
    if inputs is not None:
        encoding, events = inputs
        branches = [name for name in encoding.branches if encoding.places(name)]
        rank = {one.name: place for place, one in enumerate(importance)}
        branches.sort(key=lambda name: rank.get(name, len(rank)))
        for number, branch in enumerate(branches[:DRAWN_INPUTS]):
            picture = draw_input(branch, encoding, events, classes)
            plots.append(Plot(f"input_{number:02d}.png", branch, picture, small=True))
    if metrics is None:
        metrics = {"test": performance.to_dict()}
        if epochs:
            metrics["epochs"] = [_plain(dataclasses.asdict(one)) for one in epochs]
            metrics["best_epoch"] = best_epoch
    metrics = {**metrics, "importance": [one.to_dict() for one in importance]}
    return Report(performance, tuple(importance), metrics, tuple(plots), title, dict(facts or {}))


def _plain(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in numbers.items()
    }
