"""The pass over real files, against numpy on what uproot reads."""

from __future__ import annotations

import json
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from tests.conftest import make_events

from mlaas4hep.errors import BranchNotFoundError, BranchTypeError, SettingError, SourceError, TreeNotFoundError
from mlaas4hep.streaming.inspection import inspect_files
from mlaas4hep.streaming.inspection.files import MAX_COMPARED

DATA = Path(__file__).parents[2] / "data"


def values_of(tree, name):
    array = tree[name].array()
    lengths = np.ones(len(array), int) if array.ndim == 1 else ak.to_numpy(ak.num(array))
    return ak.to_numpy(ak.flatten(array, axis=None)).astype(np.float64), lengths


@pytest.mark.parametrize(
    ("file", "tree"), [("uproot-HZZ.root", "events"), ("nanoAOD_2015_CMS_Open_Data_ttbar.root", "Events")]
)
def test_every_number_of_every_branch_is_numpys(file, tree):
    found = inspect_files(DATA / file, tree=tree)
    with uproot.open(DATA / file) as opened:
        assert set(found.branches) | set(found.skipped) == set(opened[tree].keys(recursive=False))
        for name, branch in found.branches.items():
            values, lengths = values_of(opened[tree], name)
            finite = values[np.isfinite(values)]
            assert (branch.events, branch.values) == (len(lengths), len(values)), name
            assert branch.nan == np.isnan(values).sum()
            assert branch.infinite == np.isinf(values).sum()
            if branch.jagged:
                assert branch.empty == (lengths == 0).sum()
                assert branch.statistics.widest == lengths.max()
                assert branch.lengths.counts.tolist() == [n for n in np.bincount(lengths) if n]
            assert branch.statistics.count == len(finite)
            if len(finite):
                assert branch.statistics.range == (finite.min(), finite.max()), name
                assert branch.statistics.mean == pytest.approx(finite.mean(), rel=1e-12, abs=1e-9), name
                assert branch.std == pytest.approx(finite.std(), rel=1e-9, abs=1e-9), name
                middle = np.sort(finite)[len(finite) // 2]
                resolution = max(branch.bins.width, abs(middle) / 128, branch.whole)
                assert abs(branch.median - middle) <= resolution, name
            histogram = branch.histogram()
            assert histogram.total == len(finite)
            inside = finite[(finite >= histogram.edges[0]) & (finite < histogram.edges[-1])]
            assert histogram.counts.tolist() == np.histogram(inside, histogram.edges)[0].tolist(), name


def test_files_add_up_and_are_drawn_with_the_same_edges(higgs_files):
    found = inspect_files(higgs_files)
    assert found.compared
    assert (found.events, found.entries) == (48_000, 48_000)
    for name, branch in found.branches.items():
        parts = [file.branches[name] for file in found.files]
        assert branch.events == 48_000
        assert branch.values == sum(part.values for part in parts)
        assert branch.statistics.minimum == min(part.statistics.minimum for part in parts)
        edges = branch.edges()
        assert sum(part.histogram(edges).counts for part in parts).tolist() == branch.histogram().counts.tolist()


def test_identifiers_and_generator_level_branches_are_marked(higgs_files):
    found = inspect_files(higgs_files[0])
    assert found.mark("run") == "identifier"
    assert found.mark("genWeight") == "generator level"
    assert found.mark("Jet_pt") == ""


def test_nan_and_infinity_are_counted_apart_and_are_in_no_statistics(write_tree):
    path = write_tree("a.root", {"x": np.array([1.0, np.nan, np.inf, -np.inf, 3.0, np.nan])})
    branch = inspect_files(path).branches["x"]
    assert (branch.nan, branch.infinite, branch.statistics.count, branch.statistics.mean) == (2, 2, 2, 2.0)
    assert branch.nan_fraction == pytest.approx(1 / 3)
    assert json.loads(json.dumps(branch.to_dict(), allow_nan=False))["max"] == 3.0


def test_files_need_not_have_the_same_branches_nor_the_same_types(write_tree):
    one = write_tree("one.root", {"x": np.arange(3.0), "HLT_a": np.array([True, False, True])})
    two = write_tree("two.root", {"x": np.arange(5, dtype=np.int32), "HLT_b": np.ones(5, bool)})
    found = inspect_files([one, two])
    assert {name: branch.events for name, branch in found.branches.items()} == {"x": 8, "HLT_a": 3, "HLT_b": 5}
    assert found.branches["x"].types == ("float64", "int32")
    assert found.to_dict()["branches"]["HLT_a"]["files"][1] is None


def test_a_limit_takes_events_of_each_file_in_proportion(write_tree):
    one = write_tree("one.root", {"x": np.arange(300.0)}, clusters=(100, 200))
    two = write_tree("two.root", {"x": np.arange(100.0)})
    found = inspect_files([one, two], max_events=40)
    assert [(file.entries, file.events) for file in found.files] == [(300, 30), (100, 10)]
    assert found.branches["x"].statistics.maximum == 29
    assert inspect_files([one, two], max_events=1000).events == 400


def test_a_file_without_events_is_shown_as_such(write_tree):
    empty = write_tree("empty.root", {"x": np.empty(0)})
    found = inspect_files(empty)
    assert (found.events, found.branches["x"].values) == (0, 0)
    assert found.to_dict()["branches"]["x"]["min"] is None


def test_of_many_files_only_the_sum_is_kept(write_tree):
    files = [write_tree(f"{n}.root", {"x": np.full(10, float(n))}) for n in range(MAX_COMPARED + 1)]
    found = inspect_files(files)
    assert not found.compared
    assert not any(file.branches for file in found.files)
    assert found.branches["x"].events == 10 * (MAX_COMPARED + 1)
    assert found.branches["x"].statistics.mean == MAX_COMPARED / 2


def test_bad_files_are_left_out_and_named_where_that_is_the_rule(write_tree, tmp_path):
    good = write_tree("good.root", make_events(50, 1))
    (tmp_path / "bad.root").write_bytes(b"not at all")
    with pytest.raises(SourceError, match=r"bad\.root"):
        inspect_files([tmp_path / "bad.root", good])
    found = inspect_files([tmp_path / "bad.root", good], on_bad_file="skip")
    assert (found.events, found.losses.whole_files) == (50, (str(tmp_path / "bad.root"),))
    with pytest.raises(SourceError, match=r"bad\.root"):
        inspect_files(tmp_path / "bad.root", on_bad_file="skip")


def test_branches_are_chosen_by_name_and_pattern(higgs_files):
    found = inspect_files(higgs_files[0], branches=["Jet_*", "MET_pt"], exclude=["*_phi"], max_events=100)
    assert list(found.branches) == ["MET_pt", "Jet_pt", "Jet_eta", "Jet_mass", "Jet_nConstituents"]
    with pytest.raises(BranchNotFoundError, match=r"'Jet_Pt'.*nearest: 'Jet_pt'"):
        inspect_files(higgs_files[0], branches=["Jet_Pt"])
    with pytest.raises(TreeNotFoundError):
        inspect_files(higgs_files[0], tree="Evnts")
    with pytest.raises(SettingError, match="max_events"):
        inspect_files(higgs_files[0], max_events=0)


def test_a_branch_without_numbers_is_named_and_is_an_error_when_asked_for(tmp_path):
    with uproot.recreate(tmp_path / "s.root") as file:
        file["Events"] = {"x": np.arange(2.0), "note": ak.Array(["a", "b"])}
    found = inspect_files(tmp_path / "s.root")
    assert list(found.branches) == ["x"]
    assert list(found.skipped) == ["note"]
    with pytest.raises(BranchTypeError, match="note"):
        inspect_files(tmp_path / "s.root", branches=["note"])


def test_progress_counts_every_event_and_byte(higgs_files):
    calls = []
    found = inspect_files(higgs_files, branches=["MET_pt"], progress=lambda *call: calls.append(call))
    assert calls[-1] == (48_000, 48_000, 48_000 * 4)
    assert found.nbytes == 48_000 * 4
    assert [done for done, *_ in calls] == sorted(done for done, *_ in calls)
