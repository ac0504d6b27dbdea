"""What every framework's trainer must do: one suite, run for each."""

from __future__ import annotations

import functools
import random
import signal

import numpy as np
import pytest
import torch
from torch import nn

from mlaas4hep.bundle.graph import FEATURES, complete_graph
from mlaas4hep.bundle.session import open_session
from mlaas4hep.errors import ModelFileError, SettingError, TrainingError
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.training.evaluation import area_under_roc
from mlaas4hep.training.frameworks import trainer_for
from mlaas4hep.training.frameworks.base import FitSettings, NoProgress, Task

from .toy import ToyBatch, ToyBatches, toy_events


def torch_model(width, columns):
    torch.manual_seed(5)
    return nn.Sequential(
        nn.BatchNorm1d(width), nn.Linear(width, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, columns)
    )


def keras_model(width, columns):
    from mlaas4hep.training.frameworks.keras.library import keras

    keras.utils.set_random_seed(5)
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dropout(0.1), keras.layers.Dense(columns)]
    model = keras.Sequential([keras.Input((width,)), keras.layers.BatchNormalization(), *layers])
    if columns <= 3:
        kind = keras.losses.BinaryCrossentropy if columns == 1 else keras.losses.SparseCategoricalCrossentropy
        model.compile(keras.optimizers.Adam(0.01), kind(from_logits=True))
    return model


def xgboost_model(width, columns):
    return {"n_estimators": 40, "max_depth": 3, "subsample": 0.8, "nthread": 1}


def batchwise_model(width, columns):
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((16,), learning_rate_init=0.01)


def forest_model(width, columns):
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(40, max_depth=6)


MODELS = {
    "torch": torch_model,
    "keras": keras_model,
    "xgboost": xgboost_model,
    "sklearn-batches": batchwise_model,
    "sklearn-at-once": forest_model,
}
STEPWISE = [name for name in sorted(MODELS) if name != "sklearn-at-once"]
NETWORKS = ["keras", "torch"]


def of(framework, classes=2, columns=1, width=5):
    return trainer_for(MODELS[framework](width, columns), Task(width, classes), "toy.py")


@pytest.fixture(params=sorted(MODELS))
def make(request):
    return functools.partial(of, request.param)


@pytest.fixture(params=STEPWISE)
def make_stepwise(request):
    return functools.partial(of, request.param)


@pytest.fixture(params=NETWORKS)
def make_network(request):
    return functools.partial(of, request.param)


@pytest.fixture
def train():
    return ToyBatches(toy_events(1500), seed=1)


@pytest.fixture
def held_out():
    return toy_events(1000, seed=9)


class Told(NoProgress):
    def __init__(self):
        self.events, self.results = 0, []

    def advance(self, events, loss):
        self.events += events

    def epoch(self, result):
        self.results.append(result)


def fit(trainer, train, tmp_path, *, epochs=4, patience=10, validation=None, seed=3, progress=None):
    settings = FitSettings(epochs=epochs, patience=patience, seed=seed, checkpoints=tmp_path / "checkpoints")
    return trainer.fit(train, validation, settings, progress or NoProgress())


@pytest.mark.parametrize(("classes", "columns"), [(2, 1), (3, 3)])
def test_it_learns_what_can_be_learned(make, tmp_path, classes, columns):
    trainer = make(classes, columns)
    fit(trainer, ToyBatches(toy_events(2000, classes), seed=1), tmp_path, epochs=12)
    held_out = toy_events(1000, classes, seed=9)
    p = trainer.predict(held_out.x, held_out.mask)
    assert p.dtype == np.float32
    assert p.shape == (1000, classes)
    assert p.sum(axis=1) == pytest.approx(np.ones(1000), abs=1e-6)
    for k in range(classes):
        best = area_under_roc(-np.abs(held_out.x[:, 0] - 2 * k), held_out.y == k)[0]  # distance to the class's centre
        assert area_under_roc(p[:, k], held_out.y == k)[0] > best - 0.05


def test_the_same_seed_gives_the_same_model_and_another_seed_another(make, tmp_path, held_out):
    def predictions(seed):
        trainer = make()
        fit(trainer, ToyBatches(toy_events(500), seed=1), tmp_path, epochs=2, seed=seed)
        return trainer.predict(held_out.x, held_out.mask)

    first = predictions(3)
    assert np.array_equal(first, predictions(3))
    assert not np.array_equal(first, predictions(4))


def test_training_leaves_the_users_random_numbers_and_threads_alone(make, tmp_path):
    trainer = make()
    threads = torch.get_num_threads()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    fit(trainer, ToyBatches(toy_events(200), seed=1), tmp_path, epochs=1)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert after == before
    assert torch.get_num_threads() == threads


