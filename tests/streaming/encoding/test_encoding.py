from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.encoding.block import EventBlock, KernelPlan, pack
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.streaming.encoding.kernels import order_objects
from mlaas4hep.streaming.encoding.objects import Collection
from mlaas4hep.streaming.formats.base import Column

NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True)


SCALES = st.floats(2**-7, 100, width=32)
SHIFTS = st.floats(-100, 100, width=32)
CLIPS = st.none() | st.sampled_from([(-5.0, 5.0), (-math.inf, 1.0), (0.25, math.inf)])


def features_of(draw: st.DrawFn, branch: str, width: int | None) -> Feature:
    """A flat feature where there is no width."""
    log = draw(st.booleans())
    return Feature(
        branch,
        width is not None,
        1 if width is None else width,
        draw(SHIFTS),
        draw(SCALES),
        "log" if log else "linear",
        draw(SHIFTS) if log else 0.0,
        draw(SCALES) if log else 1.0,
        draw(CLIPS),
    )


@st.composite
def events_and_encoding(draw: st.DrawFn) -> tuple[list[dict[str, Any]], Encoding]:
    """Any events and any vector: no event, empty lists, NaN, infinities, lists wider than their places, collections in any order."""
    loose = [features_of(draw, f"f{i}", None) for i in range(draw(st.integers(0, 2)))]
    loose += [features_of(draw, f"l{i}", draw(st.integers(0, 3))) for i in range(draw(st.integers(0, 2)))]
    together: list[Feature] = []
    collections = []
    objects: list[st.SearchStrategy[dict[str, list[float]]]] = [st.just({})]
    for number in range(draw(st.integers(0 if loose else 1, 2))):
        width = draw(st.integers(0, 3))
        members = [features_of(draw, f"c{number}_{i}", width) for i in range(draw(st.integers(1, 3)))]
        key = draw(st.sampled_from([None, members[0].branch, f"k{number}"]))
        names = [*(member.branch for member in members), *([key] if key == f"k{number}" else [])]
        values = NUMBERS | st.sampled_from([0.0, 1.0, math.nan])  # ties are common
        objects.append(
            st.lists(st.tuples(*[values] * len(names)), max_size=5).map(
                lambda rows, names=names: {n: [row[i] for row in rows] for i, n in enumerate(names)}
            )
        )
        together += members
        collections.append(Collection(f"c{number}", tuple(m.branch for m in members), key, draw(st.booleans())))
    encoding = Encoding((*loose, *together), draw(st.sampled_from(["flat", "objects"])), tuple(collections))
    alone = st.fixed_dictionaries({f.branch: st.lists(NUMBERS, max_size=5) if f.jagged else NUMBERS for f in loose})
    event = st.tuples(alone, *objects).map(lambda parts: {name: v for part in parts for name, v in part.items()})
    return draw(st.lists(event, max_size=6)), encoding


def as_columns(events: list[dict[str, Any]], encoding: Encoding) -> dict[str, Column]:
    columns = {}
    flat = {feature.branch for feature in encoding.features if not feature.jagged}
    for branch in encoding.sources:
        values = [event[branch] for event in events]
        if branch in flat:
            columns[branch] = Column(np.array(values, np.float32), None)
        else:
            offsets = np.cumsum([0, *(len(value) for value in values)], dtype=np.int64)
            columns[branch] = Column(np.array([v for value in values for v in value], np.float32), offsets)
    return columns


def raw_values(block: EventBlock, encoding: Encoding, events: int) -> tuple[np.ndarray, int]:
    raw = np.full((events, encoding.width), 77, np.float32)
    mask = np.empty(raw.shape, np.bool_)
    everything = np.arange(events)
    cut = block.encode(KernelPlan(encoding, scaled=False), everything, everything, raw, mask)
    np.testing.assert_array_equal(mask, np.isnan(raw))
    return raw, cut


def slow_scale(value: float, feature: Feature) -> np.float32:
    scaled = (np.float32(value) - np.float32(feature.shift)) * np.float32(feature.scale)
    if feature.transform == "log":
        scaled = np.float32((math.log1p(max(0.0, float(scaled))) - feature.log_shift) * feature.log_scale)
    if feature.clip is not None:
        scaled = min(max(scaled, np.float32(feature.clip[0])), np.float32(feature.clip[1]))
    return scaled


