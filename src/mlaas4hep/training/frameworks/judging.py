"""What an epoch's validation gives, in the same numbers for every framework, and the settings and weights that a framework cannot take."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import SettingError, TrainingError
from mlaas4hep.streaming.stream.stream import EventStream
from mlaas4hep.streaming.weights.weights import refuse_negative
from mlaas4hep.training.evaluation import evaluate
from mlaas4hep.training.frameworks.base import Batches, EventBatch, FitSettings, Task

__all__ = [
    "Judgement",
    "finite",
    "judge",
    "refuse_negative_weights",
    "refuse_negative_weights_of",
    "refuse_what_is_torchs",
]

Floats = npt.NDArray[np.float32]


class Judgement(NamedTuple):
    """How well a model predicts some events; NaN where there are no classes.

    Attributes
    ----------
    loss : float
        Weighted mean of −ln p of the true class, or of the squared difference to the targets.
    auc, accuracy : float
    """

    loss: float
    auc: float = math.nan
    accuracy: float = math.nan


def judge(task: Task, prediction: Floats, y: npt.NDArray[Any], weight: Floats) -> Judgement:
    """Judge predictions of classes or of values.

    Parameters
    ----------
    task : Task
    prediction : float32 array of shape ``[n, columns]``
        As :meth:`Trainer.predict` returns it.
    y, weight
        As in a batch.

    Examples
    --------
    >>> half = np.full((4, 2), 0.5, np.float32)
    >>> round(judge(Task(3, 2), half, np.array([0, 1, 1, 0]), np.ones(4, np.float32)).loss, 3)
    0.693
    """
    if task.kind == "classification":
        judged = evaluate(prediction, y.astype(np.int64), weight)
        return Judgement(judged.log_loss, judged.auc, judged.accuracy)
    squares = ((prediction - y.reshape(prediction.shape)) ** 2).mean(axis=1, dtype=np.float64)
    return Judgement(float(np.average(squares, weights=weight)))


def finite(loss: float, where: str) -> float:
    """Return a loss if it is a number.

    Raises
    ------
    TrainingError
        If it is not; ``where`` says in which epoch.
    """
    if not math.isfinite(loss):
        raise TrainingError(f"the loss is {loss} {where}; a smaller learning rate may help")
    return loss


def refuse_negative_weights(framework: str, batches: Batches) -> None:
    """Raise SettingError before anything is read if a stream has negative training weights."""
    if isinstance(batches, EventStream) and batches.rules.weights is not None:
        refuse_negative(framework, batches.rules.weights)


def refuse_negative_weights_of(framework: str, batch: EventBatch) -> None:
    """Raise SettingError if a batch has negative weights; for events that come from elsewhere than a stream."""
    if batch.weight.min(initial=0) < 0:
        raise SettingError(
            "weights.negative",
            f"'abs' or 'drop' for {framework}, which takes no negative weights",
            float(batch.weight.min()),
        )


def refuse_what_is_torchs(framework: str, settings: FitSettings) -> None:
    """Raise SettingError for a setting that only trainings with PyTorch follow.

    Examples
    --------
    >>> from pathlib import Path
    >>> refuse_what_is_torchs("XGBoost", FitSettings(1, 1, 0, Path("."), clip=1.0))
    Traceback (most recent call last):
    mlaas4hep.errors.SettingError: setting 'clip' must be left out for XGBoost: only trainings with PyTorch know it; got 1.0
    """
    plain = FitSettings(settings.epochs, settings.patience, settings.seed, settings.checkpoints)
    for name in ("resume", "precision", "clip", "compile", "find_learning_rate"):
        value = getattr(settings, name)
        if value != getattr(plain, name):
            raise SettingError(name, f"left out for {framework}: only trainings with PyTorch know it", value)