def test_the_weights_kept_are_those_of_the_epoch_with_the_smallest_validation_loss(make_stepwise, tmp_path):
    noise = toy_events(60, seed=2)  # so few that later epochs only learn them by heart
    validation = ToyBatches(toy_events(300, seed=8))
    trainer = make_stepwise()
    history = fit(trainer, ToyBatches(noise, size=10, seed=1), tmp_path, epochs=60, patience=6, validation=validation)
    losses = [result.validation_loss for result in history.epochs]
    assert history.best_epoch == int(np.argmin(losses)) + 1
    assert len(losses) in (60, history.best_epoch + 6)
    p = trainer.predict(validation.batch.x, validation.batch.mask)
    true = p[np.arange(300), validation.batch.y]
    assert -np.log(true).mean() == pytest.approx(min(losses), rel=1e-4)


def test_without_validation_events_the_last_epoch_is_kept(make, tmp_path, train):
    history = fit(make(), train, tmp_path, epochs=2)
    assert history.best_epoch == len(history.epochs)
    assert np.isnan(history.epochs[0].validation_loss)


def test_progress_is_told_of_every_event_and_epoch(make, tmp_path, train):
    told = Told()
    history = fit(make(), train, tmp_path, epochs=2, validation=ToyBatches(toy_events(100)), progress=told)
    assert told.events == len(history.epochs) * 1500
    assert tuple(told.results) == history.epochs
    assert [result.epoch for result in told.results] == [1, 2][: len(history.epochs)]
    assert all(result.seconds > 0 and 0.5 < result.auc <= 1 for result in told.results)


def test_nothing_is_printed_and_nothing_warns(make, tmp_path, train, capfd):
    trainer = make()
    trainer.check()
    fit(trainer, train, tmp_path, epochs=1, validation=ToyBatches(toy_events(100)))
    trainer.to_onnx()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("classes", "columns"), [(2, 1), (3, 3)])
def test_the_graph_gives_the_frameworks_numbers_for_any_number_of_events(make, tmp_path, classes, columns):
    trainer = make(classes, columns)
    fit(trainer, ToyBatches(toy_events(300, classes), seed=1), tmp_path, epochs=1)
    graph, output = trainer.to_onnx()
    as_it_is = Encoding(tuple(Feature(f"f{place}", False, 1) for place in range(5)))
    session = open_session(complete_graph(graph, as_it_is, output, max(1, classes)))
    for events in (1, 2, 77):
        batch = toy_events(events, classes, seed=4)
        raw = np.where(batch.mask, np.float32(np.nan), batch.x)
        assert session.run(None, {FEATURES: raw})[0] == pytest.approx(trainer.predict(batch.x, batch.mask), abs=1e-5)


def test_without_labels_a_network_gives_back_its_input(make_network, tmp_path):
    trainer = make_network(0, 5)
    trainer.check()
    events = toy_events(300, 0)
    history = fit(trainer, ToyBatches(events, seed=1), tmp_path, epochs=6)
    assert history.epochs[-1].loss < history.epochs[0].loss
    errors = trainer.predict(events.x, events.mask)
    assert errors.shape == (300, 1)
    graph, output = trainer.to_onnx()
    as_it_is = Encoding(tuple(Feature(f"f{place}", False, 1) for place in range(5)))
    raw = np.where(events.mask, np.float32(np.nan), events.x)
    got = open_session(complete_graph(graph, as_it_is, output, 1)).run(None, {FEATURES: raw})[0]
    assert got == pytest.approx(errors, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("framework", "said"), [("xgboost", "need labels"), ("sklearn-at-once", "needs labels")])
def test_without_labels_what_cannot_give_back_its_input_is_refused(framework, said):
    with pytest.raises(ModelFileError, match=said):
        of(framework, classes=0, columns=5)


def test_weights_change_what_is_learned(make, tmp_path):
    random = np.random.default_rng(3)
    n = 3000
    x, mask, y = random.random((n, 5), np.float32), np.zeros((n, 5), np.bool_), random.integers(0, 2, n)
    held_out = toy_events(200, 1)

    def mean_prediction(of_second_class):
        weight = np.where(y == 1, of_second_class, 1).astype(np.float32)
        trainer = make()
        fit(trainer, ToyBatches(ToyBatch(x, mask, y, weight), seed=1), tmp_path, epochs=6)
        return trainer.predict(random.random((200, 5), np.float32), held_out.mask & False)[:, 1].mean()

    assert mean_prediction(1) == pytest.approx(0.5, abs=0.07)
    assert mean_prediction(4) == pytest.approx(0.8, abs=0.07)


def xgboost_trees():
    return {"n_estimators": 5, "learning_rate": 1.0, "nthread": 1}


