"""Labels, targets, weights and luminosity masks through the whole stream."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

import mlaas4hep
from mlaas4hep.errors import LabelError, SettingError, SourceError, WeightError
from mlaas4hep.streaming.dataset import Dataset

SUMS = {"VBF_*": 491653.0, "GluGlu*": 476963.0}
CROSS_SECTIONS = {"VBF_*": 1.55, "GluGlu*": 19.6}


def collected(dataset: Dataset, fold: Any = "train", **settings: Any) -> dict[str, np.ndarray[Any, Any]]:
    batches = list(dataset.stream(fold, batch_size=4096, **settings))
    return {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in ("y", "weight", "id", "x")}


def test_a_stream_of_weighted_events_is_balanced_and_flat_and_leaves_negative_ones_out(higgs_files: list[str]) -> None:
    weighting = {
        "branch": "genWeight",
        "negative": "drop",
        "balance_classes": True,
        "flatten": {"nJet": [0, 1, 2, 3, 99]},
    }
    dataset = mlaas4hep.open(higgs_files, labels=[1, 0], weights=weighting, branches=["nJet"])
    train = collected(dataset)
    assert len(train["y"]) == sum(dataset.class_counts("train").values()) - dataset.weights.negative
    assert train["weight"].mean(dtype=np.float64) == pytest.approx(1, rel=1e-6)
    jets = np.concatenate([uproot.open(path)["Events"]["nJet"].array(library="np") for path in higgs_files])
    place = np.minimum(jets[train["id"]["file"] * 24_000 + train["id"]["entry"]], 3)
    sums = np.bincount(train["y"] * 4 + place, train["weight"].astype(np.float64))
    np.testing.assert_allclose(sums, len(train["y"]) / 8, rtol=1e-6)


def test_metrics_get_the_signed_weights_of_all_events(higgs_files: list[str]) -> None:
    weighting = {
        "branch": "genWeight",
        "negative": "drop",
        "cross_sections": CROSS_SECTIONS,
        "luminosity": 11467.0,
        "sum_of_weights": SUMS,
    }
    dataset = mlaas4hep.open(higgs_files, labels=[1, 0], weights=weighting, branches=["nJet"])
    test = collected(dataset, None, weights="signed")
    assert len(test["y"]) == 48_000
    for label, pattern, total in ((1, "VBF_*", 23064.0), (0, "GluGlu*", 23136.0)):
        expected = total * CROSS_SECTIONS[pattern] * 11467 / SUMS[pattern]
        assert test["weight"][test["y"] == label].sum(dtype=np.float64) == pytest.approx(expected, rel=1e-6)
    assert (test["weight"] < 0).mean() == pytest.approx(0.01875, abs=1e-9)


def test_sums_of_weights_come_from_the_tree_runs_of_files_of_a_sample_and_not_from_events(tmp_path: Path) -> None:
    for number, generated in enumerate((100.0, 300.0)):
        with uproot.recreate(tmp_path / f"part_{number}.root") as file:
            file.mktree("Events", {"x": np.dtype(np.float32), "genWeight": np.dtype(np.float32)})
            file["Events"].extend({"x": np.arange(20, dtype=np.float32), "genWeight": np.full(20, 2, np.float32)})
            file.mktree("Runs", {"genEventSumw": np.dtype(np.float64)})
            file["Runs"].extend({"genEventSumw": np.array([generated / 4, generated * 3 / 4])})
    weighting = {"branch": "genWeight", "cross_sections": {"part_*": 8.0}, "luminosity": 10.0}
    dataset = mlaas4hep.open(tmp_path, weights=weighting, selection="x >= 5", exclude=["genWeight"])
    test = collected(dataset, None, weights="signed")
    assert test["weight"].tolist() == pytest.approx([2 * 8 * 10 / 400] * 30)


def test_without_the_tree_runs_the_file_and_the_setting_are_named(higgs_files: list[str]) -> None:
    dataset = mlaas4hep.open(higgs_files, labels=[1, 0], weights={"cross_sections": [1.0, 1.0]})
    with pytest.raises(SettingError, match=r"'weights.sum_of_weights' .*VBF_HToTauTau.root, which has no tree 'Runs'"):
        list(dataset.stream("train"))


def test_a_weight_or_target_that_is_no_number_is_found_at_its_entry_unless_it_is_not_selected(write_tree: Any) -> None:
    weight = np.ones(200)
    weight[123] = math.nan
    path = write_tree("f.root", {"x": np.arange(200.0), "w": weight}, clusters=[50, 100])
    with pytest.raises(WeightError, match=r"weight 'w' is nan; .* at entry 123 of .*f.root"):
        collected(mlaas4hep.open(path, weights="w"), None)
    with pytest.raises(LabelError, match=r"target 'w \* 2' is nan at entry 123"):
        collected(mlaas4hep.open(path, target="w * 2"), None)
    chosen = collected(mlaas4hep.open(path, weights="w", target="w * 2", selection="x != 123"), None)
    assert len(chosen["y"]) == 199
    assert set(chosen["weight"].tolist()) == {1.0}
    assert set(chosen["y"].ravel().tolist()) == {2.0}


def test_an_expression_gives_several_classes(higgs_files: list[str]) -> None:
    dataset = mlaas4hep.open(higgs_files, labels="where(nJet > 3, 2, where(nJet > 1, 1, 0))", branches=["MET_pt"])
    assert dataset.classes == ("0", "1", "2")
    every = collected(dataset, None, shuffle=False)
    jets = np.concatenate([uproot.open(path)["Events"]["nJet"].array(library="np") for path in higgs_files])
    np.testing.assert_array_equal(every["y"], np.digitize(jets, [2, 4]))


def test_only_certified_luminosity_sections_are_delivered(higgs_files: list[str], tmp_path: Path) -> None:
    certified = tmp_path / "certified.json"
    certified.write_text(json.dumps({"1": [[1, 50], [52, 60]]}))
    found = collected(mlaas4hep.open(higgs_files, lumi_mask=certified), None)["id"]
    expected = 0
    for path in higgs_files:
        events = uproot.open(path)["Events"].arrays(["run", "luminosityBlock"], library="np")
        section = events["luminosityBlock"]
        expected += int(((events["run"] == 1) & (section >= 1) & (section <= 60) & (section != 51)).sum())
    assert len(found) == expected > 0
    assert set(found["run"].tolist()) == {1}
    with pytest.raises(SourceError, match="cannot be read as a certification file"):
        mlaas4hep.open(higgs_files, lumi_mask=tmp_path / "none.json")


def test_a_feature_that_separates_the_classes_is_found_in_a_dataset(higgs_files: list[str]) -> None:
    dataset = mlaas4hep.open(higgs_files, labels=[1, 0], branches=["run", "MET_pt", "Jet_pt"], identifiers=["event"])
    assert [(found.feature, found.label) for found in dataset.separating_features()] == [("run", "1")]