def slow_order(keys: list[float], descending: bool) -> list[int]:
    numbers = [i for i, key in enumerate(keys) if not math.isnan(key)]
    numbers.sort(key=lambda i: -keys[i] if descending else keys[i])
    return numbers + [i for i, key in enumerate(keys) if math.isnan(key)]


def slow_vector(event: dict[str, Any], encoding: Encoding) -> tuple[list[np.float32], list[bool], list[int]]:
    """The obvious per-event version."""
    values = {f.branch: list(event[f.branch]) if f.jagged else [event[f.branch]] for f in encoding.features}
    for collection in encoding.collections:
        if collection.order_by is not None:
            order = slow_order(event[collection.order_by], collection.descending)
            values.update({name: [values[name][i] for i in order] for name in collection.members})
    features = {feature.branch: feature for feature in encoding.features}
    members = [name for collection in encoding.collections for name in collection.members]
    places = [(f.branch, i) for f in encoding.features for i in range(f.width)]
    if encoding.layout == "objects":
        places = [place for place in places if place[0] not in members]
        for collection in encoding.collections:
            width = features[collection.members[0]].width
            places += [(name, i) for i in range(width) for name in collection.members]
    vector, mask = [], []
    for branch, position in places:
        value = values[branch][position] if position < len(values[branch]) else math.nan
        mask.append(not math.isfinite(value))
        vector.append(np.float32(0) if mask[-1] else slow_scale(value, features[branch]))
    return vector, mask, [max(0, len(values[f.branch]) - f.width) for f in encoding.features]


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
    counts = np.zeros(len(encoding.features), np.int64)
    with np.errstate(over="ignore"):
        cut = block.encode(KernelPlan(encoding), np.array(rows, np.int64), np.array(places, np.int64), x, mask, counts)
        expected = [slow_vector(events[row], encoding) for row in rows]
    assert counts.tolist() == [sum(column) for column in zip(*(one[2] for one in expected), strict=True)] or not rows
    assert cut == counts.sum()
    for (vector, absent, _), place in zip(expected, places, strict=True):
        # The last bit of a logarithm is the library's.
        np.testing.assert_allclose(x[place], np.array(vector, np.float32), rtol=2e-7)
        np.testing.assert_array_equal(mask[place], np.array(absent, bool))


@given(
    st.lists(
        st.lists(NUMBERS | st.sampled_from([1.0, 2.0, -math.inf]), max_size=9)
        | st.lists(st.sampled_from([1.0, 2.0, 3.0, -math.inf, math.inf, math.nan]), min_size=65, max_size=70),
        max_size=4,
    ),
    st.booleans(),
)
def test_objects_are_ordered_as_a_stable_sort_orders_them_with_nan_last(
    events: list[list[float]], descending: bool
) -> None:
    offsets = np.cumsum([0, *(len(keys) for keys in events)], dtype=np.int64)
    order = order_objects(np.array([k for keys in events for k in keys], np.float64), offsets, descending)
    expected = [start + i for start, keys in zip(offsets, events, strict=False) for i in slow_order(keys, descending)]
    assert order.tolist() == expected


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
    np.testing.assert_allclose(x, expected_x, rtol=2e-7)
    if not encoding.logarithmic.any():
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


@given(events_and_encoding())
def test_a_description_survives_json(case: tuple[list[dict[str, Any]], Encoding]) -> None:
    description = json.loads(json.dumps(case[1].to_dict(), allow_nan=False))
    assert Encoding.from_dict(description) == case[1]


def test_a_description_of_version_1_is_read() -> None:
    description = {
        "version": 1,
        "layout": "flat",
        "features": [
            {"branch": "MET_pt", "jagged": False, "width": 1, "shift": 0.1, "scale": 3.0},
            {"branch": "Jet_pt", "jagged": True, "width": 4, "shift": 0.0, "scale": 1.0},
        ],
    }
    expected = Encoding((Feature("MET_pt", False, 1, 0.1, 3.0), Feature("Jet_pt", True, 4)))
    assert Encoding.from_dict(description) == expected


