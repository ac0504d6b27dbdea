"""What every framework's trainer must do: one suite, run for each."""

from __future__ import annotations

import random
import signal

import numpy as np
import pytest
import torch
from torch import nn

from mlaas4hep.bundle.graph import FEATURES, complete_graph
from mlaas4hep.bundle.session import open_session
from mlaas4hep.errors import ModelFileError
from mlaas4hep.streaming.encoding import Encoding, Feature
from mlaas4hep.training.evaluation import area_under_roc
from mlaas4hep.training.frameworks import trainer_for
from mlaas4hep.training.frameworks.base import FitSettings, NoProgress, Task

from .toy import ToyBatches, toy_events


def torch_model(width, columns):
    torch.manual_seed(5)
    return nn.Sequential(
        nn.BatchNorm1d(width), nn.Linear(width, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, columns)
    )


MODELS = {"torch": torch_model}


@pytest.fixture(params=sorted(MODELS))
def make(request):
    def make_one(classes=2, columns=1, width=5):
        return trainer_for(MODELS[request.param](width, columns), Task(width, classes), "toy.py")

    return make_one


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


def test_the_weights_kept_are_those_of_the_epoch_with_the_smallest_validation_loss(make, tmp_path):
    noise = toy_events(60, seed=2)  # so few that later epochs only learn them by heart
    validation = ToyBatches(toy_events(300, seed=8))
    trainer = make()
    history = fit(trainer, ToyBatches(noise, size=10, seed=1), tmp_path, epochs=60, patience=6, validation=validation)
    losses = [result.validation_loss for result in history.epochs]
    assert history.best_epoch == int(np.argmin(losses)) + 1
    assert len(losses) in (60, history.best_epoch + 6)
    p = trainer.predict(validation.batch.x, validation.batch.mask)
    true = p[np.arange(300), validation.batch.y]
    assert -np.log(true).mean() == pytest.approx(min(losses), rel=1e-4)


def test_without_validation_events_the_last_epoch_is_kept(make, tmp_path, train):
    history = fit(make(), train, tmp_path, epochs=2)
    assert history.best_epoch == len(history.epochs) == 2
    assert np.isnan(history.epochs[0].validation_loss)


def test_progress_is_told_of_every_event_and_epoch(make, tmp_path, train):
    told = Told()
    history = fit(make(), train, tmp_path, epochs=2, validation=ToyBatches(toy_events(100)), progress=told)
    assert told.events == 2 * 1500
    assert tuple(told.results) == history.epochs
    assert [result.epoch for result in told.results] == [1, 2]
    assert all(result.seconds > 0 and 0.5 < result.auc <= 1 for result in told.results)


def test_best_and_last_checkpoint_lie_in_the_folder_that_was_named(make, tmp_path, train):
    fit(make(), train, tmp_path, epochs=1, validation=ToyBatches(toy_events(100)))
    assert {file.name for file in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_nothing_is_printed_and_nothing_warns(make, tmp_path, train, capfd):
    trainer = make()
    trainer.check()
    fit(trainer, train, tmp_path, epochs=1, validation=ToyBatches(toy_events(100)))
    trainer.to_onnx()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("classes", "columns"), [(2, 1), (3, 3), (0, 5)])
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
