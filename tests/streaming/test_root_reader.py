from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from tests.conftest import make_events, write_tree_file

from mlaas4hep.errors import SourceError, TreeNotFoundError
from mlaas4hep.streaming.formats import open_reader


def as_ntuple(path: Path, columns: dict[str, Any], clusters: list[int]) -> Path:
    """Write the columns as an RNTuple, one cluster each time."""
    events = len(columns["event"])
    bounds = [0, *clusters, events]
    table = ak.Array({name: ak.Array(values) for name, values in columns.items()})
    with uproot.recreate(path) as file:
        writable = file.mkrntuple("Events", table[: bounds[1]])
        for start, stop in itertools.pairwise(bounds[1:]):
            writable.extend(table[start:stop])
    return path


@pytest.fixture(scope="module", params=["TTree", "RNTuple"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The same events in both kinds of file, in three clusters."""
    columns = make_events(700, seed=9)
    path = tmp_path_factory.mktemp("kinds") / "f.root"
    (write_tree_file if request.param == "TTree" else as_ntuple)(path, columns, [100, 450])
    return str(path), columns


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 700), (0, 100), (100, 450), (450, 700), (37, 512), (699, 700), (300, 300)]
)
def test_what_is_read_is_what_was_written(written: tuple[str, dict[str, Any]], start: int, stop: int) -> None:
    path, columns = written
    reader = open_reader(path, "Events")
    assert reader.entries == 700
    read = reader.read(start, stop, list(columns))
    for name, values in columns.items():
        expected = ak.Array(values)[start:stop]
        column = read[name]
        found = column.content if column.offsets is None else ak.unflatten(column.content, np.diff(column.offsets))
        assert ak.to_list(found) == ak.to_list(expected), name
        assert column.content.dtype.isnative
    reader.close()


def test_the_clusters_are_those_that_were_written(written: tuple[str, dict[str, Any]]) -> None:
    reader = open_reader(written[0], "Events")
    assert reader.clusters(["MET_pt", "Jet_pt"]).tolist() == [0, 100, 450, 700]


def test_types_tell_flat_from_jagged(written: tuple[str, dict[str, Any]]) -> None:
    columns = open_reader(written[0], "Events").columns
    assert {name: str(columns[name]) for name in ("event", "MET_pt", "trigger", "Jet_pt", "Jet_charge")} == {
        "event": "uint64",
        "MET_pt": "float32",
        "trigger": "bool",
        "Jet_pt": "float32[]",
        "Jet_charge": "int32[]",
    }


def test_real_cms_events_in_an_rntuple_are_read_as_uproot_reads_them() -> None:
    path = Path(__file__).parent.parent / "data" / "Run2012BC_DoubleMuParked_Muons_1000evts_rntuple_v1-0-0-0.root"
    reader = open_reader(str(path), "Events")
    assert sorted(reader.columns) == ["Muon_charge", "Muon_eta", "Muon_mass", "Muon_phi", "Muon_pt", "nMuon"]
    assert reader.skipped == {"_collection0": "holds objects with 5 members, not numbers"}
    expected = uproot.open(path)["Events"].arrays()
    read = reader.read(0, 1000, list(reader.columns))
    assert read["nMuon"].content.tolist() == expected["nMuon"].to_list()
    assert np.array_equal(read["Muon_pt"].content, ak.flatten(expected["Muon_pt"]).to_numpy())
    assert np.array_equal(np.diff(read["Muon_pt"].offsets), expected["nMuon"].to_numpy())


def test_real_full_width_nanoaod_is_read_with_all_its_branches() -> None:
    path = Path(__file__).parent.parent / "data" / "nanoAOD_2015_CMS_Open_Data_ttbar.root"
    reader = open_reader(str(path), "Events")
    assert len(reader.columns) == 947
    assert sum(kind.jagged for kind in reader.columns.values()) == 344
    tree = uproot.open(path)["Events"]
    read = reader.read(50, 150, ["Jet_pt", "MET_pt", "GenPart_pdgId"])
    for name, column in read.items():
        expected = tree[name].array(entry_start=50, entry_stop=150)
        found = column.content if column.offsets is None else ak.unflatten(column.content, np.diff(column.offsets))
        assert ak.to_list(found) == ak.to_list(expected)


def test_strings_and_nested_lists_are_passed_over_and_named(tmp_path: Path) -> None:
    path = tmp_path / "f.root"
    with uproot.recreate(path) as file:
        table = {
            "x": np.arange(3.0),
            "name": ak.Array(["a", "b", "c"]),
            "nested": ak.Array([[[1.0], []], [], [[2.0, 3.0]]]),
        }
        file.mkrntuple("Events", table)
    reader = open_reader(str(path), "Events")
    assert list(reader.columns) == ["x"]
    assert reader.skipped == {"name": "holds strings or objects, not numbers", "nested": "holds lists of lists"}


def test_arrays_of_fixed_length_are_lists(tmp_path: Path) -> None:
    path = tmp_path / "f.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", {"v": np.dtype((np.float32, (3,)))})
        file["Events"].extend({"v": np.arange(12, dtype=np.float32).reshape(4, 3)})
    column = open_reader(str(path), "Events").read(1, 3, ["v"])["v"]
    assert column.content.tolist() == [3, 4, 5, 6, 7, 8]
    assert column.offsets is not None
    assert column.offsets.tolist() == [0, 3, 6]


def test_a_missing_tree_is_answered_with_those_that_there_are(higgs_files: list[str]) -> None:
    with pytest.raises(TreeNotFoundError, match=r"no tree 'events' in .*VBF_HToTauTau\.root; it holds 'Events'"):
        open_reader(higgs_files[0], "events")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"PAR1 and more", "is not a ROOT file: it begins with b'PAR1'"),
        (b"root", "cannot be opened as a ROOT file"),
    ],
)
def test_a_file_that_is_not_root_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "f.root"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        open_reader(str(path), "Events")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"missing\.root: no such file"):
        open_reader(str(tmp_path / "missing.root"), "Events")
    (tmp_path / "folder.root").mkdir()
    with pytest.raises(SourceError, match="is a folder, not a file"):
        open_reader(str(tmp_path / "folder.root"), "Events")


@pytest.mark.parametrize("extension", [".txt", ".npz", ".gz"])
def test_a_format_that_is_not_there_yet_is_named(tmp_path: Path, extension: str) -> None:
    with pytest.raises(
        SourceError, match=rf"files of type '\{extension}' cannot be read; what can be: \.root, \.parquet"
    ):
        open_reader(str(tmp_path / f"f{extension}"), "Events")


def read_all(path: str) -> None:
    reader = open_reader(path, "Events")
    reader.read(0, reader.entries, list(reader.columns))


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_gives_one_clear_error(tmp_path: Path, higgs_files: list[str], fraction: float) -> None:
    whole = Path(higgs_files[0]).read_bytes()
    path = tmp_path / "f.root"
    path.write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(SourceError, match=r"f\.root") as caught:
        read_all(str(path))
    assert "\n" not in str(caught.value)
