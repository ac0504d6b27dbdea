"""Files whose branches vary, against a slow and obvious reference."""

from __future__ import annotations

import itertools
import pickle
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.conftest import make_events, write_tree_file

from mlaas4hep.errors import BranchesDifferError, SettingError, SourceError
from mlaas4hep.streaming.formats import ColumnType, open_reader
from mlaas4hep.streaming.selecting.alignment import AlignedReader, Alignment, common_type

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
WANTED = ["a", "b", "c", "d"]

kinds = st.builds(ColumnType, st.sampled_from(DTYPES).map(np.dtype), st.booleans(), st.floats(0, 100))
datasets = st.lists(st.dictionaries(st.sampled_from(WANTED), kinds), min_size=1, max_size=6)
flat_datasets = st.lists(
    st.dictionaries(
        st.sampled_from(WANTED),
        st.builds(ColumnType, st.sampled_from(DTYPES).map(np.dtype), st.just(False)),
        min_size=1,
    ),
    min_size=1,
    max_size=6,
)


def number(dtype: str, jagged: bool = False) -> ColumnType:
    return ColumnType(np.dtype(dtype), jagged)


def aligned(policy: Any, files: list[dict[str, ColumnType]], wanted: list[str] = WANTED, **settings: Any) -> Alignment:
    alignment = Alignment(wanted, policy, **settings)
    for index, columns in enumerate(files):
        alignment.add(f"{index}.root", columns)
    return alignment


@given(datasets)
def test_what_remains_of_an_intersection_is_what_every_file_has_and_can_share(
    files: list[dict[str, ColumnType]],
) -> None:
    in_all = [name for name in WANTED if all(name in columns for columns in files)]
    mixed = any(len({c[name].jagged for c in files if name in c}) > 1 for name in WANTED)
    nowhere = any(all(name not in columns for columns in files) for name in WANTED)
    try:
        settled = aligned("intersect", files).settle()
    except BranchesDifferError:
        assert mixed
    except SourceError:
        assert nowhere or not in_all
    else:
        assert not mixed
        assert list(settled.columns) == in_all
        assert set(settled.left_out) == set(WANTED) - set(in_all)
        for name, kind in settled.columns.items():
            for columns in files:
                assert kind.jagged == columns[name].jagged
                assert np.result_type(kind.dtype, columns[name].dtype) == kind.dtype


@given(flat_datasets)
def test_filling_keeps_every_branch_with_a_type_that_holds_all_values_and_absence(
    files: list[dict[str, ColumnType]],
) -> None:
    wanted = [name for name in WANTED if any(name in columns for columns in files)]
    settled = aligned("fill", files, wanted).settle()
    assert list(settled.columns) == wanted
    for name in wanted:
        lacking = sum(name not in columns for columns in files)
        assert settled.filled.get(name, 0) == lacking
        dtype = settled.columns[name].dtype
        assert dtype.kind == "f" or not lacking
        for columns in files:
            if name in columns and columns[name].dtype.itemsize < 8 and columns[name].dtype.kind in "iu":
                largest = np.iinfo(columns[name].dtype).max
                assert int(np.array(largest, columns[name].dtype).astype(dtype)) == largest


@given(flat_datasets, st.sampled_from(["fill", "intersect"]), st.randoms(use_true_random=False))
def test_the_order_of_the_files_does_not_change_types(
    files: list[dict[str, ColumnType]], policy: str, random: Any
) -> None:
    wanted = [name for name in WANTED if any(name in columns for columns in files)]
    assume(policy == "fill" or any(all(name in columns for columns in files) for name in wanted))
    shuffled = random.sample(files, len(files))
    assert aligned(policy, files, wanted).settle().columns == aligned(policy, shuffled, wanted).settle().columns


@given(datasets)
def test_the_policy_error_takes_only_files_that_are_equal_in_what_is_wanted(
    files: list[dict[str, ColumnType]],
) -> None:
    equal = all(
        name in columns and columns[name].same_kind(files[0][name])
        for columns in files
        for name in WANTED
        if name in files[0]
    ) and set(files[0]) == set(WANTED)
    try:
        settled = aligned("error", files).settle()
    except (BranchesDifferError, SourceError):
        assert not equal
    else:
        assert equal
        assert all(settled.columns[name].same_kind(files[0][name]) for name in WANTED)


