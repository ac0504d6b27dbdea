"""A scikit-learn estimator as the job sees it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.graph import Output
from mlaas4hep.bundle.session import open_session
from mlaas4hep.errors import MissingExtraError, MLaaS4HEPError, ModelFileError
from mlaas4hep.streaming.stream.batch import Batch
from mlaas4hep.training.frameworks.base import Batches, EventBatch, FitSettings, History, Progress, Task
from mlaas4hep.training.frameworks.judging import refuse_negative_weights, refuse_what_is_torchs
from mlaas4hep.training.frameworks.prediction import to_prediction
from mlaas4hep.training.frameworks.sklearn.graph import to_onnx
from mlaas4hep.training.frameworks.sklearn.learning import Learner
from mlaas4hep.training.seeding import reproducible

try:
    from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
    from sklearn.utils import get_tags
except ModuleNotFoundError as error:
    raise MissingExtraError("scikit-learn", "sklearn") from error

__all__ = ["SklearnTrainer", "make_trainer"]

ROWS_AT_ONCE = 8192
TRIED_EVENTS = 256
ABSENT_SHARE = 0.2
TOLERANCE = 1e-5

Floats = npt.NDArray[np.float32]


def make_trainer(returned: object, task: Task, source: str) -> SklearnTrainer:
    """Make a trainer from a classifier, a regressor, or a pipeline that ends in one.

    Raises
    ------
    ModelFileError
        If it is something else, or not for this task.
    """
    if not isinstance(returned, BaseEstimator):
        raise ModelFileError(source, "it must return a scikit-learn classifier, a regressor, or a pipeline of one")
    right = is_classifier(returned) if task.kind == "classification" else is_regressor(returned)
    if not right:
        what = "a classifier" if task.kind == "classification" else "a regressor"
        hint = "; a classifier needs labels" if task.kind == "reconstruction" else ""
        raise ModelFileError(source, f"{type(returned).__name__} is not {what}{hint}")
    return SklearnTrainer(returned, task, source)


class SklearnTrainer:
    """Trains one estimator.

    An estimator with ``partial_fit`` learns batch by batch, any other from all events at once, within ``memory_limit``. Absent values are NaN
    for those that can learn from NaN and whose ONNX knows it too; for all others 0.

    Parameters
    ----------
    estimator : scikit-learn estimator
        It is fitted in place.
    task : Task
        What is to be learned. Without labels a regressor learns to give its input back.
    source : str
        Where it comes from, for messages.
    """

    framework = "sklearn"
    file_name = "model.joblib"

    def __init__(self, estimator: Any, task: Task, source: str) -> None:
        self.estimator, self.task, self.source = estimator, task, source
        self._tried: bool | None = None

    @property
    def output(self) -> Output:
        """What the estimator gives."""
        if self.task.kind != "classification":
            return Output.VALUES if self.task.kind == "regression" else Output.RECONSTRUCTION
        return Output.PROBABILITIES if hasattr(self.estimator, "predict_proba") else Output.LOGITS

    @property
    def takes_nan(self) -> bool:
        """Whether absent values are NaN for the estimator, rather than 0."""
        if self._tried is None:
            self._tried = self._try_nan()
        return self._tried

    def check(self) -> None:
        """Fit a copy on a few made-up events and compare its ONNX with it: all that can fail, before the training."""
        if not self.takes_nan:
            difference = self._difference(nan=False)
            if not difference <= TOLERANCE:
                raise ModelFileError(
                    self.source,
                    f"{type(self.estimator).__name__} and its ONNX differ by {difference:.2g} on events made up to try it",
                )

    def fit(self, train: Batches, validation: Batches | None, settings: FitSettings, progress: Progress) -> History:
        """Fit the estimator, batch by batch if it can, and keep the best epoch's."""
        refuse_what_is_torchs("scikit-learn", settings)
        refuse_negative_weights("scikit-learn", train)
        own = self.estimator.get_params(deep=True)
        unset = [name for name in own if name.rpartition("__")[2] == "random_state" and own[name] is None]
        self.estimator.set_params(**dict.fromkeys(unset, settings.seed))
        learner = Learner(self.estimator, self.task, self._values, self.predict)
        with reproducible(settings.seed):
            history = learner.fit(train, validation, settings, progress)
        self.estimator = learner.estimator
        return history

    def predict(self, x: Floats, mask: npt.NDArray[np.bool_]) -> Floats:
        """Return float32 ``[n, classes]``: probabilities; ``[n, targets]``: standardised values; or ``[n, 1]``: the reconstruction error."""
        return self._predict(self.estimator, x, mask, nan=self.takes_nan)

    def to_onnx(self) -> tuple[bytes, Output]:
        """Return the estimator as ONNX on scaled values, and mask where it takes NaN, and what it gives."""
        return self._convert(self.estimator, nan=self.takes_nan), self.output

    def save(self, path: Path) -> None:
        """Write the estimator; ``joblib.load(path)`` reads it. Load only files that you trust: they can hold any program."""
        import joblib

        joblib.dump(self.estimator, path)

    def _values(self, batch: EventBatch) -> Floats:
        return _with_absent(batch.x, batch.mask, nan=self.takes_nan)

    def _convert(self, estimator: Any, *, nan: bool) -> bytes:
        second_only = self.output is Output.LOGITS and self.task.classes == 2
        return to_onnx(estimator, self.task.width, nan=nan, second_only=second_only, source=self.source)

    def _predict(self, estimator: Any, x: Floats, mask: npt.NDArray[np.bool_], *, nan: bool) -> Floats:
        result = np.empty((len(x), self.task.columns), np.float32)
        for start in range(0, len(x), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            given = self._raw(estimator, _with_absent(x[rows], mask[rows], nan=nan))
            result[rows] = to_prediction(self.output, given, x[rows], mask[rows])
        return result

    def _try_nan(self) -> bool:
        """Return whether the estimator takes NaN and its ONNX gives the same: the converter knows it of some trees only."""
        steps = getattr(self.estimator, "steps", None)  # a pipeline does not say what its first step takes
        first = steps[0][1] if steps else self.estimator
        if self.task.kind == "reconstruction" or not get_tags(first).input_tags.allow_nan:
            return False
        try:
            return self._difference(nan=True) <= TOLERANCE
        except MLaaS4HEPError:
            return False

    def _difference(self, *, nan: bool) -> float:
        """Return by how much a copy of the estimator and its ONNX differ, after learning from made-up events."""
        events = self._some_events()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of so few events that anything may be said
            copy = clone(self.estimator)
            learner = Learner(copy, self.task, lambda batch: _with_absent(batch.x, batch.mask, nan=nan), self.predict)
            try:
                learner.learn(events)
            except MLaaS4HEPError as error:
                raise ModelFileError(self.source, str(error)) from error
            except Exception as error:  # whatever an estimator raises on parameters that it cannot use
                said = (str(error).splitlines() or [""])[0]
                raise ModelFileError(
                    self.source, f"{type(copy).__name__} cannot be fitted: {type(error).__name__}: {said}"
                ) from error
            expected = self._raw(copy, _with_absent(events.x, events.mask, nan=nan))
        session = open_session(self._convert(copy, nan=nan))
        given = dict(zip([item.name for item in session.get_inputs()], (events.x, events.mask), strict=False))
        got = np.asarray(session.run(None, given)[0])
        return float((np.abs(got - expected) / np.maximum(1, np.abs(expected))).max())

    def _raw(self, estimator: Any, values: Floats) -> npt.NDArray[Any]:
        name = {Output.PROBABILITIES: "predict_proba", Output.LOGITS: "decision_function"}.get(self.output, "predict")
        return np.asarray(getattr(estimator, name)(values)).reshape(len(values), -1)

    def _some_events(self) -> Batch:
        random = np.random.default_rng(0)
        n, width = TRIED_EVENTS, self.task.width
        y: npt.NDArray[Any] = np.arange(n) % max(1, self.task.classes)
        if self.task.kind == "regression":
            y = random.normal(size=(n, self.task.targets)).astype(np.float32)
        x = random.random((n, width), np.float32)
        x[:, 0] += y if self.task.classes else 0
        mask = random.random((n, width)) < ABSENT_SHARE
        mask[:, 0] = False
        return Batch(np.where(mask, np.float32(0), x), mask, y, np.ones(n, np.float32), np.empty(n, np.void))


def _with_absent(x: Floats, mask: npt.NDArray[np.bool_], *, nan: bool) -> Floats:
    return np.where(mask, np.float32(np.nan), x) if nan else x
