"""The job from real ROOT files to a bundle, judged with plain uproot, numpy and torch."""

from __future__ import annotations

import importlib.metadata
import json

import awkward as ak
import numpy as np
import pytest
import torch
import uproot
from torch import nn

import mlaas4hep
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.errors import BundleError, LabelError, ModelFileError, ModelNameError, SettingError, TrainingError
from mlaas4hep.streaming.splitting import Split
from mlaas4hep.training.workflow import train

CHOICE = {"branches": ["MET_pt", "Jet_pt", "nElectron"]}
QUICK = {"epochs": 3, "batch_size": 64}


@pytest.fixture(scope="module")
def trained(class_files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    dataset = mlaas4hep.open(class_files, labels=["ggH", "VBF"], split=Split(0.2, 0.16), **CHOICE)
    result = train(dataset, params=QUICK, out=folder / "toy.tar.gz", checkpoints=folder / "checkpoints")
    return dataset, result


def test_it_learns_and_says_how_well(trained):
    _, result = trained
    assert result.evaluation.auc > 0.75  # the two classes overlap; 0.5 would be guessing
    assert 0.005 < result.evaluation.auc_error < 0.05
    assert str(result).startswith(f"epoch {result.history.best_epoch} of 3: AUC 0.")
    assert result.events["train"] + result.events["validation"] + result.events["test"] == 3000


def test_the_evaluation_is_of_every_test_event_once(trained):
    dataset, result = trained
    assert result.evaluation.events == result.events["test"] == sum(dataset.class_counts("test").values())


def test_bundle_and_framework_agree_on_values_straight_from_the_files(trained, class_files):
    """Shares no code with what it checks: uproot, awkward, numpy and the module's own forward pass."""
    dataset, result = trained
    train_events = {(int(r["run"]), int(r["event"])) for b in dataset.stream("train") for r in b.id}
    raw, used = [], []
    for file in class_files:
        tree = uproot.open(file)["Events"]
        arrays = tree.arrays(["run", "event", "MET_pt", "nElectron", "Jet_pt"])
        used += [(int(r), int(e)) in train_events for r, e in zip(arrays["run"], arrays["event"], strict=True)]
        jets = ak.to_numpy(ak.fill_none(ak.pad_none(arrays["Jet_pt"], 3, clip=True), np.nan))
        flat = [ak.to_numpy(arrays[name]) for name in ("MET_pt", "nElectron")]
        raw.append(np.column_stack([*flat, jets]).astype(np.float32))
    raw, used = np.concatenate(raw), np.array(used)
    jet_low, jet_high = np.nanmin(raw[used, 2:]), np.nanmax(raw[used, 2:])
    low = np.concatenate([np.nanmin(raw[used, :2], axis=0), [jet_low] * 3])
    high = np.concatenate([np.nanmax(raw[used, :2], axis=0), [jet_high] * 3])
    x = np.nan_to_num((raw - low) / (high - low), nan=0.0).astype(np.float32)
    result.trainer.module.eval()
    with torch.no_grad():
        expected = torch.sigmoid(result.trainer.module(torch.from_numpy(x)))[:, 0].numpy()
    with Bundle.open(result.bundle) as bundle:
        assert bundle.encoding.columns == ("MET_pt", "nElectron", "Jet_pt_0", "Jet_pt_1", "Jet_pt_2")
        assert np.abs(bundle.predict(raw)[:, 1] - expected).max() <= 1e-5
    assert result.manifest.parity.largest_difference <= 1e-5


def test_the_bundle_tells_where_it_comes_from(trained, class_files):
    _, result = trained
    with Bundle.open(result.bundle) as bundle:
        manifest, metrics = bundle.manifest, json.loads((bundle.folder / "metrics.json").read_text())
        assert bundle.labels == ("VBF", "ggH")
        assert "train" in bundle.specs
        assert {"roc.png", "scores.png", "report.html"} <= set(manifest.sha256)
    uuids = [str(uproot.open(file).file.uuid) for file in class_files]
    assert [file["name"] for file in manifest.data["files"]] == ["background.root", "signal.root"]
    assert [file["uuid"] for file in manifest.data["files"]] == uuids
    assert manifest.data["excluded"]["run"] == "identifier"
    assert manifest.training["seed"] == 0
    assert manifest.versions["torch"] == importlib.metadata.version("torch")
    assert metrics["test"]["auc"] == result.evaluation.auc
    assert len(metrics["epochs"]) == 3


def test_plots_and_checkpoints_lie_where_they_were_asked_for(trained, tmp_path):
    _, result = trained
    names = {path.name for path in result.save_plots(tmp_path / "plots")}
    assert {"roc.png", "scores.png", "rejection.png", "calibration.png", "history.png", "importance.png"} <= names
    assert (tmp_path / "plots" / "roc.png").read_bytes().startswith(b"\x89PNG")
    names = {path.name for path in (result.bundle.parent / "checkpoints").iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "model.pt"}


def test_the_same_seed_gives_the_same_bundle_and_held_out_events_change_nothing(class_files, tmp_path):
    def weights(change):
        dataset = mlaas4hep.open(class_files, labels=["0", "1"], **CHOICE)
        if change:
            dataset = mlaas4hep.open([changed(dataset, file, tmp_path) for file in class_files], ["0", "1"], **CHOICE)
        result = train(dataset, params={"epochs": 2, "patience": 2})
        return {name: value.numpy() for name, value in result.trainer.module.state_dict().items()}, result

    first, before = weights(change=False)
    again, _ = weights(change=False)
    other, after = weights(change=True)
    for name, value in first.items():
        assert np.array_equal(value, again[name])
        assert np.array_equal(value, other[name])
    assert before.evaluation.auc != after.evaluation.auc


def changed(dataset, file, folder):
    """Write a copy of a file in which the test events have a thousand times the missing energy."""
    arrays = uproot.open(file)["Events"].arrays()
    test = {(int(r["run"]), int(r["event"])) for b in dataset.stream("test") for r in b.id}
    held_out = np.array([(int(r), int(e)) in test for r, e in zip(arrays["run"], arrays["event"], strict=True)])
    path = folder / file.rsplit("/", 1)[-1]
    columns = {name: arrays[name] for name in arrays.fields if name not in ("MET_pt", "nJet_pt")}
    columns["MET_pt"] = np.where(held_out, 1000, 1).astype(np.float32) * ak.to_numpy(arrays["MET_pt"])
    with uproot.recreate(path) as out:
        types = {name: ak.type(ak.Array(values)).content for name, values in columns.items()}
        out.mktree("Events", types)
        out["Events"].extend(columns)
    return str(path)


def test_without_labels_the_bundle_gives_each_events_reconstruction_error(class_files, tmp_path):
    dataset = mlaas4hep.open(class_files, **CHOICE)
    result = train(dataset, "autoencoder", params={"epochs": 2}, out=tmp_path / "anomaly")
    assert result.evaluation is None
    with Bundle.open(tmp_path / "anomaly") as bundle:
        assert (bundle.output, bundle.labels) == ("values", ("reconstruction_error",))
        batch = next(dataset.batches(200, fold="test", shuffle=False))
        scale, shift = bundle.encoding.scales, bundle.encoding.shifts
        raw = np.where(batch.mask, np.nan, batch.x / scale + shift).astype(np.float32)
        with torch.no_grad():
            given = result.trainer.module(torch.from_numpy(batch.x)).numpy()
        squares = np.where(batch.mask, 0, (given - batch.x) ** 2).sum(axis=1) / (~batch.mask).sum(axis=1)
        assert bundle.predict(raw)[:, 0] == pytest.approx(squares, abs=1e-4)
    mean = result.metrics["test"]["reconstruction_error"]["mean"]
    assert 0 < mean < 1


def test_three_classes_from_a_branch(write_tree, tmp_path):
    random = np.random.default_rng(5)
    kind = random.integers(0, 3, 900).astype(np.int32)
    file = write_tree(
        "kinds.root",
        {"event": np.arange(900, dtype=np.uint64), "kind": kind, "MET_pt": random.normal(3 * kind).astype(np.float32)},
    )
    result = train(mlaas4hep.open(str(file), labels="kind"), params=QUICK | {"epochs": 8}, out=tmp_path / "kinds")
    assert [name for name, _, _ in result.evaluation.class_auc] == ["0", "1", "2"]
    with Bundle.open(tmp_path / "kinds") as bundle:
        p = bundle.predict(np.array([[0.0], [6.0]], np.float32))
    assert p.shape == (2, 3)
    assert p.sum(axis=1) == pytest.approx([1, 1], abs=1e-6)


@pytest.mark.parametrize("form", ["module", "tuple", "function", "file"])
def test_a_model_may_be_brought_in_every_form(class_files, tmp_path, form):
    def linear(idim):
        return nn.Linear(idim, 1)

    file = tmp_path / "my_model.py"
    file.write_text("from torch import nn\n\ndef model(idim):\n    return nn.Linear(idim, 1)\n")
    models = {
        "module": nn.Linear(5, 1),
        "tuple": (nn.Linear(5, 1), nn.BCEWithLogitsLoss()),
        "function": linear,
        "file": file,
    }
    dataset = mlaas4hep.open(class_files, labels="isSignal", **CHOICE)
    result = train(dataset, models[form], params={"epochs": 1})
    assert len(result.history.epochs) == 1


def test_no_validation_and_no_test_part_are_no_hindrance(class_files, tmp_path):
    dataset = mlaas4hep.open(class_files, labels="0,1", split=Split(0.0, 0.0), **CHOICE)
    result = train(dataset, params={"epochs": 2}, out=tmp_path / "all")
    assert (result.evaluation, result.history.best_epoch, result.plots) == (None, 2, {})
    assert result.manifest.parity.events == 3000


def never_trained(idim):
    """A model that would fail on its first batch."""

    class Explodes(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(idim, 1)

        def forward(self, x):
            if self.training:
                raise AssertionError("the training has begun")
            return self.linear(x)

    return Explodes()


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"model": "no_such_model.py"}, ModelFileError, "there is no such file"),
        ({"model": 7}, ModelFileError, "neither a model, a function that makes one, nor the name of a file"),
        ({"model": nn.Linear(4, 1)}, ModelFileError, "forward fails on 5 features"),
        ({"model": never_trained, "out": "bad name"}, ModelNameError, "'bad name' is not accepted"),
        ({"model": never_trained, "out": "taken"}, BundleError, "something else of that name"),
        ({"model": never_trained, "params": {"epochs": 0}}, SettingError, "'epochs' must be an integer ≥ 1; got 0"),
        ({"model": never_trained, "params": {"epoch": 1}}, SettingError, "no setting 'epoch'; nearest: 'epochs'"),
    ],
)
def test_what_is_wrong_is_said_before_the_training(class_files, tmp_path, monkeypatch, arguments, error, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    dataset = mlaas4hep.open(class_files, labels="0,1", **CHOICE)
    with pytest.raises(error, match=said):
        train(dataset, **arguments)


def test_a_class_without_training_events_is_refused(class_files):
    dataset = mlaas4hep.open(class_files, labels="0,1", max_events=3000, **CHOICE)
    few = mlaas4hep.open(class_files, labels="isSignal", max_events=2, split=Split(0.5, 0.4), **CHOICE)
    assert min(dataset.class_counts("train").values()) > 0
    assert min(few.class_counts("train").values()) == 0
    with pytest.raises(LabelError, match="has no training event"):
        train(few)


def test_a_single_training_event_is_too_few(class_files):
    dataset = mlaas4hep.open(class_files[0], max_events=1, split=Split(0.0, 0.0), **CHOICE)
    with pytest.raises(TrainingError, match="at least 2 training events"):
        train(dataset, "autoencoder")


@pytest.mark.slow
def test_the_example_tells_the_higgs_files_apart_as_well_as_it_should(higgs_files):
    dataset = mlaas4hep.open(higgs_files, labels=["1", "0"], generator_level="drop")
    result = train(dataset)
    assert 0.87 <= result.evaluation.auc < 0.93  # above that an identifier would have leaked: run is the class
    assert not set(dataset.features) & {"run", "event", "luminosityBlock", "genWeight"}
