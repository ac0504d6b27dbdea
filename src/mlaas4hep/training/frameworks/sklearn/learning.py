"""How an estimator is fitted: batch by batch where it can, and otherwise on all events at once, if they fit into memory."""

from __future__ import annotations

import contextlib
import copy
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import SettingError, TrainingError
from mlaas4hep.streaming.stream.stream import EventStream
from mlaas4hep.training.frameworks.base import Batches, EpochResult, EventBatch, FitSettings, History, Progress, Task
from mlaas4hep.training.frameworks.judging import Judgement, finite, judge, refuse_negative_weights_of

__all__ = ["Learner", "has_partial_fit"]

SHOWN_EVENTS = 50_000  # of which the training loss is told, where all are learned from at once

Floats = npt.NDArray[np.float32]
Predict = Callable[[Floats, npt.NDArray[np.bool_]], Floats]
ValuesOf = Callable[[EventBatch], Floats]


def has_partial_fit(estimator: Any) -> bool:
    """Return whether an estimator can learn batch by batch, with the parameters that it has."""
    return hasattr(estimator, "partial_fit")


class Learner:
    """Fits one estimator in place, or a better copy of it.

    Parameters
    ----------
    estimator : scikit-learn estimator
    task : Task
    values : callable
        What the estimator takes of a batch, float32 ``[n, width]``.
    predict : callable
        Of values and mask, with the estimator as it is.

    Attributes
    ----------
    estimator : scikit-learn estimator
        After :meth:`fit` the one of the best epoch.
    """

    def __init__(self, estimator: Any, task: Task, values: ValuesOf, predict: Predict) -> None:
        self.estimator, self.task = estimator, task
        self._values, self._predict = values, predict
        self._name = type(estimator).__name__
        self._begun = False

    def fit(self, train: Batches, validation: Batches | None, settings: FitSettings, progress: Progress) -> History:
        """Fit, as often as the estimator gains from it.

        Raises
        ------
        SettingError
            If all events at once need more memory than allowed, or there are weights that the estimator does not take.
        TrainingError
            If the loss is no longer a number.
        """
        if isinstance(train, EventStream) and train.rules.weights is not None and not self._weight_name():
            raise self._no_weights(None)
        if not has_partial_fit(self.estimator):
            return self._fit_at_once(train, validation, settings, progress)
        # What iterates says how often at most; the others, as naive Bayes, count each event once.
        epochs = settings.epochs if hasattr(self.estimator, "max_iter") else 1
        results: list[EpochResult] = []
        best, kept = 0, self.estimator
        for number in range(1, epochs + 1):
            begun = time.perf_counter()
            loss = self._one_epoch(train, number, progress)
            judged = self._judge(validation, number)
            results.append(EpochResult(number, loss, *judged, time.perf_counter() - begun))
            if validation is None or not results[best].validation_loss <= judged.loss or number == 1:
                best = number - 1
                kept = self.estimator if validation is None else copy.deepcopy(self.estimator)
            progress.epoch(results[-1])
            if validation is not None and number - 1 - best >= settings.patience:
                break
        self.estimator = kept
        return History(tuple(results), best + 1)

    def learn(self, batch: EventBatch) -> None:
        """Learn from a batch, or from all events at once where the estimator cannot do otherwise."""
        refuse_negative_weights_of("scikit-learn", batch)
        arguments: dict[str, Any] = {}
        weight_name = self._weight_name()
        if weight_name:
            arguments[weight_name] = batch.weight
        elif (batch.weight != 1).any():
            raise self._no_weights(float(batch.weight[batch.weight != 1][0]))
        method = self.estimator.partial_fit if has_partial_fit(self.estimator) else self.estimator.fit
        if has_partial_fit(self.estimator) and self.task.classes and not self._begun:
            arguments["classes"] = np.arange(self.task.classes)
        x = self._values(batch)
        with _as_training_errors(self._name):
            method(x, self._target(batch, x), **arguments)
        self._begun = True

    def _fit_at_once(
        self, train: Batches, validation: Batches | None, settings: FitSettings, progress: Progress
    ) -> History:
        begun = time.perf_counter()
        events = self._gather(train, settings, progress)
        self.learn(events)
        some = events.rows(0, SHOWN_EVENTS)
        loss = self._loss(some).loss
        judged = self._judge(validation, 1)
        result = EpochResult(1, finite(loss, "on training events"), *judged, time.perf_counter() - begun)
        progress.epoch(result)
        return History((result,), 1)

    def _one_epoch(self, train: Batches, number: int, progress: Progress) -> float:
        """Learn from each batch and return the mean loss on batches that were not yet learned from."""
        total, events = 0.0, 0
        for index, batch in enumerate(train):
            n = len(batch.weight)
            loss = self._loss(batch).loss if self._begun else None
            if loss is not None:
                finite(loss, f"in epoch {number}, batch {index + 1}")
            self.learn(batch)
            if loss is None:
                loss = self._loss(batch).loss
            total += n * loss
            events += n
            progress.advance(n, loss)
        return total / max(1, events)

    def _gather(self, train: Batches, settings: FitSettings, progress: Progress) -> _Events:
        """Read all events into memory.

        Raises
        ------
        SettingError
            If they are too many: before the first one is read, where their number is known.
        """
        row = 4 * self.task.width
        most = settings.memory_limit // row
        if settings.events > most:
            raise self._too_many(settings.events * row, settings)
        parts = _Events(settings.events, self.task.width)
        for batch in train:
            if parts.events + len(batch.weight) > most:
                raise self._too_many((parts.events + len(batch.weight)) * row, settings)
            parts.add(batch)
            progress.advance(len(batch.weight), float("nan"))
        return parts

    def _too_many(self, needed: int, settings: FitSettings) -> SettingError:
        rule = (
            f"at least {needed:,} for {self._name}, which learns from all events at once; others learn batch by batch, as"
            " SGDClassifier and MLPClassifier do"
        )
        return SettingError("memory_limit", rule, settings.memory_limit)

    def _judge(self, validation: Batches | None, number: int) -> Judgement:
        if validation is None:
            return Judgement(float("nan"))
        parts = [(self._predict(batch.x, batch.mask), batch.y.copy(), batch.weight.copy()) for batch in validation]
        prediction, y, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
        judged = self._of(prediction, y, weight)
        finite(judged.loss, f"on validation events after epoch {number}")
        return judged

    def _loss(self, batch: EventBatch) -> Judgement:
        return self._of(self._predict(batch.x, batch.mask), batch.y, batch.weight)

    def _of(self, prediction: Floats, y: npt.NDArray[Any], weight: Floats) -> Judgement:
        if self.task.kind == "reconstruction":  # the prediction is the loss already
            return Judgement(float(np.average(prediction[:, 0], weights=weight)))
        return judge(self.task, prediction, y, weight)

    def _target(self, batch: EventBatch, x: Floats) -> npt.NDArray[Any]:
        if self.task.kind == "reconstruction":
            return x
        return batch.y.reshape(-1) if self.task.targets < 2 else batch.y

    def _weight_name(self) -> str:
        """Return under which name the estimator takes weights; empty where it takes none."""
        steps = getattr(self.estimator, "steps", None)
        last = steps[-1][1] if steps else self.estimator
        method = last.partial_fit if has_partial_fit(self.estimator) else last.fit
        if "sample_weight" not in inspect.signature(method).parameters:
            return ""
        return f"{steps[-1][0]}__sample_weight" if steps else "sample_weight"

    def _no_weights(self, got: float | None) -> SettingError:
        return SettingError("weights", f"left out for {self._name}, whose fit takes no weights", got)


