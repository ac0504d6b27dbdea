"""What a user may return from ``model(idim)`` in Keras, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from mlaas4hep.bundle.graph import FEATURES, Output, complete_graph
from mlaas4hep.bundle.session import open_session
from mlaas4hep.errors import ModelFileError
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.training.frameworks.base import FitSettings, NoProgress, Task
from mlaas4hep.training.frameworks.keras.library import keras
from mlaas4hep.training.frameworks.keras.trainer import make_trainer

from .toy import ToyBatches, toy_events

layers, losses = keras.layers, keras.losses
Dense = layers.Dense


def sequence(*parts, width=6, **compiled):
    model = keras.Sequential([keras.Input((width,)), *parts])
    if compiled:
        model.compile(**compiled)
    return model


def attention():
    x = keras.Input((6,))
    objects = layers.Reshape((3, 2))(x)
    seen = layers.MultiHeadAttention(2, 4)(objects, objects)
    return keras.Model(x, Dense(1)(layers.Flatten()(seen)))


def masked():
    x, mask = keras.Input((6,), name="x"), keras.Input((6,), dtype="bool", name="mask")
    both = layers.Concatenate()([x, keras.ops.cast(mask, "float32")])
    return keras.Model({"x": x, "mask": mask}, Dense(1)(both))


def of(model, classes=2):
    return make_trainer(model, Task(6, classes), "toy.py")


@pytest.mark.parametrize(
    "make",
    [
        lambda: sequence(Dense(8, activation="gelu"), layers.BatchNormalization(), Dense(2, activation="softmax")),
        lambda: sequence(layers.Reshape((6, 1)), layers.Conv1D(4, 3), layers.GlobalMaxPooling1D(), Dense(1)),
        lambda: sequence(layers.Reshape((3, 2)), layers.GRU(4), Dense(1)),
        lambda: sequence(layers.Reshape((3, 2)), layers.LSTM(4), Dense(1)),
        attention,
        masked,
    ],
    ids=["gelu", "cnn", "gru", "lstm", "attention", "mask"],
)
def test_the_graph_of_any_architecture_gives_what_keras_gives(make):
    trainer = of(make())
    graph, output = trainer.to_onnx()
    as_it_is = Encoding(tuple(Feature(f"f{place}", False, 1) for place in range(6)))
    session = open_session(complete_graph(graph, as_it_is, output, 2))
    batch = toy_events(77, width=6)
    raw = np.where(batch.mask, np.float32(np.nan), batch.x)
    assert session.run(None, {FEATURES: raw})[0] == pytest.approx(trainer.predict(batch.x, batch.mask), abs=1e-5)


def test_a_model_with_a_mask_sees_what_is_absent():
    trainer = of(masked())
    batch = toy_events(50, width=6)
    all_there = trainer.predict(batch.x, np.zeros_like(batch.mask))
    assert not np.array_equal(trainer.predict(batch.x, batch.mask), all_there)


@pytest.mark.parametrize(
    ("model", "output", "columns"),
    [
        (lambda: sequence(Dense(1)), Output.LOGITS, 1),
        (lambda: sequence(Dense(1, activation="sigmoid")), Output.PROBABILITIES, 1),
        (lambda: sequence(Dense(2), layers.Softmax()), Output.PROBABILITIES, 2),
        (lambda: sequence(Dense(1), layers.Activation("sigmoid"), layers.Flatten()), Output.PROBABILITIES, 1),
        (lambda: sequence(Dense(2), loss=losses.CategoricalCrossentropy(from_logits=True)), Output.LOGITS, 2),
        (lambda: sequence(Dense(1, activation="sigmoid"), loss="mse"), Output.PROBABILITIES, 1),
        (lambda: sequence(Dense(1, activation="sigmoid"), loss="binary_focal_crossentropy"), Output.PROBABILITIES, 1),
    ],
)
def test_what_the_output_means_is_read_off_the_loss_and_the_last_activation(model, output, columns):
    objective = of(model()).objective
    assert (objective.output, objective.columns) == (output, columns)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: sequence(Dense(3)), r"shape \[events, 3\]; for 2 classes it must be \[events, 1\] or \[events, 2\]"),
        (lambda: sequence(Dense(1), width=5), "it fails on 6 features: ValueError: Input 0 .* expected axis -1"),
        (lambda: sequence(Dense(1), loss="binary_crossentropy"), "linear, gives logits, but BinaryCrossentropy takes"),
        (
            lambda: sequence(Dense(1, activation="sigmoid"), loss=losses.BinaryCrossentropy(from_logits=True)),
            "leave out from_logits=True",
        ),
        (
            lambda: sequence(Dense(1, activation="sigmoid"), loss="categorical_crossentropy"),
            "needs 2 or more outputs, one a class",
        ),
        (lambda: sequence(Dense(2, activation="sigmoid")), "sigmoid on 2 outputs; right is softmax"),
        (lambda: sequence(layers.Flatten(), layers.Lambda(lambda x: x[:, :1])), "no weights to train"),
        (lambda: sequence(layers.Reshape((3, 2)), Dense(1)), r"output of shape \[4, 3, 1\]; right is one row an event"),
        (lambda: sequence(Dense(1, activation="sigmoid"), loss=lambda y, p: p / None), "its loss or a metric fails"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_the_training(model, said):
    with pytest.raises(ModelFileError, match=said):
        of(model()).check()


def test_a_classifier_without_labels_is_refused():
    with pytest.raises(ModelFileError, match=r"it must give back its 6 features.*a classifier needs labels"):
        of(sequence(Dense(1)), classes=0).check()


def test_checkpoints_of_the_best_and_the_last_epoch_lie_in_the_folder(tmp_path):
    trainer = of(sequence(Dense(1)))
    batches = ToyBatches(toy_events(200, width=6), seed=1)
    trainer.fit(batches, ToyBatches(toy_events(50, width=6)), FitSettings(2, 2, 0, tmp_path), NoProgress())
    assert {file.name for file in tmp_path.iterdir()} == {"best.weights.h5", "last.weights.h5"}
    assert batches.epoch == 2  # no batch was taken but to learn from it


def test_what_is_saved_is_read_back_by_keras(tmp_path):
    trainer = of(sequence(Dense(4, activation="relu"), Dense(1)))
    trainer.save(tmp_path / "model.keras")
    batch = toy_events(20, width=6)
    again = of(keras.models.load_model(tmp_path / "model.keras"))
    assert np.array_equal(again.predict(batch.x, batch.mask), trainer.predict(batch.x, batch.mask))
