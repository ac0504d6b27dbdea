"""Train k models, so that every event is judged by one that has not seen it, and write them as one bundle.

The events are divided into k equal parts by their identity. Model ``f`` is tested on part ``f`` and learns, normalisation and weights included,
from the others. Together the test parts are all events: every event counts in the metrics, and none is judged by a model that learned from it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlaas4hep.bundle.manifest import Manifest
from mlaas4hep.bundle.writer import check_target
from mlaas4hep.errors import LabelError, SettingError
from mlaas4hep.streaming.splitting import Split
from mlaas4hep.training.evaluation import Evaluation, evaluate
from mlaas4hep.training.k_fold_bundle import write_k_fold
from mlaas4hep.training.performance import Performance, judge, judged_classes
from mlaas4hep.training.report import report_of
from mlaas4hep.training.sample import Sample, predict_events
from mlaas4hep.training.significance import Yields, add_yields, best_cut, count_above
from mlaas4hep.training.workflow import TrainingParams, TrainingResult, train

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset
    from mlaas4hep.training.frameworks.base import Progress

__all__ = ["KFoldResult", "divided", "train_k_fold"]

TRAINING_EVENTS = 50_000  # of all folds together, for the over-training check


@dataclass(frozen=True)
class KFoldResult:
    """What a k-fold gave.

    Parameters
    ----------
    results : tuple of TrainingResult
        One a fold.
    sample : Sample
        All events, each with the prediction of the model that has not seen it.
    performance : Performance
        Of these.
    evaluations : tuple of Evaluation
        Of each fold's test part.
    metrics : mapping
        All numbers, as they stand in ``metrics.json``.
    bundle : Path or None
        Where the bundle was written.
    manifest : Manifest or None
        Of that bundle.
    """

    results: tuple[TrainingResult, ...]
    sample: Sample
    performance: Performance
    evaluations: tuple[Evaluation, ...]
    metrics: Mapping[str, Any]
    bundle: Path | None
    manifest: Manifest | None

    def __str__(self) -> str:
        scatter = np.std([one.auc for one in self.evaluations], ddof=1)
        return f"{len(self.results)} folds: {self.performance.evaluation}; AUC of the folds scatters by {scatter:.4f}"


def train_k_fold(
    dataset: Dataset,
    model: object = "pytorch",
    *,
    folds: int = 5,
    validation: float | None = None,
    model_settings: Mapping[str, object] | None = None,
    params: TrainingParams | Mapping[str, object] | None = None,
    out: str | Path | None = None,
    checkpoints: str | Path | None = None,
    resume: bool = False,
    description: str = "",
    progress: Progress | None = None,
    background_uncertainty: float = 0.0,
) -> KFoldResult:
    """Train k models, judge every event by the one that has not seen it, and write a bundle of them all.

    Parameters
    ----------
    dataset : Dataset
        With labels. Of its split the salt counts.
    model : object
        As for :func:`~mlaas4hep.training.workflow.train`; a model that is there already is copied for each fold as it is.
    folds : int
        How many; at least 2.
    validation : float, optional
        Fraction of all events that stops each training and chooses its epoch and its cut; that of the dataset's split if not given.
    model_settings, params, description, progress
        As for :func:`~mlaas4hep.training.workflow.train`.
    out : str or Path, optional
        Where the bundle goes: ``NAME.tar.gz``, or a folder.
    checkpoints : str or Path, optional
        Folder that gets a folder of checkpoints for each fold: ``0``, ``1``, …
    resume : bool
        Whether each fold goes on from its newest checkpoint, where there is one.
    background_uncertainty : float
        Systematic uncertainty of the background as a share of it, for the significance.

    Returns
    -------
    KFoldResult

    Raises
    ------
    LabelError
        If there are no labels, or a class has no training event in a fold.
    SettingError, ModelFileError, TrainingError, BundleError
        As :func:`~mlaas4hep.training.workflow.train` does.
    """
    if not dataset.classes:
        raise LabelError("a k-fold needs labels; without them no fold's test events could be judged")
    if model == "parametrised":
        raise SettingError("model", "one that draws no parameter, for a k-fold", model)
    parts = divided(dataset, folds, validation)
    if out is not None:
        check_target(Path(out))
    results, samples, trained, cuts = [], [], [], []
    for fold, part in enumerate(parts):
        own = model if isinstance(model, (str, Path)) else copy.deepcopy(model)
        folder = None if checkpoints is None else Path(checkpoints) / str(fold)
        result = train(
            part,
            own,
            model_settings=model_settings,
            params=params,
            checkpoints=folder,
            resume=resume,
            progress=progress,
        )
        test = predict_events(part, result.trainer.predict, "test")
        if test is None:
            raise LabelError(f"fold {fold} of {folds} has no event; take fewer folds")
        chosen = predict_events(part, result.trainer.predict, "validation")
        cuts.append(_yields(test, chosen, part.split, len(dataset.classes), background_uncertainty))
        results.append(result)
        samples.append(test)
        seen = predict_events(part, result.trainer.predict, "train", limit=TRAINING_EVENTS // folds)
        trained += [] if seen is None else [seen]
    sample = Sample.joined(samples)
    seen = Sample.joined(trained)
    performance = judge(sample, dataset.classes, train=seen)
    evaluations = tuple(evaluate(one.probabilities, one.y, one.weight, dataset.classes) for one in samples)
    metrics: dict[str, Any] = {
        "test": performance.to_dict(),
        "folds": [one.to_dict() for one in evaluations],
        "scatter": _scatter(evaluations),
        "epochs": [result.metrics["epochs"] for result in results],
        "best_epoch": [result.history.best_epoch for result in results],
    }
    for place, index in enumerate(judged_classes(len(dataset.classes))):
        metrics["test"]["against_rest"][dataset.classes[index]]["best_cut"] = _joint(cuts, place)
    manifest = None
    if out is not None:
        page = report_of(
            performance,
            sample,
            dataset.classes,
            train=seen,
            metrics=metrics,
            title=f"{check_target(Path(out))}: {folds} folds",
            facts={
                "Classes": ", ".join(dataset.classes),
                "Events": f"{len(sample):,}, each judged by a model that has not seen it",
            },
        )
        manifest = write_k_fold(Path(out), parts, [one.trainer for one in results], metrics, description, page.files)
    return KFoldResult(
        tuple(results), sample, performance, evaluations, metrics, None if out is None else Path(out), manifest
    )


def divided(dataset: Dataset, folds: int, validation: float | None = None) -> tuple[Dataset, ...]:
    """Return the dataset once for each fold: with that fold as its test part, and nothing learned yet.

    Raises
    ------
    SettingError
        If there are fewer than 2 folds, or nothing would be left to train on.
    """
    share = dataset.split.validation if validation is None else validation
    parts = []
    for fold in range(folds) if folds > 1 else range(1):
        split = Split.k_fold(folds, fold, validation=share, salt=dataset.split.salt)
        part = copy.copy(dataset)
        part.split, part._specs = split, None
        for name in [name for name in vars(part) if isinstance(getattr(type(part), name, None), cached_property)]:
            del vars(part)[name]
        parts.append(part)
    return tuple(parts)


def _yields(
    test: Sample, validation: Sample | None, split: Split, classes: int, uncertainty: float
) -> list[Yields | None]:
    """Return, for each judged class, what the fold's test events expect above the cut that its validation events chose."""
    found: list[Yields | None] = []
    for index in judged_classes(classes):
        cut = None
        if validation is not None:
            cut = best_cut(
                validation.probabilities[:, index],
                validation.y == index,
                validation.weight,
                share=split.validation,
                background_uncertainty=uncertainty,
            )
        # The test parts of all folds together are all events: nothing is scaled.
        scored = test.probabilities[:, index], test.y == index, test.weight
        found.append(None if cut is None else count_above(cut.cut, *scored, background_uncertainty=uncertainty))
    return found


def _joint(cuts: Sequence[Sequence[Yields | None]], place: int) -> dict[str, Any] | None:
    of_class = [one for fold in cuts if (one := fold[place]) is not None]
    if len(of_class) < len(cuts):
        return None
    return {"folds": [one.to_dict() for one in of_class], "test": add_yields(of_class).to_dict()}


def _scatter(evaluations: Sequence[Evaluation]) -> dict[str, float | None]:
    """Return the standard deviation of each number over the folds; that of their mean is smaller by the root of their number."""
    found = {}
    for name in ("auc", "accuracy", "log_loss"):
        deviation = float(np.std([getattr(one, name) for one in evaluations], ddof=1))
        found[name] = deviation if np.isfinite(deviation) else None
    return found