class _Events:
    """All events of a stream, side by side in memory."""

    def __init__(self, expected: int, width: int) -> None:
        self.events = 0
        self._x = np.empty((expected, width), np.float32)
        self._mask = np.empty((expected, width), np.bool_)
        self._y: list[npt.NDArray[Any]] = []
        self._weight: list[Floats] = []

    def add(self, batch: EventBatch) -> None:
        end = self.events + len(batch.weight)
        if end > len(self._x):
            for array in (self._x, self._mask):
                array.resize((max(end, 2 * len(array)), array.shape[1]), refcheck=False)
        self._x[self.events : end], self._mask[self.events : end] = batch.x, batch.mask
        self._y.append(batch.y.copy())
        self._weight.append(batch.weight.copy())
        self.events = end

    def rows(self, start: int, stop: int) -> _Events:
        part = _Events(0, self._x.shape[1])
        stop = min(stop, self.events)
        part._x, part._mask = self.x[start:stop], self.mask[start:stop]
        part._y, part._weight = [self.y[start:stop]], [self.weight[start:stop]]
        part.events = stop - start
        return part

    @property
    def x(self) -> Floats:
        return self._x[: self.events]

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        return self._mask[: self.events]

    @property
    def y(self) -> npt.NDArray[Any]:
        return np.concatenate(self._y)

    @property
    def weight(self) -> Floats:
        return np.concatenate(self._weight)


@contextlib.contextmanager
def _as_training_errors(name: str) -> Iterator[None]:
    """Say in our words what an estimator raises on numbers that run away, or on events that it cannot learn from."""
    try:
        yield
    except (ValueError, FloatingPointError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise TrainingError(f"{name} cannot go on: {lines[0]}") from error