PT, ETA = Feature("Jet_pt", True, 2), Feature("Jet_eta", True, 2)
JETS = Collection("Jet", ("Jet_pt", "Jet_eta"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 3}, "version 1 or 2; got 3"),
        ({"layout": "table"}, "must be 'flat' or 'objects'; got 'table'"),
        (
            {"features": [{"branch": "b", "jagged": True, "width": 1, "shift": 0, "scale": 1, "transform": "exp"}]},
            "log",
        ),
        (
            {"features": [{"branch": "b", "jagged": True, "width": 1, "shift": 0, "scale": 1, "clip": [3, 3]}]},
            "clipped",
        ),
        ({"features": [{"branch": "b", "jagged": True, "width": 1, "shift": 0, "scale": 1}]}, "must be features"),
    ],
)
def test_a_description_that_does_not_fit_together_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Encoding.from_dict(Encoding((PT, ETA), "objects", (JETS,)).to_dict() | change)


@pytest.mark.parametrize(
    ("features", "collections", "said"),
    [
        ((PT, replace(ETA, width=3)), (JETS,), "equally wide"),
        ((ETA, PT), (JETS,), "must be the last features"),
        ((PT, ETA), (JETS, JETS), "two collections"),
        ((PT, ETA), (Collection("Jet", ()),), "must be features that hold lists"),
        ((PT, Feature("MET_pt", False, 2)), (Collection("Jet", ("Jet_pt", "MET_pt")),), "hold lists"),
    ],
)
def test_collections_that_do_not_fit_the_features_are_refused(features: Any, collections: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Encoding(features, "objects", collections)


def test_lists_of_a_collection_that_differ_in_an_event_are_an_error_that_names_them() -> None:
    pt = Column(np.ones(3, np.float32), np.array([0, 2, 3]))
    eta = Column(np.ones(3, np.float32), np.array([0, 1, 3]))
    encoding = Encoding((PT, ETA), collections=(JETS,))
    with pytest.raises(SettingError, match="2 values of 'Jet_pt' and 1 of 'Jet_eta' in one event"):
        pack({"Jet_pt": pt, "Jet_eta": eta}, encoding, 2)
    with pytest.raises(SettingError, match="got \"'Jet_eta', which holds one value\""):
        pack({"Jet_pt": pt, "Jet_eta": Column(np.ones(2, np.float32), None)}, encoding, 2)


def test_objects_that_were_cut_off_are_reported_once_a_collection() -> None:
    encoding = Encoding((Feature("MET_pt", False, 1), Feature("SV_x", True, 1), PT, ETA), collections=(JETS,))
    assert encoding.cut_report(np.array([0, 4, 3, 3])) == {"SV_x": 4, "Jet": 3}
    assert encoding.cut_report(np.zeros(4, np.int64)) == {}


@given(events_and_encoding())
def test_unscaling_gives_back_what_no_clip_and_no_logarithm_of_a_negative_number_changed(
    case: tuple[list[dict[str, Any]], Encoding],
) -> None:
    encoding = replace(case[1], features=tuple(replace(f, clip=None) for f in case[1].features))
    generator = np.random.default_rng(len(case[0]))
    raw = (encoding.shifts + generator.uniform(0.1, 10, (5, encoding.width)) / encoding.scales).astype(np.float32)
    x, _ = encoding.scale_raw(raw)
    # One bit of x is worth so much of a raw value: the slope of the scaling is what it is.
    again, _ = encoding.scale_raw(encoding.unscale(x))
    np.testing.assert_allclose(again, x, rtol=1e-4, atol=1e-3)
    assert np.isnan(encoding.unscale(np.full((1, encoding.width), np.nan))).all()


def test_the_unscaled_vector_has_the_same_places_and_order() -> None:
    encoding = Encoding((replace(PT, transform="log", clip=(0, 1)), ETA), "objects", (JETS,))
    assert encoding.unscaled == Encoding((PT, ETA), "objects", (JETS,))
