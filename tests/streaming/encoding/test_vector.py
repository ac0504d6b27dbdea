"""The event vector as it is set: widths, clips, order, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest

import mlaas4hep
from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.encoding.block import KernelPlan, pack
from mlaas4hep.streaming.encoding.encoding import Encoding
from mlaas4hep.streaming.encoding.normalisation import NORMALISATIONS, scaling
from mlaas4hep.streaming.encoding.vector import VectorSettings
from mlaas4hep.streaming.formats import open_reader
from mlaas4hep.streaming.splitting import Split
from mlaas4hep.streaming.statistics.specs import Specs, merge_specs
from mlaas4hep.streaming.statistics.statistics import BranchStatistics

HZZ = Path(__file__).parents[2] / "data" / "uproot-HZZ.root"
RNTUPLE = HZZ.with_name("Run2012BC_DoubleMuParked_Muons_1000evts_rntuple_v1-0-0-0.root")


@pytest.fixture(scope="module")
def specs(higgs_files: list[str]) -> Specs:
    return mlaas4hep.open(higgs_files, labels=[1, 0]).specs


def encoded(
    path: str | Path, encoding: Encoding, tree: str = "Events"
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """All events of a file, and the objects that were cut off."""
    reader = open_reader(str(path), tree)
    block = pack(reader.read(0, reader.entries, encoding.sources), encoding, reader.entries)
    x = np.empty((reader.entries, encoding.width), np.float32)
    mask = np.empty(x.shape, np.bool_)
    counts = np.zeros(len(encoding.features), np.int64)
    everything = np.arange(reader.entries)
    block.encode(KernelPlan(encoding), everything, everything, x, mask, counts)
    reader.close()
    return x, mask, encoding.cut_report(counts)


def test_without_settings_the_vector_is_the_originals(specs: Specs) -> None:
    assert specs.make_encoding() == specs.encoding
    assert specs.make_encoding(VectorSettings()) == specs.encoding


def test_the_layout_objects_has_the_same_places_in_another_order(specs: Specs, higgs_files: list[str]) -> None:
    flat, objects = specs.encoding, specs.make_encoding(VectorSettings(layout="objects"))
    assert sorted(flat.columns) == sorted(objects.columns)
    assert objects.columns[10:16] == tuple(
        f"Electron_{m}_0" for m in ("charge", "eta", "mass", "pfRelIso04_all", "phi", "pt")
    )
    order = [objects.columns.index(name) for name in flat.columns]
    for one, other in zip(encoded(higgs_files[0], flat)[:2], encoded(higgs_files[0], objects)[:2], strict=True):
        np.testing.assert_array_equal(one, other[:, order])


@pytest.mark.parametrize("layout", ["flat", "objects"])
def test_leading_jets_by_another_column_are_those_that_awkward_finds(
    specs: Specs, higgs_files: list[str], layout: Any
) -> None:
    import uproot

    settings = VectorSettings(normalisation="none", layout=layout, max_objects={"Jet": 2}, order_by={"Jet": "mass"})
    encoding = specs.make_encoding(settings)
    x, mask, cut = encoded(higgs_files[1], encoding)
    with uproot.open(higgs_files[1]) as file:
        jets = file["Events"].arrays(filter_name="Jet_*")
    # Each event has so many more than 2 jets; the other collections are as wide as the widest training event.
    assert cut["Jet"] == int(ak.sum(np.maximum(ak.num(jets["Jet_pt"]) - 2, 0)))
    jets = jets[ak.argsort(jets["Jet_mass"], ascending=False, stable=True)]
    for name in ("Jet_pt", "Jet_eta", "Jet_mass"):
        expected = ak.to_numpy(ak.fill_none(ak.pad_none(jets[name], 2, clip=True), np.nan)).astype(np.float32)
        places = encoding.places(name)
        assert len(places) == 2
        np.testing.assert_array_equal(x[:, list(places)], np.nan_to_num(expected))
        np.testing.assert_array_equal(mask[:, list(places)], np.isnan(expected))


def test_objects_can_be_ordered_by_a_branch_that_is_no_feature() -> None:
    dataset = mlaas4hep.open(RNTUPLE, branches=["Muon_eta", "Muon_charge"], split=Split(test=0, validation=0))
    reader = open_reader(str(RNTUPLE), "Events")
    settings = VectorSettings(normalisation="none", order_by="+pt", max_objects=2)
    with pytest.raises(SettingError, match="'order_by' must be a branch of one of the collections"):
        dataset.specs.make_encoding(settings)
    encoding = dataset.specs.make_encoding(settings, reader.columns)
    assert encoding.branches == ("Muon_charge", "Muon_eta")
    assert encoding.sources == ("Muon_charge", "Muon_eta", "Muon_pt")
    x, _, cut = encoded(RNTUPLE, encoding)
    columns = reader.read(0, reader.entries, ["Muon_eta", "Muon_pt"])
    offsets = columns["Muon_pt"].offsets
    assert offsets is not None
    pt, eta = (ak.unflatten(columns[name].content, np.diff(offsets)) for name in ("Muon_pt", "Muon_eta"))
    softest = ak.fill_none(ak.firsts(eta[ak.argsort(pt, ascending=True, stable=True)]), 0)
    np.testing.assert_array_equal(x[:, encoding.first_places["Muon_eta"]], ak.to_numpy(softest))
    assert cut == {"Muon": int(np.maximum(np.diff(offsets) - 2, 0).sum())}


def test_a_sign_before_the_key_says_which_end_comes_first(specs: Specs) -> None:
    def directions(key: str) -> set[bool]:
        return {c.descending for c in specs.make_encoding(VectorSettings(order_by=key)).collections}

    assert directions("pt") == directions("-pt") == {True}
    assert directions("+pt") == {False}


def test_max_objects_is_the_number_of_places_whatever_the_data_hold(specs: Specs) -> None:
    wide = specs.make_encoding(VectorSettings(layout="objects", max_objects=40))
    assert {feature.width for feature in wide.features if feature.jagged} == {40}
    one = specs.make_encoding(VectorSettings(max_objects={"Jet": 3}))
    widths = {feature.branch: feature.width for feature in one.features}
    assert {widths[name] for name in widths if name.startswith("Jet_")} == {3}
    assert widths["Muon_pt"] == specs.train.widest["Muon_pt"]


def test_scaled_values_are_clipped_where_a_pattern_says_so(specs: Specs, higgs_files: list[str]) -> None:
    settings = VectorSettings(normalisation="standard", clip={"Jet_*": (-1.5, 2.0), "MET_pt": (-np.inf, 1.0)})
    encoding = specs.make_encoding(settings)
    x, _, _ = encoded(higgs_files[0], encoding)
    free, _, _ = encoded(higgs_files[0], specs.make_encoding("standard"))
    jets = [place for name in specs.jagged if name.startswith("Jet_") for place in encoding.places(name)]
    np.testing.assert_array_equal(x[:, jets], np.clip(free[:, jets], -1.5, 2.0))
    assert free[:, jets].max() > 2
    met = encoding.first_places["MET_pt"]
    np.testing.assert_array_equal(x[:, met], np.minimum(free[:, met], 1.0))
    others = [place for place in range(encoding.width) if place not in (*jets, met)]
    np.testing.assert_array_equal(x[:, others], free[:, others])


def test_log_puts_the_median_to_0_and_the_central_68_percent_to_1_whatever_the_unit(write_tree: Any) -> None:
    values = np.random.default_rng(3).lognormal(3, 1, 20_000)
    path = write_tree("f.root", {"gev": values, "tev": values / 1024, "mev": values * 1024})
    dataset = mlaas4hep.open(path, split=Split(test=0, validation=0))
    x, _, _ = encoded(path, dataset.specs.make_encoding("log"))
    low, middle, high = np.quantile(x, [0.16, 0.5, 0.84], axis=0)
    np.testing.assert_allclose(middle, 0, atol=0.02)
    np.testing.assert_allclose((high - low) / 2, 1, atol=0.02)
    np.testing.assert_allclose(x[:, 0], x[:, 1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x[:, 0], x[:, 2], rtol=1e-5, atol=1e-6)
    # The largest value, which is more than 20 times as far out for "robust".
    assert 3 < x[:, 0].max() < 7 < 20 < encoded(path, dataset.specs.make_encoding("robust"))[0][:, 0].max()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], {0.0: 0.0, 7.0: 7.0}),  # nothing is known: unchanged
        ([3.0, 3.0], {3.0: 0.0, 4.0: 1.0}),  # a constant becomes 0
        ([0.0] * 9 + [9.0], {0.0: 0.0, 0.9: np.log(2)}),  # the mean is the unit
        (
            [0.0, 0.0, 0.0, 9.0],
            {0.0: 0.0, 2.25: 2 * np.log(2) / np.log(5)},
        ),  # the same, and 84 % of the values reach up to 9
        ([0.0, 5e-40, 9e-40], {0.0: 0.0}),  # no float32 is the inverse of its width
    ],
)
def test_log_is_finite_also_where_there_is_no_median_above_the_minimum(
    write_tree: Any, values: list[float], expected: dict[float, float]
) -> None:
    path = write_tree("f.root", {"x": np.array([*values, np.nan]), "y": np.arange(len(values) + 1.0)})
    specs = mlaas4hep.open(path, split=Split(test=0, validation=0)).specs
    encoding = specs.make_encoding({"x": "log", "y": "none"})
    for raw, scaled in expected.items():
        assert encoding.scale_raw(np.array([[raw, 0.0]], np.float32))[0][0, 0] == pytest.approx(scaled, rel=1e-6)


@pytest.mark.parametrize("kind", NORMALISATIONS)
@pytest.mark.parametrize("name", ["higgs", "hzz"])
def test_specs_from_a_file_make_the_same_vector_to_the_bit(kind: str, name: str, specs: Specs, tmp_path: Path) -> None:
    whole = specs if name == "higgs" else mlaas4hep.open(HZZ, tree="events").specs
    whole.write(tmp_path / "specs.json")
    settings = VectorSettings(normalisation=kind, layout="objects", order_by="pt" if name == "higgs" else "E")
    assert Specs.read(tmp_path / "specs.json").make_encoding(settings) == whole.make_encoding(settings)


def test_merged_specs_from_files_have_no_quantiles_and_say_so(higgs_files: list[str], tmp_path: Path) -> None:
    parts = [mlaas4hep.open(path).specs for path in higgs_files]
    parts[0].write(tmp_path / "specs.json")
    read = Specs.read(tmp_path / "specs.json")
    for merged in (merge_specs([read, parts[1]]), merge_specs([parts[1], read]), merge_specs([read, read])):
        assert not merged.statistics["MET_pt"].quantiles
        assert merged.make_encoding("standard").width > 100
        merged.write(tmp_path / "merged.json")
        for specs in (merged, Specs.read(tmp_path / "merged.json")):
            with pytest.raises(SettingError, match="needs no quantiles with statistics that have none"):
                specs.make_encoding("robust")
    assert scaling("robust", BranchStatistics()).scale == 1.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"normalisation": "zscore"},
            "'normalisation' must be one of minmax, standard, robust, log, none; got 'zscore'",
        ),
        ({"normalisation": {"*": 3}}, "'normalisation' must be one of"),
        ({"normalisation": None}, "'normalisation' must be one of"),
        ({"normalisation": {"*": ["log"]}}, "'normalisation' must be one of"),
        ({"collections": "Jet"}, "'collections' must be branches, patterns of them, or a counter"),
        ({"collections": {"Jet": 5}}, "'collections.Jet' must be branches, patterns of them, or a counter"),
        ({"collections": {"Jet": []}}, "'collections.Jet' must be branches, patterns of them, or a counter"),
        ({"clip": (3, 3)}, r"'clip' must be two numbers \(low, high\) with low < high; got \(3, 3\)"),
        ({"clip": {"Jet_*": (1,)}}, r"'clip.Jet_\*' must be two numbers"),
        ({"clip": 5}, "'clip' must be two numbers"),
        ({"clip": (float("nan"), 1)}, "'clip' must be two numbers"),
        ({"layout": "graph"}, "'layout' must be 'flat' or 'objects'; got 'graph'"),
        ({"max_objects": 0}, "'max_objects' must be an integer ≥ 1; got 0"),
        ({"max_objects": {"Jet": True}}, "'max_objects.Jet' must be an integer ≥ 1; got True"),
        ({"max_objects": {"jet": 3}}, "'max_objects.jet' must be for a collection or a list, as 'Jet'"),
        ({"max_objects": {"Jet_pt": 3}}, "'max_objects.Jet_pt' must be set for the collection 'Jet'"),
        ({"order_by": {"Jet": "Pt"}}, "'order_by.Jet' must be a branch of that collection, as 'Jet_pt'"),
        ({"order_by": {"Jets": "pt"}}, "'order_by.Jets' must be for a collection, as 'Jet'"),
        ({"order_by": {"Jet": "Muon_pt"}}, "'order_by.Jet' must be a branch of that collection"),
        ({"order_by": "rapidity"}, "'order_by' must be a branch of one of the collections 'Electron'"),
        ({"order_by": "-"}, "'order_by' must be the name of a member"),
        (
            {"collections": {"J": "jet_*"}},
            "'collections.J' must be names or patterns of lists that are features; nearest: 'Jet_",
        ),
        (
            {"collections": {"X": ["Jet_pt", "Muon_pt"]}},
            "'collections.X' must be lists as long as 'Jet_pt' in every event; got 'Muon_pt'",
        ),
        (
            {"collections": {"A": ["Jet_pt"], "B": "Jet_*"}},
            "'collections.B' must be lists that are in no other collection; got 'Jet_pt'",
        ),
    ],
)
def test_settings_that_cannot_be_are_named_with_what_would_be_right(
    specs: Specs, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingError, match=said):
        specs.make_encoding(VectorSettings(**settings))


def test_specs_of_the_original_make_objects_too_but_no_quantiles(specs: Specs) -> None:
    keys = ("jdim", "minv", "maxv", "fkeys", "jkeys", "nans", "events")
    original = Specs.from_dict({key: specs.to_dict()[key] for key in keys})
    settings = VectorSettings(normalisation={"*_pt": "none"}, layout="objects", order_by="pt", clip=(0, 1))
    members = {c.name: c.members for c in original.make_encoding(settings).collections}
    assert members == {c.name: c.members for c in specs.make_encoding(settings).collections}
    with pytest.raises(SettingError, match="'minmax' or 'none' with specs that hold nothing but ranges; got 'log'"):
        original.make_encoding(VectorSettings(normalisation="log"))


def test_objects_need_a_collection(write_tree: Any) -> None:
    dataset = mlaas4hep.open(write_tree("f.root", {"x": np.arange(9.0), "l_pt": ak.Array([[1.0]] * 9)}))
    with pytest.raises(SettingError, match="'layout' must be 'flat' where there are no collections"):
        dataset.specs.make_encoding(VectorSettings(layout="objects"))
    declared = VectorSettings(layout="objects", collections={"l": "l_*"}, order_by="pt")
    assert dataset.specs.make_encoding(declared).collections[0].order_by == "l_pt"