def sklearn_trees():
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=5, learning_rate=1.0)


@pytest.mark.parametrize("trees", [xgboost_trees, sklearn_trees])
def test_trees_learn_from_absence_and_so_does_their_graph(trees, tmp_path):
    events = toy_events(400)
    mask = np.zeros_like(events.mask)
    mask[:, 1] = events.y == 1
    x = np.zeros_like(events.x)  # so that 0 where present and 0 where absent look alike
    trainer = trainer_for(trees(), Task(5, 2), "toy.py")
    trainer.check()
    fit(trainer, ToyBatches(events._replace(x=x, mask=mask), seed=1), tmp_path, epochs=1)
    graph, output = trainer.to_onnx()
    p = trainer.predict(x, mask)
    assert (p[:, 1] > 0.9).tolist() == mask[:, 1].tolist()
    as_it_is = Encoding(tuple(Feature(f"f{place}", False, 1) for place in range(5)))
    session = open_session(complete_graph(graph, as_it_is, output, 2))
    raw = np.where(mask, np.float32(np.nan), x)
    assert session.run(None, {FEATURES: raw})[0] == pytest.approx(p, abs=1e-6)


@pytest.mark.parametrize("framework", ["xgboost", "sklearn-batches", "sklearn-at-once"])
def test_negative_weights_are_refused_where_they_cannot_be_learned_from(framework, tmp_path):
    events = toy_events(100)
    events.weight[7] = -1
    with pytest.raises(SettingError, match=r"'weights.negative' must be 'abs' or 'drop' for (XGBoost|scikit-learn)"):
        fit(of(framework), ToyBatches(events), tmp_path)


def diverging_torch():
    return nn.Linear(5, 1), nn.MSELoss(), lambda parameters: torch.optim.SGD(parameters, lr=1e30)


def diverging_keras():
    model = keras_model(5, 1)
    model.compile(type(model.optimizer)(1e30), "mean_squared_error")
    return model


def diverging_sklearn():
    from sklearn.linear_model import SGDClassifier

    return SGDClassifier(loss="squared_error", learning_rate="constant", eta0=1e300)


@pytest.mark.parametrize("returned", [diverging_torch, diverging_keras, diverging_sklearn])
def test_a_loss_that_is_no_longer_a_number_ends_the_training(returned, tmp_path):
    trainer = trainer_for(returned(), Task(5, 2), "toy.py")
    with pytest.raises(TrainingError), np.errstate(all="ignore"):
        fit(trainer, ToyBatches(toy_events(400), seed=1), tmp_path, epochs=10)


def test_trees_of_values_that_run_away_end_the_training(tmp_path):
    trainer = trainer_for({"learning_rate": 1e38, "lambda": 0, "nthread": 1}, Task(5, 0, targets=1), "toy.py")
    events = toy_events(400)
    events = events._replace(y=events.x[:, :1].copy())
    with pytest.raises(TrainingError):
        fit(trainer, ToyBatches(events, seed=1), tmp_path)


@pytest.mark.parametrize("framework", ["keras", "xgboost", "sklearn-batches"])
def test_settings_that_only_pytorch_follows_are_refused_elsewhere(framework, tmp_path):
    settings = FitSettings(1, 1, 0, tmp_path, clip=1.0)
    with pytest.raises(SettingError, match="'clip' must be left out for"):
        of(framework).fit(ToyBatches(toy_events(100)), None, settings, NoProgress())


def test_what_is_saved_is_called_as_its_format_is(make, tmp_path):
    trainer = make()
    fit(trainer, ToyBatches(toy_events(100), seed=1), tmp_path, epochs=1)
    trainer.save(tmp_path / trainer.file_name)
    assert (tmp_path / trainer.file_name).stat().st_size > 500


def test_ctrl_c_comes_out_as_such_and_works_again_afterwards(make, tmp_path, train):
    class Impatient(NoProgress):
        def advance(self, events, loss):
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(make(), train, tmp_path, progress=Impatient())
    assert signal.getsignal(signal.SIGINT) is before


def test_a_last_batch_of_one_event_does_no_harm(make, tmp_path):
    history = fit(make(), ToyBatches(toy_events(65), size=64, seed=1), tmp_path, epochs=1)
    assert np.isfinite(history.epochs[0].loss)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "returned nothing"),
        ("mlp", r"returned str; it must return a model of PyTorch, Keras, XGBoost or scikit-learn"),
        ((), "returned tuple"),
    ],
)
def test_what_is_no_model_is_refused_with_what_would_be_right(returned, said):
    with pytest.raises(ModelFileError, match=said):
        trainer_for(returned, Task(5, 2), "toy.py")