@given(st.permutations(DTYPES).flatmap(lambda names: st.integers(1, 4).map(lambda count: names[:count])))
def test_the_common_type_does_not_depend_on_the_order(names: list[str]) -> None:
    dtypes = [np.dtype(name) for name in names]
    assert len({common_type(order) for order in itertools.permutations(dtypes)}) == 1
    assert common_type(dtypes, absent=True).kind == "f"


def test_a_file_that_lacks_a_branch_is_named_with_the_nearest_and_what_can_be_done() -> None:
    with pytest.raises(BranchesDifferError) as error:
        aligned("error", [{"MET_pt": number("f4")}, {"MET_Pt": number("f4")}], ["MET_pt"])
    assert str(error.value) == (
        "1.root does not match 0.root: it has no branch 'MET_pt'; nearest: 'MET_Pt'; leave out what not all files have, "
        "or set missing_branch to 'fill' or 'intersect'"
    )


def test_a_branch_of_another_type_is_named_with_both() -> None:
    with pytest.raises(
        BranchesDifferError,
        match=r"1\.root does not match 0\.root: branch 'a' holds int32 there and float64 in the first; leave it out, or",
    ):
        aligned("error", [{"a": number("f8")}, {"a": number("i4")}], ["a"])
    with pytest.raises(BranchesDifferError, match=r"'a' holds float64\[\] there and float64 in the first$"):
        aligned("fill", [{"a": number("f8")}, {"a": number("f8", jagged=True)}], ["a"])


def test_text_files_are_widened_under_every_policy() -> None:
    settled = aligned("error", [{"a": number("i8")}, {"a": number("f8")}], ["a"], widen=True).settle()
    assert str(settled.columns["a"]) == "float64"
    with pytest.raises(BranchesDifferError, match="no branch 'a'"):
        aligned("error", [{"a": number("i8")}, {}], ["a"], widen=True)


@pytest.mark.parametrize("policy", ["error", "fill", "intersect"])
def test_an_identifier_label_or_cut_must_be_in_every_file(policy: str) -> None:
    files = [{"x": number("f4"), "run": number("u4")}, {"x": number("f4")}]
    with pytest.raises(BranchesDifferError, match="no branch 'run'; identifiers, labels, weights and what cuts"):
        aligned(policy, files, ["x"], required=["run"])


def test_a_branch_that_was_named_is_not_left_out_but_may_be_filled() -> None:
    files = [{"x": number("f4"), "HLT": number("?")}, {"x": number("f4")}]
    with pytest.raises(BranchesDifferError, match="'HLT'; it was asked for by name and is not left out"):
        aligned("intersect", files, ["x", "HLT"], named=["HLT"])
    assert str(aligned("fill", files, ["x", "HLT"], named=["HLT"]).settle().columns["HLT"]) == "float32"


def test_identifiers_are_never_widened_to_floats_that_would_make_two_events_one() -> None:
    files = [{"event": number("i8")}, {"event": number("u8")}]
    with pytest.raises(BranchesDifferError, match="holds uint64 there and int64 in the first"):
        aligned("fill", files, [], required=["event"])
    assert str(aligned("fill", files, ["event"]).settle().columns["event"]) == "float64"


def test_a_file_that_does_not_fit_leaves_no_trace() -> None:
    alignment = Alignment(["a"], "error")
    alignment.add("one", {"a": number("f4")})
    with pytest.raises(BranchesDifferError):
        alignment.add("two", {"a": number("f8")})
    alignment.add("three", {"a": number("f4")})
    settled = alignment.settle()
    assert (settled.files, str(settled.columns["a"])) == (2, "float32")


def test_what_was_filled_and_left_out_is_said_in_one_line_each() -> None:
    files = [{"x": number("f4"), "HLT": number("?")}, {"x": number("f4")}, {"x": number("f4")}]
    assert aligned("fill", files, ["x", "HLT"]).settle().lines() == [
        "branch 'HLT' is absent in 2 of 3 files, its values there are filled in as absent"
    ]
    intersection = aligned("intersect", files, ["x", "HLT"])
    assert intersection.settle().lines() == ["branch 'HLT' is left out: not in 1.root and 1 more of 3 files"]
    assert intersection.files_without("HLT") == ["1.root", "2.root"]


