"""Selections on real files, against plain uproot and numpy; and what is read for them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from tests.conftest import WriteTree, make_events

from mlaas4hep.errors import ExpressionError
from mlaas4hep.streaming.formats import Column, Reader, open_reader
from mlaas4hep.streaming.selecting.selection import EventSelection, SelectedReader

NEW_COLUMNS = {
    "HT": "sum(Jet_pt)",
    "mjj": "mass(Jet[0] + Jet[1])",
    "Jet_px": "Jet_pt * cos(Jet_phi)",
    "central": "count(abs(Jet_eta) < 2.5)",
    "HT_per_jet": "HT / nJet",
    "even": "event % 2 == 0",
}


class CountingReader:
    """Passes everything on to a real file and remembers which columns were read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.reads: list[tuple[str, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        self.reads.append(tuple(columns))
        return self._reader.read(start, stop, columns)


@pytest.fixture
def higgs(higgs_files: list[str]) -> Iterator[CountingReader]:
    reader = open_reader(higgs_files[0], "Events")
    yield CountingReader(reader)
    reader.close()


@pytest.fixture(scope="module")
def expected(higgs_files: list[str]) -> Any:
    return uproot.open(higgs_files[0])["Events"].arrays()


def as_lists(column: Column) -> Any:
    return column.content if column.offsets is None else ak.unflatten(column.content, np.diff(column.offsets))


def test_new_columns_of_the_higgs_file_are_what_uproot_and_awkward_give(higgs: CountingReader, expected: Any) -> None:
    read = SelectedReader(higgs, EventSelection(new_columns=NEW_COLUMNS)).read(0, higgs.entries, list(NEW_COLUMNS))
    pt = ak.values_astype(expected["Jet_pt"], np.float64)
    assert np.allclose(read["HT"].content, ak.sum(pt, axis=1), rtol=1e-12)
    px = pt * np.cos(ak.values_astype(expected["Jet_phi"], np.float64))
    assert np.allclose(read["Jet_px"].content, ak.flatten(px), rtol=1e-12)
    assert np.array_equal(read["Jet_px"].offsets, np.cumsum([0, *ak.num(pt)]))
    assert np.array_equal(read["central"].content, ak.to_numpy(ak.sum(abs(expected["Jet_eta"]) < 2.5, axis=1)))
    assert np.array_equal(read["even"].content, expected["event"].to_numpy() % 2 == 0)
    counts = expected["nJet"].to_numpy()
    assert np.allclose((read["HT_per_jet"].content * counts)[counts > 0], read["HT"].content[counts > 0])
    assert np.isnan(read["HT_per_jet"].content[counts == 0]).all()
    two = counts >= 2
    assert 1000 < two.sum() < higgs.entries
    first, second = (
        [
            ak.values_astype(expected[f"Jet_{name}"][two], np.float64)[:, which].to_numpy()
            for name in ("pt", "eta", "phi", "mass")
        ]
        for which in (0, 1)
    )
    px, py, pz = (
        first[0] * trigonometry(first[place]) + second[0] * trigonometry(second[place])
        for trigonometry, place in ((np.cos, 2), (np.sin, 2), (np.sinh, 1))
    )
    energy = sum(np.sqrt((jet[0] * np.cosh(jet[1])) ** 2 + jet[3] ** 2) for jet in (first, second))
    assert np.allclose(read["mjj"].content[two], np.sqrt(energy**2 - px**2 - py**2 - pz**2), rtol=1e-9)
    assert np.isnan(read["mjj"].content[~two]).all()


def test_the_cut_on_events_of_the_higgs_file_is_that_of_numpy(higgs: CountingReader, expected: Any) -> None:
    reader = SelectedReader(higgs, EventSelection("nJet >= 2 and MET_pt > 30 and not HLT_IsoMu24"))
    wanted = (expected["nJet"] >= 2) & (expected["MET_pt"] > 30) & ~expected["HLT_IsoMu24"]
    assert np.array_equal(reader.passes(0, higgs.entries), wanted)
    assert 100 < ak.sum(wanted) < higgs.entries
    assert np.array_equal(reader.passes(500, 900), wanted[500:900])


def test_a_cut_on_objects_filters_all_their_branches_alike_and_counts_again(
    higgs: CountingReader, expected: Any
) -> None:
    reader = SelectedReader(
        higgs, EventSelection("nJet >= 1", {"HT": "sum(Jet_pt)"}, {"Jet": "pt > 30 and abs(eta) < 2.5"})
    )
    names = [name for name in reader.columns if name.startswith(("Jet_", "Muon_"))]
    mask, read = reader.read_selected(100, 5000, [*names, "nJet", "HT", "MET_pt"])
    assert read is not None
    events = expected[100:5000]
    keep = (events["Jet_pt"] > 30) & (abs(events["Jet_eta"]) < 2.5)
    assert 0 < ak.sum(keep) < ak.count(keep)
    for name in names:
        wanted = events[name][keep] if name.startswith("Jet_") else events[name]
        assert ak.array_equal(as_lists(read[name]), wanted), name
        assert read[name].content.dtype == reader.columns[name].dtype
    assert np.array_equal(read["nJet"].content, ak.to_numpy(ak.sum(keep, axis=1)))
    assert read["nJet"].content.dtype == np.int32
    assert np.array_equal(mask, ak.sum(keep, axis=1) >= 1)
    assert np.allclose(read["HT"].content, ak.sum(ak.values_astype(events["Jet_pt"], np.float64)[keep], axis=1))
    assert np.array_equal(read["MET_pt"].content, events["MET_pt"])


def test_real_nanoaod_jets_are_cut_with_everything_that_belongs_to_them() -> None:
    path = Path(__file__).parents[2] / "data" / "nanoAOD_2015_CMS_Open_Data_ttbar.root"
    reader = SelectedReader(
        open_reader(str(path), "Events"), EventSelection(None, None, {"Jet": "pt > 40", "Muon": "pt > 10"})
    )
    names = [name for name, kind in reader.columns.items() if kind.jagged and name.startswith(("Jet_", "Muon_"))]
    assert len(names) > 50
    read = reader.read(0, 100, [*names, "nJet", "nMuon"])
    jets = uproot.open(path)["Events"]["Jet_pt"].array(entry_stop=100)
    assert np.array_equal(read["nJet"].content, ak.to_numpy(ak.sum(jets > 40, axis=1)))
    assert all(
        np.array_equal(np.diff(read[name].offsets), read[f"n{name.partition('_')[0]}"].content) for name in names
    )


def test_only_the_columns_of_the_cut_are_read_where_no_event_passes(higgs: CountingReader) -> None:
    reader = SelectedReader(higgs, EventSelection("MET_pt > 1e6 and HT > 3", {"HT": "sum(Jet_pt)"}))
    mask, columns = reader.read_selected(0, 1000, ["HT", "Muon_pt", "Jet_eta"])
    assert columns is None
    assert mask.shape == (1000,)
    assert not mask.any()
    assert higgs.reads == [("MET_pt", "Jet_pt")]


def test_the_rest_is_read_once_where_an_event_passes(higgs: CountingReader) -> None:
    reader = SelectedReader(higgs, EventSelection("MET_pt > 30", {"HT": "sum(Jet_pt)"}))
    mask, columns = reader.read_selected(0, 1000, ["HT", "Muon_pt", "MET_pt"])
    assert mask.any()
    assert columns is not None
    assert list(columns) == ["HT", "Muon_pt", "MET_pt"]
    assert higgs.reads == [("MET_pt",), ("Jet_pt", "Muon_pt")]


def test_only_what_an_expression_uses_is_needed(higgs: CountingReader) -> None:
    selection = EventSelection("delta_r(Jet[0], Muon[0]) > 0.4", {"mjj": "mass(Jet[0] + Jet[1])", "x": "mjj / MET_pt"})
    assert selection.columns_needed(higgs.columns) == (
        "MET_pt", "Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass", "Muon_eta", "Muon_phi",
    )  # fmt: skip
    reader = SelectedReader(higgs, selection)
    assert reader.sources(["x"]) == ("MET_pt", "Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass")
    assert reader.sources(["PV_npvs"], cut=True) == ("PV_npvs", "Jet_eta", "Jet_phi", "Muon_eta", "Muon_phi")


def test_a_selected_file_is_a_reader_with_the_new_columns_last(higgs: CountingReader) -> None:
    reader = SelectedReader(higgs, EventSelection(new_columns=NEW_COLUMNS))
    assert list(reader.columns) == [*higgs.columns, *NEW_COLUMNS]
    assert {name: str(reader.columns[name]) for name in NEW_COLUMNS} == {
        "HT": "float64",
        "mjj": "float64",
        "Jet_px": "float64[]",
        "central": "int64",
        "HT_per_jet": "float64",
        "even": "bool",
    }
    assert reader.columns["Jet_px"].bytes_per_event == pytest.approx(
        2 * higgs.columns["Jet_pt"].bytes_per_event, rel=0.01
    )
    assert (reader.uuid, reader.entries, reader.path) == (higgs.uuid, higgs.entries, higgs.path)
    assert np.array_equal(reader.clusters(["HT"]), higgs.clusters(["Jet_pt"]))
    empty = reader.read(5, 5, ["HT", "Jet_px"])
    assert (len(empty["HT"].content), empty["Jet_px"].offsets) == (0, np.zeros(1))


def test_a_selection_travels_to_other_processes_and_into_json() -> None:
    selection = EventSelection("HT > 3", {"HT": "sum(Jet_pt)"}, {"Jet": "pt > 30"})
    assert pickle.loads(pickle.dumps(selection)).to_dict() == selection.to_dict()
    assert EventSelection(**json.loads(json.dumps(selection.to_dict()))).to_dict() == selection.to_dict()
    assert selection
    assert not EventSelection()


def test_without_a_cut_all_events_pass_and_nothing_is_read_for_it(higgs: CountingReader) -> None:
    mask, columns = SelectedReader(higgs, EventSelection()).read_selected(0, 10, ["MET_pt"])
    assert mask.all()
    assert columns is not None
    assert [names for names in higgs.reads if names] == [("MET_pt",)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cut": "nJet >= 2 and METpt > 30"}, "selection 'nJet >= 2 and METpt > 30': no branch 'METpt' at character 14; nearest: 'MET_pt'"),
        ({"new_columns": {"MET_pt": "2"}}, "new column 'MET_pt' '2': the files have a branch of this name already"),
        ({"new_columns": {"a": "b + 1", "b": "2"}}, "new column 'a' 'b + 1': 'b' is not made yet at character 0; a new column can use those before"),
        ({"new_columns": {"a": "1 + a"}}, "new column 'a' '1 + a': 'a' is not made yet at character 4"),
        ({"new_columns": {"a": "Jet[0] + Jet[1]"}}, "new column 'a' 'Jet[0] + Jet[1]': gives objects, not numbers"),
        ({"new_columns": {"a": "name"}}, "no branch 'name'"),
        ({"new_columns": {"m": "2"}, "object_cuts": {"Jet": "pt > m"}}, "'m' is not made yet at character 5; cuts on objects come before"),
        ({"object_cuts": {"Jets": "pt > 30"}}, "object cut of 'Jets' 'pt > 30': no branch 'Jets_…' holds a list at character 0; nearest: 'Jet'"),
        ({"object_cuts": {"Jet": "pT > 30"}}, "object cut of 'Jet' 'pT > 30': no branch 'pT' at character 0; nearest: 'pt'"),
        ({"object_cuts": {"Jet": "MET_pt > 30"}}, "object cut of 'Jet' 'MET_pt > 30': gives one value an event, not a truth value for each object"),
        ({"object_cuts": {"MET": "pt > 30"}}, "no branch 'MET_…' holds a list"),
    ],
)  # fmt: skip
def test_a_selection_that_does_not_fit_the_file_is_refused_before_reading(
    higgs: CountingReader, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExpressionError) as caught:
        SelectedReader(higgs, EventSelection(**settings))
    assert message in str(caught.value)
    assert not higgs.reads


@pytest.mark.parametrize("name", ["", "1st", "a b", "a-b", "and", "__class__", "Jet.px", "x\n"])
def test_a_new_column_needs_a_name_that_expressions_can_use(name: str) -> None:
    with pytest.raises(ExpressionError, match="its name cannot be used"):
        EventSelection(new_columns={name: "1"})


def test_a_branch_that_holds_no_numbers_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "f.root"
    with uproot.recreate(path) as file:
        file.mkrntuple("Events", {"x": np.arange(3.0), "name": ak.Array(["a", "b", "c"])})
    with pytest.raises(
        ExpressionError, match="branch 'name' cannot be used: it holds strings or objects, not numbers at char"
    ):
        SelectedReader(open_reader(str(path), "Events"), EventSelection("name > 3"))


def test_a_cut_on_objects_may_compare_with_a_value_of_the_event(write_tree: WriteTree) -> None:
    columns = make_events(200, seed=4)
    reader = SelectedReader(
        open_reader(str(write_tree("f.root", columns)), "Events"), EventSelection(None, None, {"Jet": "pt > MET_pt"})
    )
    read = reader.read(0, 200, ["Jet_pt", "Jet_charge"])
    keep = columns["Jet_pt"] > columns["MET_pt"]
    assert ak.array_equal(as_lists(read["Jet_charge"]), columns["Jet_charge"][keep])


def test_lists_that_do_not_belong_together_are_named_with_the_place_in_the_file(write_tree: WriteTree) -> None:
    columns = {
        "Jet_pt": ak.Array([[1.0, 2.0], [3.0]]),
        "Jet_other": ak.Array([[1.0], [3.0]]),
        "Muon_pt": ak.Array([[1.0], []]),
    }
    file = open_reader(str(write_tree("f.root", columns)), "Events")
    reader = SelectedReader(file, EventSelection(None, {"x": "Jet_pt + Muon_pt"}))
    with pytest.raises(ExpressionError, match=r"lists of different lengths meet \(2 and 1 .*f\.root, entries 0–1\)"):
        reader.read(0, 2, ["x"])
    reader = SelectedReader(file, EventSelection(None, None, {"Jet": "pt > 1"}))
    with pytest.raises(ExpressionError, match=r"branch 'Jet_other' holds lists of other lengths.*f\.root, entries 0–1"):
        reader.read(0, 2, ["Jet_other"])


def test_infinite_and_missing_values_in_a_file_never_pass(write_tree: WriteTree) -> None:
    path = write_tree("f.root", {"x": np.array([1.0, np.nan, np.inf, -np.inf, 3.0])})
    reader = SelectedReader(open_reader(str(path), "Events"), EventSelection("x > 0 or x < 0 or x != 7"))
    assert reader.passes(0, 5).tolist() == [True, False, False, False, True]


def test_what_is_wrong_with_an_expression_can_be_told_by_another_process() -> None:
    error = ExpressionError("selection", "a + b", "no branch 'b'", 4, "nearest: 'a'")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.at, again.caret) == (str(error), 4, "a + b\n    ^")


def test_the_same_selection_of_the_same_events_in_another_format_gives_the_same(
    write_tree: WriteTree, tmp_path: Path
) -> None:
    columns = make_events(300, seed=8)
    ak.to_parquet(
        ak.zip({name: ak.Array(values) for name, values in columns.items()}, depth_limit=1), tmp_path / "f.parquet"
    )
    selection = EventSelection("HT > 60 and trigger", {"HT": "sum(Jet_pt)"}, {"Jet": "pt > 20 and charge != 0"})
    results = []
    for path in (write_tree("f.root", columns), tmp_path / "f.parquet"):
        reader = SelectedReader(open_reader(str(path), "Events"), selection)
        results.append(reader.read_selected(10, 290, ["HT", "Jet_charge", "event"]))
        reader.close()
    (mask, read), (other_mask, other) = results
    assert 0 < mask.sum() < 280
    assert np.array_equal(mask, other_mask)
    assert read is not None
    assert other is not None
    for name in read:
        assert ak.to_list(as_lists(read[name])) == ak.to_list(as_lists(other[name]))
