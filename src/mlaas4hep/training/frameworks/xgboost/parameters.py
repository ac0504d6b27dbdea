"""XGBoost's parameters, from an estimator or a dict, and whether they fit the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import xgboost

from mlaas4hep.bundle.graph import Output
from mlaas4hep.errors import ModelFileError
from mlaas4hep.training.frameworks.base import Task

__all__ = ["Boosting", "read_boosting"]

ROUNDS = 100  # XGBoost's own default
TWO_CLASSES = ("binary:logistic", "binary:logitraw", "reg:logistic")
CLASSES = ("multi:softprob", "multi:softmax")
VALUES = ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror")


@dataclass(frozen=True)
class Boosting:
    """How trees are boosted.

    Parameters
    ----------
    params : dict
        As ``xgboost.train`` takes them.
    rounds : int
        Boosting rounds at most.
    patience : int or None
        Rounds without a smaller validation loss after which it stops; None where the model does not say.
    """

    params: dict[str, Any]
    rounds: int
    patience: int | None

    @property
    def output(self) -> Output:
        """What the trees' sums are."""
        return Output.VALUES if self.params["objective"] in VALUES else Output.LOGITS

    def with_seed(self, seed: int) -> dict[str, Any]:
        """Return the parameters with a seed, unless the model has its own."""
        own = any(self.params.get(name) is not None for name in ("seed", "random_state"))
        return self.params if own else {**self.params, "seed": seed}


def read_boosting(model: object, task: Task, source: str) -> Boosting:
    """Read an ``XGBClassifier``, an ``XGBRegressor`` or a dict of parameters.

    Parameters
    ----------
    model : object
        In a dict ``n_estimators`` (or ``num_boost_round``) and ``early_stopping_rounds`` stand beside the parameters.
    task : Task
    source : str
        Where it comes from, for messages.

    Raises
    ------
    ModelFileError
        If it is none of these, or its objective does not fit the task.
    """
    if task.kind == "reconstruction":
        raise ModelFileError(source, "trees need labels to learn from; without them use the model 'autoencoder'")
    if isinstance(model, dict):
        params = dict(model)
        also = params.pop("num_boost_round", None)
        rounds = params.pop("n_estimators", also)
        patience = params.pop("early_stopping_rounds", None)
    elif isinstance(model, xgboost.XGBModel):
        params, rounds, patience = model.get_xgb_params(), model.n_estimators, model.early_stopping_rounds
        if model.callbacks:
            raise ModelFileError(source, "callbacks of XGBoost's estimators are not called here; leave them out")
        if isinstance(model, xgboost.XGBClassifier) and task.classes > 2 and params["objective"] == "binary:logistic":
            params["objective"] = None  # the default, of which XGBoost itself makes the one for several classes
    else:
        raise ModelFileError(
            source, f"{type(model).__name__} is not supported; return an XGBClassifier, an XGBRegressor or a dict"
        )
    params = {name: value for name, value in params.items() if value is not None and name != "eval_metric"}
    rounds = ROUNDS if rounds is None else rounds
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ModelFileError(source, f"n_estimators must be an integer ≥ 1; it is {rounds!r}")
    params["objective"] = _objective(params.get("objective"), task, source)
    if params["objective"] in CLASSES:
        params["num_class"] = task.classes
    if params.get("booster") == "gblinear":
        raise ModelFileError(source, "booster 'gblinear' is not of trees; right is 'gbtree' or 'dart'")
    return Boosting(params, rounds, patience)


def _objective(asked: object, task: Task, source: str) -> str:
    """Return the objective, or the one that fits where none is given."""
    allowed: tuple[str, ...]
    if task.kind == "regression":
        allowed, what = VALUES, f"{task.targets} target" + "s" * (task.targets > 1)
    elif task.classes == 2:
        allowed, what = TWO_CLASSES + CLASSES, "2 classes"
    else:
        allowed, what = CLASSES, f"{task.classes} classes"
    if asked is None:
        return allowed[0]
    if asked not in allowed:
        shown = getattr(asked, "__name__", asked)
        raise ModelFileError(source, f"its objective is {shown}; for {what} right is {' or '.join(allowed)}")
    return str(asked)