def test_a_branch_of_no_file_and_an_unknown_policy_are_errors() -> None:
    with pytest.raises(SourceError, match=r"0\.root: neither it nor any of the 2 files has a branch 'b'"):
        aligned("fill", [{"a": number("f4")}] * 2, ["a", "b"]).settle()
    with pytest.raises(SourceError, match="no branch that is wanted is in all files"):
        aligned("intersect", [{"a": number("f4")}, {"b": number("f4")}], ["a", "b"]).settle()
    with pytest.raises(SettingError, match="'missing_branch' must be 'error', 'fill' or 'intersect'; got 'drop'"):
        Alignment(["a"], "drop")  # type: ignore[arg-type]


def test_bytes_of_an_event_are_the_mean_over_all_events() -> None:
    alignment = Alignment(["a"])
    alignment.add("one", {"a": ColumnType(np.dtype("f4"), True, 10.0)}, 30)
    alignment.add("two", {"a": ColumnType(np.dtype("f4"), True, 50.0)}, 10)
    assert alignment.settle().columns["a"].bytes_per_event == 20.0


def test_files_with_equal_branches_cost_only_their_names() -> None:
    names = [f"HLT_{index}" for index in range(1000)]
    bit = number("?")
    sets = [dict.fromkeys(names[start:], bit) for start in range(5)]
    alignment = Alignment(names, "intersect")
    paths = [f"{index}.root" for index in range(2000)]
    for index, path in enumerate(paths[:50]):
        alignment.add(path, sets[index % 5])
    tracemalloc.start()
    for index, path in enumerate(paths[50:]):
        alignment.add(path, sets[index % 5])
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 100 * len(paths)
    assert len(alignment.settle().columns) == 996


def settled_of(paths: list[Path], wanted: list[str], policy: Any = "fill") -> Mapping[str, ColumnType]:
    alignment = Alignment(wanted, policy)
    for path in paths:
        reader = open_reader(str(path), "Events")
        alignment.add(reader.path, reader.columns, reader.entries)
        reader.close()
    return pickle.loads(pickle.dumps(alignment.settle())).columns  # a worker process gets them so


def test_a_reader_widens_and_fills_what_its_file_has_otherwise(tmp_path: Path) -> None:
    full = make_events(500, seed=1)
    lacking = {name: values for name, values in make_events(400, seed=2).items() if name not in ("trigger", "Jet_pt")}
    lacking["MET_pt"] = lacking["MET_pt"].astype(np.float64)
    paths = [write_tree_file(tmp_path / "full.root", full, [77, 300])]
    paths.append(write_tree_file(tmp_path / "lacking.root", lacking, [50, 399]))
    columns = settled_of(paths, ["MET_pt", "trigger", "Jet_pt", "Jet_charge"])
    one, two = (AlignedReader(open_reader(str(path), "Events"), columns) for path in paths)
    assert list(one.clusters(list(columns))) == [0, 77, 300, 500]
    assert list(two.clusters(list(columns))) == list(two.clusters(["trigger"])) == [0, 50, 399, 400]
    read = one.read(70, 90, list(columns))
    np.testing.assert_array_equal(read["trigger"].content, full["trigger"][70:90].astype(np.float32))
    assert read["MET_pt"].content.dtype == np.float64
    np.testing.assert_array_equal(read["MET_pt"].content, full["MET_pt"][70:90])
    read = two.read(0, 400, list(columns))
    assert list(read) == list(columns)
    assert np.isnan(read["trigger"].content).all()
    assert len(read["trigger"].content) == 400
    assert read["Jet_pt"].content.size == 0
    assert read["Jet_pt"].offsets is not None
    assert (read["Jet_pt"].offsets == np.zeros(401)).all()
    assert two.size == paths[1].stat().st_size
    one.close()
    two.close()


def test_a_file_that_changed_after_it_was_settled_is_refused(tmp_path: Path) -> None:
    path = write_tree_file(tmp_path / "a.root", {"x": np.arange(5.0), "n": np.arange(5)})
    reader = open_reader(str(path), "Events")
    for columns, message in [
        ({"x": number("f4")}, "branch 'x' holds float64; in the dataset it is float32"),
        ({"x": number("f8", jagged=True)}, r"branch 'x' holds float64; in the dataset it is float64\[\]"),
        ({"y": number("i4")}, "it has no branch 'y'"),
    ]:
        with pytest.raises(SourceError, match=message):
            AlignedReader(reader, columns)
    reader.close()
