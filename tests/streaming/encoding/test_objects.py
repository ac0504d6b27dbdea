"""Collections found, and vectors seen as objects, in real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import torch
import uproot

import mlaas4hep
from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.encoding.objects import find_collections, flat_of, objects_of
from mlaas4hep.streaming.encoding.vector import VectorSettings
from mlaas4hep.streaming.splitting import Split

DATA = Path(__file__).parents[2] / "data"
NO_SPLIT = Split(test=0, validation=0)


def one_batch(dataset: mlaas4hep.Dataset, encoding: Any) -> Any:
    (batch,) = dataset.stream(encoding=encoding, shuffle=False, batch_size=100_000)
    return batch


def padded(array: ak.Array, objects: int) -> np.ndarray:
    """Of shape [n, objects], NaN where there is none."""
    filled = ak.fill_none(ak.pad_none(array, objects, clip=True), np.nan)
    return np.asarray(ak.to_regular(filled), np.float32)


def test_a_list_is_a_member_of_the_longest_prefix_and_only_if_its_lengths_are_the_counters() -> None:
    lists = {"Jet_pt": 7, "Jet_eta": 7, "Jet_sub_pt": 3, "Jet_odd": 4, "Tau_pt": 2, "PSWeight": 4, "FatJet_pt": 7}
    counters = {"nJet": 7, "nJet_sub": 3, "nPSWeight": 4, "n": 7, "NTau": 2}
    found = find_collections(lists, counters)
    assert found == {"Jet": ("Jet_eta", "Jet_pt"), "Jet_sub": ("Jet_sub_pt",), "Tau": ("Tau_pt",)}


def test_without_the_counters_values_the_commonest_lengths_decide() -> None:
    found = find_collections({"Jet_a": 1, "Jet_b": 7, "Jet_c": 7}, {"nJet": None})
    assert found == {"Jet": ("Jet_b", "Jet_c")}
    assert find_collections({"Jet_a": 1, "Jet_b": 7, "Jet_c": 7, "Tau_a": 3}, {"nJet": 2, "nTau": 4}) == found
    assert find_collections({"Jet_b": 7, "Jet_c": 7}, {"nJet": None}, taken=["Jet_b"]) == {"Jet": ("Jet_c",)}


def test_objects_of_the_higgs_file_are_those_that_awkward_reads(higgs_files: list[str]) -> None:
    dataset = mlaas4hep.open(higgs_files[0], split=NO_SPLIT)
    encoding = dataset.specs.make_encoding(VectorSettings(normalisation="none", layout="objects"))
    assert [collection.name for collection in encoding.collections] == ["Electron", "Jet", "Muon", "Tau"]
    batch = one_batch(dataset, encoding)
    found = objects_of(encoding, batch.x, batch.mask)
    with uproot.open(higgs_files[0]) as file:
        for collection in encoding.collections:
            arrays = file["Events"].arrays(collection.members)
            objects = found[collection.name]
            assert objects.x.shape == (
                24000,
                dataset.specs.train.widest[collection.members[0]],
                len(collection.members),
            )
            counts = np.asarray(ak.num(arrays[collection.members[0]]))
            np.testing.assert_array_equal((~objects.mask).sum(axis=1), counts)
            for place, name in enumerate(collection.members):
                expected = np.nan_to_num(padded(arrays[name], objects.x.shape[1]))
                np.testing.assert_array_equal(objects.x[:, :, place], expected)
        flat, flat_mask = flat_of(encoding, batch.x, batch.mask)
        np.testing.assert_array_equal(flat[:, encoding.first_places["MET_pt"]], file["Events"]["MET_pt"].array())
        assert flat.shape == (24000, 10)
        assert not flat_mask.any()


def test_objects_are_views_also_of_tensors(higgs_files: list[str]) -> None:
    dataset = mlaas4hep.open(higgs_files[0])
    encoding = dataset.specs.make_encoding(VectorSettings(layout="objects"))
    batch = next(iter(dataset.stream(encoding=encoding, batch_size=64)))
    arrays = objects_of(encoding, batch.x, batch.mask)
    tensors = objects_of(encoding, torch.from_numpy(batch.x), torch.from_numpy(batch.mask))
    for name, objects in arrays.items():
        assert np.shares_memory(objects.x, batch.x)
        np.testing.assert_array_equal(tensors[name].x.numpy(), objects.x)
        np.testing.assert_array_equal(tensors[name].mask.numpy(), objects.mask)


def test_a_vector_of_another_layout_is_not_seen_as_objects(higgs_files: list[str]) -> None:
    encoding = mlaas4hep.open(higgs_files[0]).specs.encoding
    for function in (objects_of, flat_of):
        with pytest.raises(
            SettingError, match="setting 'layout' must be 'objects', to see a batch as objects; got 'flat'"
        ):
            function(encoding, np.zeros((1, encoding.width)), np.zeros((1, encoding.width), bool))


def test_an_object_with_one_value_is_an_object_and_one_without_any_is_not(write_tree: Any) -> None:
    nan = np.nan
    columns = {
        "nJet": np.array([3, 1], np.int32),
        "Jet_pt": ak.Array([[50.0, nan, nan], [20.0]]),
        "Jet_eta": ak.Array([[nan, 1.0, nan], [2.0]]),
    }
    dataset = mlaas4hep.open(write_tree("f.root", columns), split=NO_SPLIT)
    encoding = dataset.specs.make_encoding(VectorSettings(normalisation="none", layout="objects"))
    batch = one_batch(dataset, encoding)
    jets = objects_of(encoding, batch.x, batch.mask)["Jet"]
    assert jets.x.tolist() == [[[0, 50], [1, 0], [0, 0]], [[2, 20], [0, 0], [0, 0]]]
    assert jets.mask.tolist() == [[False, False, True], [False, True, True]]


def test_every_collection_of_nanoaod_is_found_and_holds_all_its_values() -> None:
    path = str(DATA / "nanoAOD_2015_CMS_Open_Data_ttbar.root")
    dataset = mlaas4hep.open(path, split=NO_SPLIT)
    encoding = dataset.specs.make_encoding(VectorSettings(normalisation="none", layout="objects"))
    members = {collection.name: collection.members for collection in encoding.collections}
    assert {"Electron", "FatJet", "GenPart", "Jet", "Muon", "Tau", "SV", "CorrT1METJet"} <= members.keys()
    assert len(members["Jet"]) == len([name for name in dataset.features if name.startswith("Jet_")])
    loose = [
        feature.branch
        for feature in encoding.features
        if feature.jagged and not any(feature.branch in names for names in members.values())
    ]
    with uproot.open(path) as file:
        counters = {name for name in set(file["Events"].keys()) if name.startswith("n")}
    assert all(f"n{name}" in counters or f"n{name.partition('_')[0]}" not in counters for name in loose), loose
    batch, plain = one_batch(dataset, encoding), one_batch(dataset, dataset.specs.make_encoding("none"))
    ours = {name: batch.x[:, place] for place, name in enumerate(encoding.columns)}
    theirs = {name: plain.x[:, place] for place, name in enumerate(dataset.specs.encoding.columns)}
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "declared",
    [
        {"Muon": ["Muon_Px", "Muon_Py", "Muon_Pz", "Muon_E"], "Jet": "Jet_P?"},
        {"Muon": "NMuon"},
        {},
    ],
)
def test_collections_of_hzz_can_be_declared_by_branches_patterns_or_counters(declared: dict[str, Any]) -> None:
    dataset = mlaas4hep.open(DATA / "uproot-HZZ.root", tree="events", split=NO_SPLIT)
    settings = VectorSettings(normalisation="none", layout="objects", collections=declared, order_by={"Muon": "E"})
    encoding = dataset.specs.make_encoding(settings)
    members = {collection.name: collection.members for collection in encoding.collections}
    assert members.keys() == {"Electron", "Jet", "Muon", "Photon"}
    assert len(members["Photon"]) == 5
    if "Jet" in declared:
        assert members["Jet"] == ("Jet_Px", "Jet_Py", "Jet_Pz")
        assert members["Muon"] == ("Muon_Px", "Muon_Py", "Muon_Pz", "Muon_E")
    else:
        assert len(members["Muon"]) == 6
    batch = one_batch(dataset, encoding)
    muons = objects_of(encoding, batch.x, batch.mask)["Muon"]
    with uproot.open(DATA / "uproot-HZZ.root") as file:
        arrays = file["events"].arrays(list(members["Muon"]))
    arrays = arrays[ak.argsort(arrays["Muon_E"], ascending=False, stable=True)]
    for place, name in enumerate(members["Muon"]):
        np.testing.assert_array_equal(muons.x[:, :, place], np.nan_to_num(padded(arrays[name], muons.x.shape[1])))
