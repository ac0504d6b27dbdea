from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ["KERAS_BACKEND"] = "torch"
import keras
from tests.conftest import make_events

import mlaas4hep
from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.adapters.keras_dataset import KerasEventDataset
from mlaas4hep.streaming.dataset import Dataset

# Keras' own variables have no __array__ of numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EVENTS = 700
BATCH = 64


@pytest.fixture
def dataset(write_tree: Callable[..., Path]) -> Dataset:
    files = []
    for seed in (1, 2):
        columns = make_events(EVENTS, seed)
        columns["number"] = np.arange(EVENTS, dtype=np.float32) + seed * EVENTS
        files.append(write_tree(f"{seed}.root", columns, clusters=range(40, EVENTS, 40)))
    return mlaas4hep.open(files, labels=[0, 1])


def keras_dataset(dataset: Dataset, fold: Any = "train", masks: bool = False, **settings: Any) -> KerasEventDataset:
    events = sum(dataset.class_counts(fold).values())
    return KerasEventDataset(dataset.stream(fold, batch_size=BATCH, **settings), events, masks=masks)


class Recorder(keras.Model):  # type: ignore[misc]
    """Remembers what Keras feeds to it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = keras.layers.Dense(1, activation="sigmoid")
        self.trained: list[tuple[np.ndarray, ...]] = []
        self.tested: list[tuple[np.ndarray, ...]] = []

    def call(self, inputs: Any) -> Any:
        if isinstance(inputs, dict):
            return self.inner(inputs["x"] * (1 - keras.ops.cast(inputs["mask"], "float32")))
        return self.inner(inputs)

    def train_step(self, data: Any) -> Any:
        self.trained.append(as_numpy(data))
        return super().train_step(data)

    def test_step(self, data: Any) -> Any:
        self.tested.append(as_numpy(data))
        return super().test_step(data)


def as_numpy(data: Any) -> tuple[np.ndarray, ...]:
    inputs, y, weight = data
    flat = (inputs["x"], inputs["mask"]) if isinstance(inputs, dict) else (inputs,)
    return tuple(keras.ops.convert_to_numpy(part).copy() for part in (*flat, y, weight))


def compiled() -> Recorder:
    keras.utils.set_random_seed(1)
    model = Recorder()
    model.compile(optimizer="adam", loss="binary_crossentropy", weighted_metrics=["accuracy"])
    return model


def epochs_of(stream: Any, epochs: int, masks: bool = False) -> list[tuple[np.ndarray, ...]]:
    return [
        tuple(part.copy() for part in ((b.x, b.mask, b.y, b.weight) if masks else (b.x, b.y, b.weight)))
        for _ in range(epochs)
        for b in stream
    ]


def assert_same_batches(found: list[tuple[np.ndarray, ...]], expected: list[tuple[np.ndarray, ...]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for part, wanted in zip(one, other, strict=True):
            np.testing.assert_array_equal(part, wanted)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("shuffle_of_keras", [True, False])
def test_each_epoch_of_fit_is_one_epoch_of_the_stream_to_the_bit(
    dataset: Dataset, masks: bool, shuffle_of_keras: bool
) -> None:
    model = compiled()
    history = model.fit(
        keras_dataset(dataset, masks=masks, seed=3),
        validation_data=keras_dataset(dataset, "validation", masks=masks, shuffle=False),
        epochs=3,
        shuffle=shuffle_of_keras,
        verbose=0,
    )
    assert_same_batches(
        model.trained, epochs_of(dataset.stream("train", batch_size=BATCH, seed=3), epochs=3, masks=masks)
    )
    assert_same_batches(
        model.tested,
        epochs_of(dataset.stream("validation", batch_size=BATCH, shuffle=False), epochs=3, masks=masks),
    )
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_a_second_fit_goes_on_with_the_next_epoch(dataset: Dataset) -> None:
    data = keras_dataset(dataset)
    models = compiled(), compiled()
    for model in models:
        model.fit(data, epochs=2, verbose=0)
    expected = epochs_of(dataset.stream("train", batch_size=BATCH), epochs=4)
    assert_same_batches(models[0].trained + models[1].trained, expected)


def test_with_steps_per_epoch_the_next_epoch_goes_on_where_the_last_one_ended(dataset: Dataset) -> None:
    data = keras_dataset(dataset)
    model = compiled()
    steps = len(data) // 4
    assert steps * 4 == len(data)  # else Keras itself leaves the rest out
    model.fit(data, epochs=8, steps_per_epoch=steps, verbose=0)
    assert_same_batches(model.trained, epochs_of(dataset.stream("train", batch_size=BATCH), epochs=2))


def test_with_validation_steps_the_same_first_batches_are_evaluated_each_time(dataset: Dataset) -> None:
    model = compiled()
    data = keras_dataset(dataset, "test", shuffle=False)
    model.fit(keras_dataset(dataset), validation_data=data, validation_steps=2, epochs=3, verbose=0)
    first = epochs_of(dataset.stream("test", batch_size=BATCH, shuffle=False), epochs=1)[:2]
    assert_same_batches(model.tested, first * 3)


def test_after_a_fit_that_was_broken_off_a_restart_begins_the_epoch_anew(dataset: Dataset) -> None:
    class BreakOff(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 4:
                raise KeyboardInterrupt

    data = keras_dataset(dataset)
    model = compiled()
    with pytest.raises(KeyboardInterrupt):
        model.fit(data, callbacks=[BreakOff()], verbose=0)
    assert len(model.trained) == 5
    model.trained.clear()
    data.restart()
    model.fit(data, epochs=2, verbose=0)
    assert_same_batches(model.trained, epochs_of(dataset.stream("train", batch_size=BATCH), epochs=2))


def test_predict_gives_one_score_for_each_event_in_the_order_of_the_files(dataset: Dataset) -> None:
    model = compiled()
    scores = model.predict(keras_dataset(dataset, None, shuffle=False), verbose=0)
    x = np.concatenate([batch.x for batch in dataset.stream(None, shuffle=False)])
    assert scores.shape == (2 * EVENTS, 1)
    np.testing.assert_allclose(scores, model.predict(x, verbose=0), atol=1e-6)


def test_evaluation_weighs_events(dataset: Dataset) -> None:
    model = compiled()
    model.fit(keras_dataset(dataset), verbose=0)
    data = keras_dataset(dataset, "test", shuffle=False)
    found = model.evaluate(data, verbose=0, return_dict=True)
    batches = epochs_of(dataset.stream("test", batch_size=BATCH, shuffle=False), epochs=1)
    x, y, weight = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    right = (model.predict(x, verbose=0)[:, 0] > 0.5) == y
    assert found["accuracy"] == pytest.approx(np.average(right, weights=weight), abs=1e-6)


def test_an_epoch_that_lost_events_is_filled_up_with_events_of_weight_0(
    dataset: Dataset, write_tree: Callable[..., Path]
) -> None:
    events = sum(dataset.class_counts("train").values())
    known = mlaas4hep.open(dataset.files, labels=[0, 1], on_bad_file="skip", specs=dataset.specs)
    data = keras_dataset(known)
    write_tree("1.root", make_events(EVENTS, 9))  # another file in the place of the one that was catalogued
    batches = [data[index] for index in range(len(data))]
    delivered = [weight for _, _, weight in batches if weight.all()]
    assert 0 < sum(map(len, delivered)) < events
    assert data.stream.losses
    fillers = batches[len(delivered) :]
    assert fillers
    assert all(len(x) == len(y) == 1 and weight.tolist() == [0] for x, y, weight in fillers)


def test_a_fold_without_a_whole_batch_is_refused(dataset: Dataset) -> None:
    with pytest.raises(SettingError, match="setting 'fold' must be one with events for at least one batch; it has 0"):
        KerasEventDataset(dataset.stream("train"), 0)
    with pytest.raises(SettingError, match="it has 63"):
        KerasEventDataset(dataset.stream("train", batch_size=64, drop_last=True), 63)


def test_a_share_of_the_events_is_refused(dataset: Dataset) -> None:
    with pytest.raises(SettingError, match="setting 'world_size' must be 1"):
        KerasEventDataset(dataset.stream("train", rank=0, world_size=2), 100)


def test_events_that_come_several_times_are_refused(dataset: Dataset) -> None:
    with pytest.raises(SettingError, match="setting 'mixing' must be 'proportional' for a Keras dataset"):
        KerasEventDataset(dataset.stream("train", mixing="balanced"), 100)


def test_without_keras_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['keras'] = None\n"
        "from mlaas4hep.errors import MissingExtraError\n"
        "try:\n    import mlaas4hep.streaming.adapters.keras_dataset\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "Keras is not installed; pip install 'mlaas4hep[keras]'\n"
