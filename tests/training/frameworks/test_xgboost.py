"""XGBoost: parameters from an estimator or a dict, and trees as ONNX."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost

from mlaas4hep.bundle.graph import FEATURES, complete_graph
from mlaas4hep.bundle.session import open_session
from mlaas4hep.errors import ModelFileError
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.training.frameworks.base import FitSettings, NoProgress, Task
from mlaas4hep.training.frameworks.xgboost.trainer import make_trainer

from .toy import ToyBatches, toy_events

AS_IT_IS = Encoding(tuple(Feature(f"f{place}", False, 1) for place in range(5)))


def trained(model, task, events, tmp_path, validation=None, epochs=20):
    trainer = make_trainer(model, task, "toy.py")
    trainer.check()
    settings = FitSettings(epochs, 4, 0, tmp_path)
    return trainer, trainer.fit(ToyBatches(events, seed=1), validation, settings, NoProgress())


@pytest.mark.parametrize(
    ("model", "classes"),
    [
        (xgboost.XGBClassifier(n_estimators=20, n_jobs=1), 2),
        (xgboost.XGBClassifier(n_estimators=10, n_jobs=1), 3),
        (xgboost.XGBRegressor(objective="reg:logistic", base_score=0.3, n_estimators=10, n_jobs=1), 2),
        ({"objective": "multi:softprob", "n_estimators": 10, "nthread": 1}, 2),
        ({"booster": "dart", "rate_drop": 0.5, "n_estimators": 12, "nthread": 1}, 2),
        ({"num_parallel_tree": 3, "subsample": 0.5, "num_boost_round": 4, "nthread": 1}, 3),
        ({"objective": "binary:logitraw", "n_estimators": 8, "grow_policy": "lossguide", "nthread": 1}, 2),
    ],
)
def test_the_graph_gives_what_xgboost_gives_on_the_very_values_of_its_thresholds(model, classes, tmp_path):
    events = toy_events(800, classes)
    trainer, _ = trained(model, Task(5, classes), events, tmp_path)
    graph, output = trainer.to_onnx()
    session = open_session(complete_graph(graph, AS_IT_IS, output, classes))
    raw = np.where(events.mask, np.float32(np.nan), events.x)  # thresholds are values of training events
    got = session.run(None, {FEATURES: raw})[0]
    assert got == pytest.approx(trainer.predict(events.x, events.mask), abs=1e-6)
    margin = trainer.booster.predict(xgboost.DMatrix(raw), output_margin=True)
    expected = 1 / (1 + np.exp(-margin)) if margin.ndim == 1 else None
    if expected is not None:
        assert got[:, 1] == pytest.approx(expected, abs=1e-6)


def test_several_values_are_predicted_at_once(tmp_path):
    events = toy_events(600)
    events = events._replace(y=np.stack([events.x[:, 0], -events.x[:, 0]], axis=1))
    trainer, history = trained({"n_estimators": 20, "nthread": 1}, Task(5, 0, targets=2), events, tmp_path)
    graph, output = trainer.to_onnx()
    raw = np.where(events.mask, np.float32(np.nan), events.x)
    got = open_session(complete_graph(graph, AS_IT_IS, output, 2)).run(None, {FEATURES: raw})[0]
    p = trainer.predict(events.x, events.mask)
    assert got == pytest.approx(p, abs=1e-5)
    assert history.epochs[-1].loss == pytest.approx(((p - events.y) ** 2).mean(), rel=1e-3)


def test_the_trees_kept_are_those_up_to_the_round_of_the_smallest_validation_loss(tmp_path):
    validation = toy_events(300, seed=8)
    model = {"n_estimators": 200, "nthread": 1, "learning_rate": 0.5, "early_stopping_rounds": 10}
    trainer, history = trained(model, Task(5, 2), toy_events(300), tmp_path, ToyBatches(validation), epochs=100)
    kept = trainer.booster.num_boosted_rounds()
    assert kept < 190
    p = trainer.predict(validation.x, validation.mask)
    loss = -np.log(p[np.arange(300), validation.y]).mean()
    assert loss == pytest.approx(min(result.validation_loss for result in history.epochs), rel=1e-4)
    assert (kept - 1) // 2 + 1 == history.best_epoch
    assert len(history.epochs) == (kept + 10 - 1) // 2 + 1
    assert not list(tmp_path.iterdir())  # what was binned is gone


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"max_dept": 3}, "no parameter 'max_dept'; nearest: 'max_depth'"),
        ({"max_depth": "deep"}, "Invalid Parameter format for max_depth"),
        (
            {"objective": "reg:squarederror"},
            "its objective is reg:squarederror; for 2 classes right is binary:logistic",
        ),
        (xgboost.XGBRegressor(), "its objective is reg:squarederror"),
        ({"booster": "gblinear"}, "'gblinear' is not of trees"),
        ({"n_estimators": 0}, "n_estimators must be an integer ≥ 1; it is 0"),
        (xgboost.XGBRanker(), "its objective is rank:ndcg"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_the_training(model, said):
    with pytest.raises(ModelFileError, match=said):
        make_trainer(model, Task(5, 2), "toy.py").check()
