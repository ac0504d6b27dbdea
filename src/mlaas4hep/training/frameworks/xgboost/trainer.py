"""Boosted trees as the job sees them."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.graph import Output
from mlaas4hep.errors import MissingExtraError, ModelFileError, TrainingError, nearest_names, quoted
from mlaas4hep.training.frameworks.base import Batches, EpochResult, FitSettings, History, Progress, Task
from mlaas4hep.training.frameworks.judging import finite, refuse_negative_weights, refuse_what_is_torchs
from mlaas4hep.training.frameworks.prediction import to_prediction

try:
    import xgboost
except ModuleNotFoundError as error:
    raise MissingExtraError("XGBoost", "xgboost") from error

from mlaas4hep.training.frameworks.xgboost.graph import trees_to_onnx
from mlaas4hep.training.frameworks.xgboost.pages import EventPages, with_nan
from mlaas4hep.training.frameworks.xgboost.parameters import Boosting, read_boosting

__all__ = ["XGBoostTrainer", "make_trainer"]

TRIED_EVENTS = 64
TRAIN, VALIDATION = "train", "validation"

Floats = npt.NDArray[np.float32]


def make_trainer(returned: object, task: Task, source: str) -> XGBoostTrainer:
    """Make a trainer from an ``XGBClassifier``, an ``XGBRegressor`` or a dict of parameters.

    Raises
    ------
    ModelFileError
        If it is none of these, or its objective does not fit the task.
    """
    return XGBoostTrainer(read_boosting(returned, task, source), task, source)


class XGBoostTrainer:
    """Boosts trees.

    Events are read twice or more from the stream and kept, binned, in files. Memory grows by 0.3 kB an event of 125 places (measured with
    200,000 and 600,000 events), of which the values alone would be 0.5 kB. What an epoch is elsewhere is here a share of the boosting rounds, so
    that ``epochs`` says how often results are shown and ``patience`` counts in these.

    Parameters
    ----------
    boosting : Boosting
        Parameters and rounds.
    task : Task
        What is to be learned.
    source : str
        Where the model comes from, for messages.

    Attributes
    ----------
    booster : xgboost.Booster or None
        After the training, with the trees up to the best round.
    """

    framework = "xgboost"
    file_name = "model.ubj"

    def __init__(self, boosting: Boosting, task: Task, source: str) -> None:
        self.boosting, self.task, self.source = boosting, task, source
        self.booster: Any = None

    def check(self) -> None:
        """Grow a tree on a few made-up events and convert it: wrong parameters show."""
        random = np.random.default_rng(0)
        x = random.normal(size=(TRIED_EVENTS, self.task.width)).astype(np.float32)
        y: npt.NDArray[Any] = np.arange(TRIED_EVENTS) % max(1, self.task.classes)
        if self.task.kind == "regression":
            y = random.normal(size=(TRIED_EVENTS, self.task.targets))
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                booster = xgboost.train(self.boosting.params, xgboost.DMatrix(x, y), 1)
            trees_to_onnx(booster, self.task.width)
        except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
            raise ModelFileError(self.source, f"XGBoost does not take the model: {_line(error)}") from error
        for warning in caught:
            self._refuse_unknown(str(warning.message))

    def fit(self, train: Batches, validation: Batches | None, settings: FitSettings, progress: Progress) -> History:
        """Boost until the rounds are over or the validation loss no longer falls, and keep the trees up to the best round."""
        refuse_what_is_torchs("XGBoost", settings)
        refuse_negative_weights("XGBoost", train)
        settings.checkpoints.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=".events-", dir=settings.checkpoints) as folder,
            contextlib.ExitStack() as matrices,
        ):
            try:
                pages = EventPages(train, self.task, Path(folder) / TRAIN)
                matrix = xgboost.ExtMemQuantileDMatrix(pages, max_bin=self.boosting.params.get("max_bin"))
                # XGBoost removes its files when it lets go of a matrix: after an error that would be later than the folder goes.
                matrices.callback(matrix.__del__)
                judged = [(matrix, TRAIN)]
                if validation is not None:
                    others = EventPages(validation, self.task, Path(folder) / VALIDATION)
                    judged.append((xgboost.ExtMemQuantileDMatrix(others, ref=matrix), VALIDATION))
                    matrices.callback(judged[-1][0].__del__)
                rounds = _Rounds(self.boosting, settings, progress, pages.events, judged[-1][1])
                booster = xgboost.train(
                    {**self.boosting.with_seed(settings.seed), "eval_metric": self._metrics},
                    matrix,
                    self.boosting.rounds,
                    evals=judged,
                    callbacks=[rounds],
                    verbose_eval=False,
                )
            except xgboost.core.XGBoostError as error:
                raise TrainingError(f"XGBoost cannot go on: {_line(error)}") from error
        kept = rounds.best_round + 1 if validation is not None else booster.num_boosted_rounds()
        self.booster = booster[:kept]
        return rounds.history(with_validation=validation is not None)

    def predict(self, x: Floats, mask: npt.NDArray[np.bool_]) -> Floats:
        """Return float32 ``[n, classes]``: probabilities; or ``[n, targets]``: standardised values."""
        margin = self.booster.inplace_predict(with_nan(x, mask), predict_type="margin")
        return to_prediction(self.boosting.output, margin, x, mask)

    def to_onnx(self) -> tuple[bytes, Output]:
        """Return the trees as ONNX on scaled values and mask, and what their sums are."""
        return trees_to_onnx(self.booster, self.task.width), self.boosting.output

    def save(self, path: Path) -> None:
        """Write the trees in XGBoost's format; ``xgboost.Booster(model_file=path)`` reads them."""
        self.booster.save_model(path)

    @property
    def _metrics(self) -> list[str]:
        """Return XGBoost's names of loss, area under the ROC curve and share of wrong events."""
        if self.task.kind == "regression":
            return ["rmse"]
        several = self.boosting.params["objective"].startswith("multi:")
        return ["mlogloss", "auc", "merror"] if several else ["logloss", "auc", "error"]

    def _refuse_unknown(self, warning: str) -> None:
        """Raise ModelFileError if XGBoost warned of a parameter that it does not know."""
        if "are not used" not in warning:
            return
        listed = warning.partition("{")[2].partition("}")[0]
        unknown = [name.strip().strip('"') for name in listed.split(",")]
        known = xgboost.XGBModel().get_params()
        near = nearest_names(unknown[0], known)
        hint = f"; nearest: {quoted(near)}" if near else ""
        raise ModelFileError(self.source, f"XGBoost has no parameter {quoted(unknown)}{hint}")


