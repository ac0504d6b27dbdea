"""k models of one dataset: who has seen what, and what the bundle gives, judged with plain uproot, numpy and torch."""

from __future__ import annotations

import copy
import json

import awkward as ak
import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
import uproot
from torch import nn

import mlaas4hep
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.errors import LabelError, SettingError
from mlaas4hep.inference.predictor import predict_files
from mlaas4hep.streaming.splitting import Split, event_identity
from mlaas4hep.training.evaluation import evaluate
from mlaas4hep.training.k_fold import divided, train_k_fold

CHOICE = {"branches": ["MET_pt", "Jet_pt", "nElectron"]}
PARAMS = {"epochs": 2, "batch_size": 128, "patience": 2}
FOLDS = 3


@pytest.fixture(scope="module")
def dataset(class_files):
    return mlaas4hep.open(class_files, labels=["ggH", "VBF"], split=Split(0.2, 0.1, salt=4), **CHOICE)


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("k-fold")
    return train_k_fold(dataset, folds=FOLDS, params=PARAMS, out=folder / "toy.tar.gz")


def raw_events(files, width):
    """Identifiers and physical values by uproot and awkward alone."""
    ids, raw = [], []
    for file in files:
        arrays = uproot.open(file)["Events"].arrays(
            ["run", "luminosityBlock", "event", "MET_pt", "nElectron", "Jet_pt"]
        )
        jets = ak.to_numpy(ak.fill_none(ak.pad_none(arrays["Jet_pt"], width, clip=True), np.nan))
        raw.append(np.column_stack([*(ak.to_numpy(arrays[n]) for n in ("MET_pt", "nElectron")), jets]))
        ids.append([ak.to_numpy(arrays[name]) for name in ("run", "luminosityBlock", "event")])
    return [np.concatenate(column) for column in zip(*ids, strict=True)], np.concatenate(raw).astype(np.float32)


def test_every_event_is_predicted_once_by_the_model_that_has_not_seen_it(dataset, trained):
    seen = [
        {tuple(i)[2:] for f in ("train", "validation") for b in part.stream(f) for i in b.id}
        for part in divided(dataset, FOLDS)
    ]
    judged = [tuple(i)[2:] for i in trained.sample.id]
    assert len(judged) == len(set(judged)) == 3000
    fold = divided(dataset, FOLDS)[0].split.fold_of(
        event_identity([trained.sample.id[n] for n in ("run", "luminosityBlock", "event")], salt=4)
    )
    for event, number in zip(judged, fold, strict=True):
        assert event not in seen[number]
        assert all(event in seen[other] for other in range(FOLDS) if other != number)


def test_the_joint_numbers_are_of_all_events_and_the_folds_scatter(trained):
    sample = trained.sample
    joint = evaluate(sample.probabilities, sample.y, sample.weight, ("VBF", "ggH"))
    assert trained.performance.evaluation == joint
    assert trained.metrics["test"]["auc"] == joint.auc > 0.7
    assert trained.metrics["scatter"]["auc"] == pytest.approx(np.std([one.auc for one in trained.evaluations], ddof=1))
    assert [one["events"] for one in trained.metrics["folds"]] == [one.events for one in trained.evaluations]
    assert sum(one.events for one in trained.evaluations) == joint.events == 3000
    assert str(trained).startswith("3 folds: AUC 0.")
    cut = trained.metrics["test"]["against_rest"]["ggH"]["best_cut"]
    assert cut["test"]["signal"] == pytest.approx(sum(one["signal"] for one in cut["folds"]))
    json.dumps(trained.metrics, allow_nan=False)


def test_the_bundle_gives_each_fold_its_model_and_everybody_else_the_mean(trained, class_files):
    """Shares no code with what it checks but the hash of the identity."""
    with Bundle.open(trained.bundle) as bundle:
        width = bundle.encoding.width - 2
        ids, raw = raw_events(class_files, width)
        fold = Split.k_fold(FOLDS, 0, salt=4).fold_of(event_identity(ids, salt=4))
        expected = []
        for number, result in enumerate(trained.results):
            described = json.loads((bundle.folder / f"folds/{number}/encoding.json").read_text())
            low, scale, kept = [], [], []
            for feature in described["features"]:
                start = {"MET_pt": 0, "nElectron": 1, "Jet_pt": 2}[feature["branch"]]
                kept += range(start, start + feature["width"])
                low += [feature["shift"]] * feature["width"]
                scale += [feature["scale"]] * feature["width"]
            x = np.nan_to_num((raw[:, kept] - np.float32(low)) * np.float32(scale), nan=0.0)
            with torch.no_grad():
                expected.append(torch.sigmoid(result.trainer.module.eval()(torch.from_numpy(x)))[:, 0].numpy())
        expected = np.array(expected)
        mean = bundle.predict(raw)[:, 1]
        assert np.abs(mean - expected.mean(axis=0)).max() < 1e-5
        by_fold = bundle.predict_by_fold(raw, fold)[:, 1]
        assert np.abs(by_fold - expected[fold, np.arange(len(raw))]).max() < 1e-5
        assert np.abs(expected[0] - expected[1]).max() > 1e-3
        plain = onnxruntime.InferenceSession(str(bundle.folder / "model.onnx"), providers=["CPUExecutionProvider"])
        assert np.array_equal(plain.run(None, {"features": raw})[0][:, 1], mean)
    same = {
        (int(i["run"]), int(i["event"])): p
        for i, p in zip(trained.sample.id, trained.sample.probabilities[:, 1], strict=True)
    }
    offline = np.array([same[int(r), int(e)] for r, e in zip(ids[0], ids[2], strict=True)])
    assert np.abs(by_fold - offline).max() < 1e-5


