from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.streaming.block import EventBlock, KernelPlan, pack
from mlaas4hep.streaming.encoding import Encoding, Feature
from mlaas4hep.streaming.formats.base import Column

NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@st.composite
def events_and_encoding(draw: st.DrawFn) -> tuple[list[dict[str, Any]], Encoding]:
    """Any events of up to five features: no event, empty lists, NaN, infinities, lists wider than their places."""
    features = []
    for index in range(draw(st.integers(1, 5))):
        jagged = draw(st.booleans())
        width = draw(st.integers(0, 3)) if jagged else 1
        shift = draw(st.floats(-100, 100, width=32))
        scale = draw(st.floats(2**-7, 100, width=32))
        features.append(Feature(f"b{index}", jagged, width, shift, scale))
    event = st.fixed_dictionaries({f.branch: st.lists(NUMBERS, max_size=5) if f.jagged else NUMBERS for f in features})
    return draw(st.lists(event, max_size=6)), Encoding(tuple(features))


def as_columns(events: list[dict[str, Any]], encoding: Encoding) -> dict[str, Column]:
    columns = {}
    for feature in encoding.features:
        values = [event[feature.branch] for event in events]
        if feature.jagged:
            offsets = np.cumsum([0, *(len(value) for value in values)], dtype=np.int64)
            columns[feature.branch] = Column(np.array([v for value in values for v in value], np.float32), offsets)
        else:
            columns[feature.branch] = Column(np.array(values, np.float32), None)
    return columns


def raw_values(block: EventBlock, encoding: Encoding, events: int) -> tuple[np.ndarray, int]:
    raw = np.full((events, encoding.width), 77, np.float32)
    mask = np.empty(raw.shape, np.bool_)
    everything = np.arange(events)
    cut = block.encode(KernelPlan(encoding, scaled=False), everything, everything, raw, mask)
    np.testing.assert_array_equal(mask, np.isnan(raw))
    return raw, cut


def slow_vector(event: dict[str, Any], encoding: Encoding) -> tuple[list[np.float32], list[bool], int]:
    """The obvious per-event version."""
    vector, mask, cut = [], [], 0
    for feature in encoding.features:
        values = list(event[feature.branch]) if feature.jagged else [event[feature.branch]]
        cut += max(0, len(values) - feature.width)
        for place in range(feature.width):
            value = values[place] if place < len(values) else math.nan
            absent = not math.isfinite(value)
            mask.append(absent)
            scaled = (np.float32(value) - np.float32(feature.shift)) * np.float32(feature.scale)
            vector.append(np.float32(0) if absent else scaled)
    return vector, mask, cut


@given(events_and_encoding(), st.randoms(use_true_random=False))
def test_the_kernel_equals_the_per_event_version_for_any_rows_in_any_order(
    case: tuple[list[dict[str, Any]], Encoding], random: Any
) -> None:
    events, encoding = case
    block = pack(as_columns(events, encoding), encoding, len(events))
    rows = [row for row in range(len(events)) if random.random() < 0.7]
    places = random.sample(range(len(rows)), len(rows))
    x = np.full((len(rows), encoding.width), 77, np.float32)
    mask = np.ones((len(rows), encoding.width), np.bool_)
    with np.errstate(over="ignore"):
        cut = block.encode(KernelPlan(encoding), np.array(rows, np.int64), np.array(places, np.int64), x, mask)
        expected = [slow_vector(events[row], encoding) for row in rows]
    assert cut == sum(one[2] for one in expected)
    for (vector, absent, _), place in zip(expected, places, strict=True):
        np.testing.assert_array_equal(x[place], np.array(vector, np.float32))
        np.testing.assert_array_equal(mask[place], np.array(absent, bool))


@given(events_and_encoding())
def test_raw_rows_scaled_in_numpy_equal_what_the_kernel_encodes(case: tuple[list[dict[str, Any]], Encoding]) -> None:
    events, encoding = case
    block = pack(as_columns(events, encoding), encoding, len(events))
    everything = np.arange(len(events))
    x = np.empty((len(events), encoding.width), np.float32)
    mask = np.empty((len(events), encoding.width), np.bool_)
    plan = KernelPlan(encoding)
    cut = block.encode(plan, everything, everything, x, mask)
    raw, cut_raw = raw_values(block, encoding, len(events))
    with np.errstate(over="ignore"):
        expected_x, expected_mask = encoding.scale_raw(raw)
    assert cut == cut_raw
    np.testing.assert_array_equal(x, expected_x)
    np.testing.assert_array_equal(mask, expected_mask)


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("jagged", [False, True])
def test_every_type_of_numbers_is_packed(dtype: str, jagged: bool) -> None:
    values = np.array([0, 1, 1], dtype)
    column = Column(values, np.array([0, 2, 3], np.int64) if jagged else None)
    encoding = Encoding((Feature("b", jagged, 2 if jagged else 1),))
    events = 2 if jagged else 3
    raw, _ = raw_values(pack({"b": column}, encoding, events), encoding, events)
    expected = [[0, 1], [1, math.nan]] if jagged else [[0], [1], [1]]
    np.testing.assert_array_equal(raw, np.array(expected, np.float32))


def test_a_value_beyond_float32_is_absent() -> None:
    encoding = Encoding((Feature("b", False, 1),))
    raw, _ = raw_values(pack({"b": Column(np.array([1e300, 2.0]), None)}, encoding, 2), encoding, 2)
    np.testing.assert_array_equal(raw, np.array([[math.nan], [2.0]], np.float32))


def test_a_description_survives_json_and_another_version_is_refused() -> None:
    encoding = Encoding((Feature("MET_pt", False, 1, 0.1, 3.0), Feature("Jet_pt", True, 4)))
    assert Encoding.from_dict(encoding.to_dict()) == encoding
    with pytest.raises(ValueError, match="version 1 or 2; got 3"):
        Encoding.from_dict(encoding.to_dict() | {"version": 3})
