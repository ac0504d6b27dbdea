from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.errors import BranchTypeError, LabelError, SettingError
from mlaas4hep.streaming.formats import open_reader
from mlaas4hep.streaming.formats.base import Column
from mlaas4hep.streaming.labels import Labels, Targets, is_expression, parse_labels
from mlaas4hep.streaming.selecting.selection import EventSelection, SelectedReader


def flat(values: Any, dtype: Any = None) -> Column:
    return Column(np.array(values, dtype), None)


@given(
    st.lists(st.integers(-100, 100), min_size=2).filter(lambda values: len(set(values)) > 1),
    st.sampled_from([np.int8, np.int32, np.int64, np.float32, np.float64]),
    st.data(),
)
def test_the_class_of_every_event_is_its_value_whatever_the_type(
    values: list[int], dtype: type, data: st.DataObject
) -> None:
    labels = Labels.of_branch("flavour", np.array(values, dtype))
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    found = labels.of_events(0, len(values), {"flavour": flat(values, dtype)}, chosen=chosen)
    assert found.dtype == labels.dtype
    assert found.shape == (len(values), *labels.shape)
    assert [labels.classes[place] for place in found[chosen]] == [str(value) for value in np.array(values)[chosen]]
    assert not found[~chosen].any()


def test_a_truth_value_makes_the_classes_0_and_1(higgs_files: list[str]) -> None:
    reader = SelectedReader(open_reader(higgs_files[0], "Events"), EventSelection(new_columns={"label": "nJet >= 3"}))
    column = reader.read(0, 1000, ["label", "nJet"])
    labels = Labels.of_branch("nJet >= 3", np.unique(column["label"].content))
    found = labels.of_events(0, 1000, {"nJet >= 3": column["label"]})
    assert labels.classes == ("0", "1")
    assert labels.columns == ("nJet >= 3",)
    np.testing.assert_array_equal(found, column["nJet"].content >= 3)
    assert 0 < found.sum() < 1000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, 1.0, math.nan], r"label 'x > 1' has no value \(NaN\) for some events"),
        ([0.0, 0.5], "no whole numbers"),
        ([0.0, math.inf], "no whole numbers"),
        ([0.0, 1e300], "no whole numbers"),
        (np.array([0, 2**63], np.uint64), "no whole numbers"),
        ([True, True], "holds only True; a classification needs at least two classes"),
        ([], "holds only no value"),
        (np.arange(1001), "holds 1001 different values; at most 1000"),
    ],
)
def test_values_that_name_no_classes_are_refused(values: Any, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        Labels.of_branch("x > 1", np.array(values))


@pytest.mark.parametrize("value", [math.nan, 7.0, math.inf, 0.5, -1.0])
def test_an_event_of_no_class_is_an_error_unless_it_is_not_used(value: float) -> None:
    labels = Labels(("0", "1"), (), "x")
    columns = {"x": flat([0.0, 1.0, value])}
    with pytest.raises(LabelError, match=r"branch 'x' holds \S+ at entry 102, which is none of the classes 0, 1"):
        labels.of_events(0, 3, columns, entries=100)
    with pytest.raises(LabelError, match="at entry 77,"):
        labels.of_events(0, 3, columns, entries=np.array([5, 6, 77]))
    chosen = np.array([True, True, False])
    assert labels.of_events(0, 3, columns, chosen=chosen).tolist() == [0, 1, 0]


def test_a_label_that_is_a_list_is_an_error() -> None:
    with pytest.raises(LabelError, match="branch 'x' holds lists"):
        Labels(("0", "1"), (), "x").of_events(0, 1, {"x": Column(np.zeros(2), np.array([0, 2]))})


def test_labels_of_files_need_no_column() -> None:
    labels = Labels.of_files(["b", "a", "b"], ["1", "2", "3"])
    assert (labels.classes, labels.columns) == (("a", "b"), ())
    assert labels.of_events(2, 2, {}).tolist() == [1, 1]
    assert Labels().of_events(5, 2, {}).tolist() == [0, 0]


@given(st.lists(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=2)))
def test_targets_are_the_columns_side_by_side(rows: list[list[float]]) -> None:
    targets = Targets(("a", "b"))
    columns = {name: flat([row[place] for row in rows], np.float64) for place, name in enumerate("ab")}
    found = targets.of_events(0, len(rows), columns)
    assert (found.dtype, found.shape) == (targets.dtype, (len(rows), *targets.shape))
    assert found.tolist() == rows


def test_targets_take_whole_numbers_and_truth_values() -> None:
    columns = {"n": flat([1, 2], np.uint8), "is": flat([True, False])}
    assert Targets(("n", "is")).of_events(0, 2, columns).tolist() == [[1.0, 1.0], [2.0, 0.0]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39])
def test_a_target_that_is_not_finite_is_named_unless_the_event_is_not_used(value: float) -> None:
    targets = Targets(("a", "b"), files=("one.root", "two.root"))
    columns = {"a": flat([0.0, 0.0]), "b": flat([1.0, value])}
    with pytest.raises(LabelError, match=r"target 'b' is \S+ at entry 501 of two.root; a target must be finite"):
        targets.of_events(1, 2, columns, entries=500)
    assert targets.of_events(1, 2, columns, chosen=np.array([True, False])).tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_a_target_that_is_a_list_is_an_error() -> None:
    with pytest.raises(BranchTypeError, match="branch 'a' of file 0 cannot be used: a target is one number an event"):
        Targets(("a",)).of_events(0, 1, {"a": Column(np.zeros(2), np.array([0, 2]))})


@pytest.mark.parametrize("columns", [(), ("a", "a"), tuple(map(str, range(1001)))])
def test_targets_are_one_to_a_thousand_different_columns(columns: tuple[str, ...]) -> None:
    with pytest.raises(SettingError, match="setting 'targets' must be 1 to 1000 different branches"):
        Targets(columns)


def test_labels_and_targets_travel_between_processes() -> None:
    for one in (Labels(("0", "1"), (), "x > 1"), Targets(("a",), ("one.root",))):
        assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max(nGenTop, nGenW) >= 1", (None, "max(nGenTop, nGenW) >= 1")),
        ("where(Jet_pt[0] > 30, 1, 0)", (None, "where(Jet_pt[0] > 30, 1, 0)")),
        (" genFlavour == 5 ", (None, "genFlavour == 5")),
        ("min(1,2),3", (["min(1", "2)", "3"], None)),
        ("a(,b", (["a(", "b"], None)),
        ("1", (["1"], None)),
    ],
)
def test_a_comma_within_brackets_belongs_to_an_expression(text: str, expected: Any) -> None:
    assert parse_labels(text) == expected


@pytest.mark.parametrize("text", ["not isSignal", "-x", "a*b", "x**2", "a<b", "Jet_pt[0]", "sum(x)", "a and b"])
def test_operations_are_told_from_names(text: str) -> None:
    assert is_expression(text)
    assert not is_expression("genFlavour")