def test_predict_scores_each_event_with_the_model_that_has_not_seen_it(trained, class_files, tmp_path):
    done = predict_files(trained.bundle, class_files, tmp_path / "scores.parquet")
    assert (done.events, done.unproven) == (3000, 0)
    table = pq.read_table(tmp_path / "scores.parquet").to_pydict()
    scored = dict(zip(zip(table["run"], table["event"], strict=True), table["probability_ggH"], strict=True))
    ids, probabilities = trained.sample.id, trained.sample.probabilities
    offline = [scored[int(i["run"]), int(i["event"])] for i in ids]
    assert np.abs(np.array(offline) - probabilities[:, 1]).max() < 1e-5


def test_the_manifest_says_how_a_fold_is_found(trained):
    k_fold = trained.manifest.to_dict()["k_fold"]
    assert k_fold == {
        "folds": 3,
        "salt": 4,
        "hash_version": 1,
        "identifiers": ["run", "luminosityBlock", "event"],
        "kind": "identifiers",
    }
    assert {f"folds/{f}/{n}" for f in range(3) for n in ("model.onnx", "encoding.json")} <= set(trained.manifest.sha256)
    assert {"report.html", "roc.png", "scores.png"} <= set(trained.manifest.sha256)
    assert trained.manifest.data["split"]["folds"] == 3
    assert "fold" not in trained.manifest.data["split"]


def test_without_identifiers_the_entry_decides(class_files, tmp_path):
    dataset = mlaas4hep.open(class_files, labels=["0", "1"], identifiers=[], **CHOICE)
    result = train_k_fold(dataset, folds=2, params={"epochs": 1}, out=tmp_path / "entries")
    assert result.manifest.k_fold.kind == "entry"
    first = result.sample.id[result.sample.id["file"] == 0]
    fold = result.manifest.k_fold.of_entries(dataset.catalog.files[0].uuid, first["entry"])
    in_first = np.flatnonzero(result.sample.id["file"] == 0) < result.evaluations[0].events
    assert np.array_equal(fold, np.where(in_first, 0, 1))


def test_folds_of_other_widths_share_one_vector(tmp_path):
    """One event has more jets than any other: only the folds that learn from it have places for them."""
    random = np.random.default_rng(0)
    files = []
    for label in range(2):
        jets = random.integers(0, 3, 400)
        jets[7] = 6 if label else jets[7]
        path = tmp_path / f"{label}.root"
        with uproot.recreate(path) as file:
            file["Events"] = {
                "event": np.arange(400, dtype=np.int64) + 1000 * label,
                "Jet_pt": ak.unflatten(random.exponential(20 + 20 * label, jets.sum()).astype(np.float32), jets),
            }
        files.append(str(path))
    dataset = mlaas4hep.open(files, labels=["b", "s"], identifiers=["event"], branches=["Jet_pt"])
    result = train_k_fold(dataset, folds=2, params={"epochs": 1}, out=tmp_path / "wide")
    widths = sorted(part.encoding.width for part in divided(dataset, 2))
    assert widths == [2, 6]
    with Bundle.open(result.bundle) as bundle:
        assert bundle.encoding.width == 6
        raw = np.full((1, 6), np.nan, np.float32)
        raw[0, :3] = [50, 20, 10]
        cut = raw.copy()
        cut[0, 2:] = np.nan
        narrow = [part.encoding.width for part in divided(dataset, 2)].index(2)
        folds = np.array([narrow])
        assert np.array_equal(bundle.predict_by_fold(raw, folds), bundle.predict_by_fold(cut, folds))
        assert not np.array_equal(bundle.predict_by_fold(raw, 1 - folds), bundle.predict_by_fold(cut, 1 - folds))


def test_a_model_that_is_given_is_copied_and_left_as_it_is(dataset):
    module = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1))
    before = copy.deepcopy(module.state_dict())
    result = train_k_fold(dataset, module, folds=2, params={"epochs": 1})
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    first, second = (one.trainer.module.state_dict() for one in result.results)
    assert not torch.equal(first["0.weight"], second["0.weight"])
    assert result.bundle is None


def test_what_cannot_be_divided_is_said_at_once(dataset, class_files):
    with pytest.raises(SettingError, match=r"'split\.folds' must be an integer ≥ 2; got 1"):
        train_k_fold(dataset, folds=1)
    with pytest.raises(LabelError, match="a k-fold needs labels"):
        train_k_fold(mlaas4hep.open(class_files, **CHOICE))
    with pytest.raises(SettingError, match="'model' must be one that draws no parameter"):
        train_k_fold(dataset, "parametrised")
