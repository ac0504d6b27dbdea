"""The model files of examples/ and of the original, trained on real events through the whole job."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import EXAMPLES

import mlaas4hep
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.training.workflow import train

MODELS = sorted(path.name for path in EXAMPLES.glob("model_*.py"))
BANDS = {
    "model_keras.py": (0.83, 0.90),
    "model_pytorch.py": (0.83, 0.90),
    "model_sklearn.py": (0.86, 0.90),
    "model_xgboost.py": (0.86, 0.90),
}
"""Area under the ROC curve on 2,400 held-out events of 12,000; its error is 0.007. Above 0.93 an identifier has leaked."""

AS_THE_ORIGINAL = """
from keras.models import Sequential
from keras.layers import Dense, Activation

def model(idim):
    network = Sequential([Dense(32, input_shape=(idim,)), Activation("relu"), {last}])
    network.compile(optimizer="adam", loss={loss}, metrics=["accuracy"])
    return network
"""


@pytest.fixture(scope="module")
def higgs(higgs_files):
    return mlaas4hep.open(higgs_files, labels=["VBF", "ggH"], generator_level="drop", max_events=12_000)


def test_there_is_an_example_of_every_framework():
    assert sorted(BANDS) == MODELS


@pytest.mark.parametrize("name", MODELS)
def test_an_example_tells_the_higgs_files_apart_and_its_bundle_gives_the_same(higgs, tmp_path, name):
    result = train(higgs, EXAMPLES / name, params={"epochs": 6}, out=tmp_path / "higgs", checkpoints=tmp_path / "kept")
    low, high = BANDS[name]
    assert low < result.evaluation.auc < high
    assert result.manifest.parity.events == result.events["test"]
    assert result.manifest.parity.largest_difference <= 1e-5
    assert (tmp_path / "kept" / result.trainer.file_name).is_file()
    with Bundle.open(tmp_path / "higgs") as bundle:
        assert bundle.manifest.framework == result.trainer.framework
        assert bundle.labels == higgs.classes


@pytest.mark.parametrize(
    ("last", "loss"),
    [
        ('Dense(2), Activation("softmax")', '"categorical_crossentropy"'),
        ('Dense(1, activation="sigmoid")', '"binary_crossentropy"'),
        ('Dense(2, activation="softmax")', '"sparse_categorical_crossentropy"'),
        ("Dense(1)", "__import__('keras').losses.BinaryCrossentropy(from_logits=True)"),
    ],
)
def test_model_files_of_the_original_run_as_they_are(class_files, tmp_path, last, loss):
    file = tmp_path / "ex_keras.py"
    file.write_text(AS_THE_ORIGINAL.format(last=last, loss=loss))
    dataset = mlaas4hep.open(class_files, labels=["0", "1"], branches=["MET_pt", "Jet_pt", "nElectron"])
    result = train(dataset, file, params={"epochs": 3, "batch_size": 32}, out=tmp_path / "toy")
    assert result.trainer.framework == "keras"
    assert result.evaluation.auc > 0.7
    assert result.manifest.parity.largest_difference <= 1e-5


def test_the_keras_example_is_built_in(class_files):
    dataset = mlaas4hep.open(class_files, labels=["0", "1"], branches=["MET_pt", "Jet_pt", "nElectron"])
    result = train(dataset, "keras", params={"epochs": 2})
    assert result.trainer.framework == "keras"
    assert result.evaluation.auc > 0.7


def test_a_keras_file_that_wants_tensorflow_says_what_to_install(tmp_path):
    from importlib.util import find_spec

    from mlaas4hep.errors import ModelFileError
    from mlaas4hep.training.model_file import load_model_function

    if find_spec("tensorflow") is not None:
        pytest.skip("TensorFlow is installed")
    file = Path(tmp_path / "tf_model.py")
    file.write_text("from tensorflow import keras\n\ndef model(idim):\n    return keras.Sequential()\n")
    with pytest.raises(
        ModelFileError, match=r"line 1: tensorflow is not installed; pip install 'mlaas4hep\[tensorflow\]'"
    ):
        load_model_function(file)
