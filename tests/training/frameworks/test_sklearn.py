"""Estimators of scikit-learn: which learn batch by batch, what they see where a value is absent, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import ensemble, impute, linear_model, naive_bayes, neural_network, pipeline, preprocessing, svm

from mlaas4hep.bundle.graph import FEATURES, Output, complete_graph
from mlaas4hep.bundle.session import open_session
from mlaas4hep.errors import ModelFileError, SettingError
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.training.frameworks.base import FitSettings, NoProgress, Task
from mlaas4hep.training.frameworks.sklearn.trainer import make_trainer

from .toy import ToyBatches, toy_events


def scaled(last):
    return pipeline.make_pipeline(preprocessing.StandardScaler(), last)


ESTIMATORS = {
    "sgd-hinge": linear_model.SGDClassifier,
    "sgd-log": lambda: linear_model.SGDClassifier(loss="log_loss"),
    "bayes": naive_bayes.GaussianNB,
    "mlp": lambda: neural_network.MLPClassifier((8,), learning_rate_init=0.05),
    "logistic": linear_model.LogisticRegression,
    "forest": lambda: ensemble.RandomForestClassifier(10),
    "boosting": lambda: ensemble.HistGradientBoostingClassifier(max_iter=10),
    "svm": svm.LinearSVC,
    "ridge": linear_model.RidgeClassifier,
    "pipeline": lambda: scaled(linear_model.LogisticRegression()),
    "pipeline-svm": lambda: scaled(svm.LinearSVC()),
    "pipeline-imputed": lambda: pipeline.make_pipeline(impute.SimpleImputer(), ensemble.RandomForestClassifier(10)),
}
BATCHWISE = {"sgd-hinge", "sgd-log", "bayes", "mlp"}
SEE_NAN = {"boosting", "pipeline-imputed"}  # a forest would, but its ONNX would not
DECIDE = {"sgd-hinge", "svm", "ridge", "pipeline-svm"}


class Unread:
    """Batches that must not be read."""

    epoch = 0

    def __iter__(self):
        raise AssertionError("the events were read")


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_the_graph_gives_what_the_estimator_gives(name, classes, tmp_path):
    trainer = make_trainer(ESTIMATORS[name](), Task(5, classes), "toy.py")
    trainer.check()
    batches = ToyBatches(toy_events(600, classes), seed=1)
    trainer.fit(batches, None, FitSettings(2, 2, 0, tmp_path), NoProgress())
    assert trainer.takes_nan == (name in SEE_NAN)
    assert (trainer.output is Output.LOGITS) == (name in DECIDE)
    assert hasattr(trainer.estimator, "partial_fit") == (name in BATCHWISE)
    assert batches.epoch == (2 if name in BATCHWISE - {"bayes"} else 1)  # naive Bayes would count events twice
    graph, output = trainer.to_onnx()
    as_it_is = Encoding(tuple(Feature(f"f{place}", False, 1) for place in range(5)))
    session = open_session(complete_graph(graph, as_it_is, output, classes))
    held_out = toy_events(500, classes, seed=9)
    raw = np.where(held_out.mask, np.float32(np.nan), held_out.x)
    p = trainer.predict(held_out.x, held_out.mask)
    assert session.run(None, {FEATURES: raw})[0] == pytest.approx(p, abs=1e-5)
    assert (p.argmax(axis=1) == held_out.y).mean() > 1.2 / classes


def test_a_decision_becomes_a_probability_by_the_logistic_function(tmp_path):
    trainer = make_trainer(svm.LinearSVC(), Task(5, 2), "toy.py")
    trainer.fit(ToyBatches(toy_events(300)), None, FitSettings(1, 1, 0, tmp_path), NoProgress())
    batch = toy_events(20)
    expected = 1 / (1 + np.exp(-trainer.estimator.decision_function(batch.x)))
    assert trainer.predict(batch.x, batch.mask)[:, 1] == pytest.approx(expected, rel=1e-5)


def test_an_estimator_that_needs_more_memory_than_allowed_is_refused_before_an_event_is_read(tmp_path):
    trainer = make_trainer(ensemble.RandomForestClassifier(), Task(5, 2), "toy.py")
    settings = FitSettings(1, 1, 0, tmp_path, events=1001, memory_limit=20_000)
    with pytest.raises(SettingError, match="'memory_limit' must be at least 20,020 for RandomForestClassifier"):
        trainer.fit(Unread(), None, settings, NoProgress())


def test_the_memory_limit_holds_where_the_number_of_events_is_not_known(tmp_path):
    trainer = make_trainer(ensemble.RandomForestClassifier(5), Task(5, 2), "toy.py")
    settings = FitSettings(1, 1, 0, tmp_path, memory_limit=20 * 300)
    trainer.fit(ToyBatches(toy_events(300)), None, settings, NoProgress())
    with pytest.raises(SettingError, match="memory_limit"):
        trainer.fit(ToyBatches(toy_events(301)), None, settings, NoProgress())


def test_weights_are_refused_where_the_estimator_takes_none(tmp_path):
    from sklearn.neighbors import KNeighborsClassifier

    events = toy_events(50)
    trainer = make_trainer(KNeighborsClassifier(), Task(5, 2), "toy.py")
    trainer.fit(ToyBatches(events), None, FitSettings(1, 1, 0, tmp_path), NoProgress())
    events.weight[3] = 2
    with pytest.raises(SettingError, match="'weights' must be left out for KNeighborsClassifier"):
        trainer.fit(ToyBatches(events), None, FitSettings(1, 1, 0, tmp_path), NoProgress())


def test_a_regressor_gives_back_events_without_labels_and_predicts_values(tmp_path):
    events = toy_events(400, 0)
    for task, y in ((Task(5, 0), events.y), (Task(5, 0, targets=2), events.x[:, :2].copy())):
        trainer = make_trainer(neural_network.MLPRegressor(hidden_layer_sizes=(6,)), task, "toy.py")
        trainer.check()
        trainer.fit(ToyBatches(events._replace(y=y), seed=1), None, FitSettings(5, 5, 0, tmp_path), NoProgress())
        graph, output = trainer.to_onnx()
        as_it_is = Encoding(tuple(Feature(f"f{place}", False, 1) for place in range(5)))
        raw = np.where(events.mask, np.float32(np.nan), events.x)
        got = open_session(complete_graph(graph, as_it_is, output, task.columns)).run(None, {FEATURES: raw})[0]
        assert got == pytest.approx(trainer.predict(events.x, events.mask), abs=1e-4)


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (linear_model.LinearRegression(), "LinearRegression is not a classifier"),
        (preprocessing.StandardScaler(), "StandardScaler is not a classifier"),
        (linear_model.SGDClassifier(loss="nope"), "The 'loss' parameter of SGDClassifier must be a str among"),
        (neural_network.MLPClassifier(early_stopping=True), "partial_fit does not support early_stopping=True"),
        (scaled(ensemble.IsolationForest()), "Pipeline is not a classifier"),
    ],
)
def test_an_estimator_that_does_not_fit_is_refused_before_the_training(estimator, said):
    with pytest.raises(ModelFileError, match=said):
        make_trainer(estimator, Task(5, 2), "toy.py").check()