class _Rounds(xgboost.callback.TrainingCallback):  # type: ignore[misc]  # XGBoost is not checked
    """Shows results, stops when the loss no longer falls, and notes the best round."""

    def __init__(self, boosting: Boosting, settings: FitSettings, progress: Progress, events: int, judged: str) -> None:
        super().__init__()
        self.best_round, self.best_loss = 0, math.inf
        self.results: list[EpochResult] = []
        self._rounds = boosting.rounds
        self._size = math.ceil(boosting.rounds / settings.epochs)
        self._patience = boosting.patience or settings.patience * self._size
        self._progress, self._events, self._judged = progress, events, judged
        self._begun, self._smallest, self._told = time.perf_counter(), math.inf, 0

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Take note of a round; return whether it was the last one."""
        loss, *others = ([float(values[-1]) for values in evals_log[name].values()] for name in (TRAIN, self._judged))
        training, judged = loss[0], others[0]
        finite(training + judged[0], f"after {epoch + 1} trees")
        self._smallest = min(self._smallest, judged[0])
        if judged[0] < self.best_loss:
            self.best_round, self.best_loss = epoch, judged[0]
        within = epoch % self._size + 1
        share = self._events * within // self._size
        self._progress.advance(share - self._told, training)
        self._told = share
        over = epoch + 1 == self._rounds or (self._judged == VALIDATION and epoch - self.best_round >= self._patience)
        if within == self._size or over:
            self._finish(training, judged)
        return over

    def history(self, *, with_validation: bool) -> History:
        """Return all results and the one that the best round belongs to."""
        best = self.best_round // self._size + 1 if with_validation else len(self.results)
        return History(tuple(self.results), best)

    def _finish(self, training: float, judged: list[float]) -> None:
        self._progress.advance(self._events - self._told, training)
        auc, wrong = judged[1:] if len(judged) == 3 else (math.nan, math.nan)
        smallest = self._smallest
        if len(judged) == 1:  # the square root of what others call their loss
            training, smallest = training**2, smallest**2
        if self._judged == TRAIN:
            smallest = auc = wrong = math.nan
        seconds = time.perf_counter() - self._begun
        result = EpochResult(len(self.results) + 1, training, smallest, auc, 1 - wrong, seconds)
        self.results.append(result)
        self._begun, self._smallest, self._told = time.perf_counter(), math.inf, 0
        self._progress.epoch(result)


def _line(error: BaseException) -> str:
    """Return what XGBoost says without its place in the C++ source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in lines if "Stack trace" not in line), type(error).__name__)
    return text.rpartition("] ")[2] or text
