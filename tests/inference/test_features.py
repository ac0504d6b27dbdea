"""Names and values to rows: against a slow and obvious twin, and every way to get it wrong."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.conftest import ENCODING

from mlaas4hep.errors import FeatureError
from mlaas4hep.inference.features import PLANS, FeatureReader
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.streaming.encoding.objects import Collection

READER = FeatureReader("higgs", ENCODING)
NAN = float("nan")


def slow_row(encoding: Encoding, keys: list[str], values: list[Any]) -> tuple[list[float], int]:
    """Put each value where its name says, one by one."""
    row, cut = [NAN] * encoding.width, 0
    for key, value in zip(keys, values, strict=True):
        for number, column in enumerate(encoding.columns):
            if column == key:
                row[number] = NAN if value is None else float(value)
        for feature in encoding.features:
            if feature.jagged and feature.branch == key:
                for position, element in enumerate(value or []):
                    if position >= feature.width:
                        cut += 1
                    elif element is not None:
                        row[encoding.columns.index(f"{key}_{position}")] = float(element)
    return row, cut


NUMBERS = st.none() | st.floats(-(2.0**100), 2.0**100, width=32) | st.integers(-(2**70), 2**70) | st.booleans()
NAMES = st.text("abc_", min_size=1, max_size=4).filter(lambda name: not name[-1].isdigit())


@st.composite
def encodings(draw: st.DrawFn) -> Encoding:
    flat = draw(st.lists(NAMES, unique=True, max_size=4))
    jagged = draw(st.lists(NAMES.map(lambda name: "J" + name), unique=True, max_size=3, min_size=0 if flat else 1))
    # The last lists are objects of a collection, as many as there are at each place.
    together = sorted(jagged)[len(jagged) - draw(st.integers(0, len(jagged))) :]
    same = draw(st.integers(1, 4))
    widths = {name: same if name in together else draw(st.integers(1, 4)) for name in jagged}
    return Encoding(
        (
            *(Feature(name, False, 1) for name in sorted(flat)),
            *(Feature(name, True, widths[name]) for name in sorted(jagged)),
        ),
        "objects" if together else "flat",
        (Collection("J", tuple(together)),) if together else (),
    )


@st.composite
def requests(draw: st.DrawFn) -> tuple[Encoding, list[str], list[list[Any]]]:
    """An encoding, and names with values that fit it: all flat ones, some places or whole branches, in any order."""
    encoding = draw(encodings())
    keys: list[str] = []
    for feature in encoding.features:
        if not feature.jagged or draw(st.booleans()):
            keys.append(feature.branch)
        else:
            keys += [f"{feature.branch}_{place}" for place in range(feature.width) if draw(st.booleans())]
    keys = draw(st.permutations(keys))
    whole = {feature.branch for feature in encoding.features if feature.jagged}
    value = {key: st.lists(NUMBERS, max_size=6) | st.none() if key in whole else NUMBERS for key in keys}
    count = draw(st.integers(0, 3))
    return encoding, keys, [[draw(value[key]) for key in keys] for _ in range(count)]


@given(requests())
def test_matching_by_name_gives_what_the_obvious_loop_gives(
    request: tuple[Encoding, list[str], list[list[Any]]],
) -> None:
    encoding, keys, rows = request
    reader = FeatureReader("m", encoding)
    expected = [slow_row(encoding, keys, row) for row in rows]
    for _ in range(2):  # the second time the names are known
        result = reader.read(keys, rows)
        assert result.values.dtype == np.float32
        assert result.values.shape == (len(rows), encoding.width)
        np.testing.assert_array_equal(
            result.values, np.array([row for row, _ in expected], np.float32).reshape(result.values.shape)
        )
        assert result.cut == sum(cut for _, cut in expected)


def read_one(keys: list[Any] | None, values: list[Any], **options: Any) -> list[float]:
    return READER.read(keys, [values], **options).values[0].tolist()


def equal(first: list[float], second: list[float]) -> bool:
    return np.array_equal(np.array(first, np.float32), np.array(second, np.float32), equal_nan=True)


FLAT = ["MET_phi", "MET_pt", "nJet"]


def test_a_jagged_branch_that_is_not_named_is_empty() -> None:
    assert equal(read_one(FLAT, [1, 2, 3]), [1, 2, 3, NAN, NAN, NAN, NAN, NAN])


def test_places_with_holes_stay_holes() -> None:
    assert equal(read_one([*FLAT, "Jet_pt_2"], [1, 2, 3, 4]), [1, 2, 3, NAN, NAN, NAN, NAN, 4])


def test_a_list_that_is_too_long_is_cut_off_and_counted() -> None:
    result = READER.read([*FLAT, "Jet_pt", "Jet_eta"], [[1, 2, 3, [5, 6, 7, 8, 9], [1, 2, 3]]])
    assert equal(result.values[0].tolist(), [1, 2, 3, 1, 2, 5, 6, 7])
    assert result.cut == 3


def test_null_is_absent_and_true_and_false_are_numbers() -> None:
    assert equal(read_one([*FLAT, "Jet_pt"], [None, True, False, [None, 7]]), [NAN, 1, 0, NAN, NAN, NAN, 7, NAN])


def test_without_names_values_are_in_the_order_of_the_model() -> None:
    assert equal(read_one(None, [1, 2, 3, 4, 5, 6, None, 8]), [1, 2, 3, 4, 5, 6, NAN, 8])


def test_a_model_without_encoding_passes_over_names_and_counts_values() -> None:
    reader = FeatureReader("other", None, 2)
    assert reader.read(["whatever"], [[1, 2]]).values.tolist() == [[1, 2]]
    with pytest.raises(FeatureError, match="model 'other' needs 2 values; got 3"):
        reader.read(None, [[1, 2, 3]])
    free = FeatureReader("free")
    assert free.read(None, [[1, 2, 3]]).values.tolist() == [[1, 2, 3]]
    with pytest.raises(FeatureError, match="do not all have the same number"):
        free.read(None, [[1, 2, 3], [1]])


def test_normalised_values_are_brought_back_to_what_the_graph_scales() -> None:
    raw = np.array([[0.5, 35.25, 4, 1.5, NAN, 101.5, NAN, NAN]], np.float32)
    scaled, mask = ENCODING.scale_raw(raw)
    values = [None if absent else float(value) for value, absent in zip(scaled[0], mask[0], strict=True)]
    assert read_one(None, values, normalised=True) == pytest.approx(raw[0].tolist(), rel=1e-6, nan_ok=True)
    again, _ = ENCODING.scale_raw(np.array([read_one(None, values, normalised=True)], np.float32))
    np.testing.assert_allclose(again, scaled, atol=1e-7)
    with pytest.raises(FeatureError, match="does not say how its values are scaled"):
        FeatureReader("other", None, 1).read(None, [[1.0]], normalised=True)


def test_normalised_logarithms_are_brought_back_too() -> None:
    encoding = Encoding(
        (Feature("MET_pt", False, 1, 3.0, 0.04, "log", 0.7, 2.5), Feature("PV_npvs", False, 1, 1.0, 0.5))
    )
    raw = np.array([[3.0, 1.0], [28.5, 7.0], [900.0, 20.0]], np.float32)
    scaled, _ = encoding.scale_raw(raw)
    values = FeatureReader("higgs", encoding).read(None, scaled.tolist(), normalised=True).values
    np.testing.assert_allclose(values, raw, rtol=1e-6)


def test_a_flat_branch_with_the_name_of_a_place_is_meant_by_that_name() -> None:
    encoding = Encoding((Feature("Jet_pt_0", False, 1), Feature("Jet_pt", True, 2)))
    values = FeatureReader("m", encoding).read(["Jet_pt_0", "Jet_pt"], [[1, [2, 3]]]).values
    assert values.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("keys", "values", "message"),
    [
        (
            ["MET_phi", "met_pt", "nJet"],
            [1, 2, 3],
            "model 'higgs' needs 5 features; missing: 'MET_pt'; not known: 'met_pt' (nearest: 'MET_pt'",
        ),
        ([*FLAT, "Jet_pt_3"], [1, 2, 3, 4], "not known: 'Jet_pt_3' ('Jet_pt' has 3 places, counted from 0)"),
        ([*FLAT, "Jet_pt_00"], [1, 2, 3, 4], "not known: 'Jet_pt_00'"),
        ([*FLAT, "Jet_pt_-1"], [1, 2, 3, 4], "not known: 'Jet_pt_-1'"),
        ([*FLAT, "MET_pt"], [1, 2, 3, 4], "given twice: 'MET_pt'"),
        ([*FLAT, "Jet_pt", "Jet_pt_1"], [1, 2, 3, [4], 5], "given twice: 'Jet_pt', 'Jet_pt_1'"),
        ([*FLAT, "Jet_pt_1", "Jet_pt"], [1, 2, 3, 5, [4]], "given twice: 'Jet_pt_1', 'Jet_pt'"),
        ([], [], "missing: 'MET_phi', 'MET_pt', 'nJet'"),
        (FLAT, [1, 2], "there are 3 keys and 2 values"),
        (["MET_pt", 7, "nJet"], [1, 2, 3], "keys must be strings; got 7"),
        ([["MET_pt"], "MET_phi", "nJet"], [1, 2, 3], "keys must be strings; got ['MET_pt']"),
        (None, [1, 2, 3], "model 'higgs' needs 8 values; got 3"),
        (FLAT, [1, "2", 3], "the value of 'MET_pt' must be one number or null; got '2'"),
        (FLAT, ["1", "2", "3"], "the value of 'MET_phi' must be one number or null; got '1'"),
        (FLAT, [1, [2], 3], "the value of 'MET_pt' must be one number or null; got [2]"),
        (FLAT, [[1], [2], [3]], "the value of 'MET_phi' must be one number or null; got [1]"),
        (FLAT, [1, {"a": 1}, 3], "the value of 'MET_pt' must be one number or null; got {'a': 1}"),
        ([*FLAT, "Jet_pt"], [1, 2, 3, 4], "'Jet_pt' of model 'higgs' holds a list of values; got 4"),
        ([*FLAT, "Jet_pt"], [1, 2, 3, ["4"]], "the value of 'Jet_pt_0' must be one number or null; got '4'"),
        ([*FLAT, "Jet_pt"], [1, 2, 3, [1, 2, 3, "4"]], "a value of 'Jet_pt' must be one number or null; got '4'"),
        ([*FLAT, "Jet_pt"], [1, 2, 3, [[1]]], "the value of 'Jet_pt_0' must be one number or null; got [1]"),
        (FLAT, [1, 1e39, 3], "the value of 'MET_pt' is beyond the range of float32"),
        (FLAT, [1, -1e39, None], "the value of 'MET_pt' is beyond the range of float32"),
        (FLAT, [1, 10**400, 3], "the value of 'MET_pt' is beyond the range of float32"),
        (FLAT, [None, -(10**400), 3], "the value of 'MET_pt' is beyond the range of float32"),
        (None, [1, 2, 3, 4, 5, 6, 7, 1e300], "value 7 is beyond the range of float32"),
    ],
)
def test_what_does_not_fit_is_named(keys: list[Any] | None, values: list[Any], message: str) -> None:
    with pytest.raises(FeatureError, match=re.escape(message)):
        read_one(keys, values)


def test_the_row_that_does_not_fit_is_named() -> None:
    with pytest.raises(FeatureError, match="3 keys and 2 values in row 1"):
        READER.read(FLAT, [[1, 2, 3], [1, 2]])


def test_the_largest_float32_is_a_value() -> None:
    largest = float(np.finfo(np.float32).max)
    assert read_one(FLAT, [largest, -largest, 0])[:2] == [largest, -largest]


def test_ever_new_names_do_not_fill_the_memory() -> None:
    reader = FeatureReader("m", Encoding((Feature("a", False, 1), Feature("J", True, 12))))
    for number in range(3000):
        keys = ["a", *(f"J_{place}" for place in range(12) if number >> place & 1)]
        assert reader.read(keys, [[1.0] * len(keys)]).values[0, 0] == 1.0
    assert len(reader._plans) <= PLANS


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=5),
    )
)
def test_any_values_give_a_row_or_one_clear_error(value: Any) -> None:
    for keys in (None, FLAT, [*FLAT, "Jet_pt"]):
        values = [value] * (8 if keys is None else len(keys))
        try:
            outcome = READER.read(keys, [values]).values
        except FeatureError as error:
            outcome = np.zeros((1, 8)) if len(str(error)) < 500 else np.zeros(0)
        assert outcome.shape == (1, 8)
        assert not np.isinf(outcome).any()
