from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.streaming.formats import open_reader
from mlaas4hep.streaming.formats.base import Column
from mlaas4hep.streaming.splitting import Split, event_identity
from mlaas4hep.streaming.statistics.separation import ClassSketches, Separation, separating_features

VALUES = st.floats(-100, 100, width=32) | st.sampled_from(
    [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 1.0, 305040.0]
)
EVENTS = st.lists(st.tuples(VALUES, st.integers(0, 2)), min_size=3, max_size=120)


def slow_area(signal: list[float], background: list[float]) -> float:
    """The obvious version: how often a pair of events is in order."""
    wins = sum((s > b) + 0.5 * (s == b) for s in signal for b in background)
    area = wins / (len(signal) * len(background))
    return max(area, 1 - area)


def slow_separation(values: list[float], y: list[int], classes: int) -> float | None:
    """The obvious version; no value stands below all values."""
    values = [value if math.isfinite(value) else -math.inf for value in values]
    areas = []
    for label in range(1, 2) if classes == 2 else range(classes):
        signal = [value for value, number in zip(values, y, strict=True) if number == label]
        rest = [value for value, number in zip(values, y, strict=True) if number != label]
        if min(len(signal), len(rest)) >= 20:
            areas.append(slow_area(signal, rest))
    return max(areas, default=None)


def sketches_of(columns: dict[str, Column], y: Any, classes: int = 2, chosen: Any = None) -> ClassSketches:
    sketches = ClassSketches(list(columns), [str(number) for number in range(classes)])
    sketches.add(columns, np.array(y), np.ones(len(y), bool) if chosen is None else np.array(chosen))
    return sketches


@given(EVENTS, st.integers(2, 3))
def test_the_area_equals_the_obvious_version(events: list[tuple[float, int]], classes: int) -> None:
    values, y = [event[0] for event in events] * 7, [event[1] % classes for event in events] * 7
    found = sketches_of({"x": Column(np.array(values, np.float32), None)}, y, classes).separation_of("x")
    expected = slow_separation(values, y, classes)
    assert (None if found is None else pytest.approx(found.auc, abs=1e-12)) == expected


@given(EVENTS, st.lists(st.integers(0, 120), max_size=4))
def test_counting_in_pieces_and_adding_gives_the_same(events: list[tuple[float, int]], cuts: list[int]) -> None:
    values, y = np.array([event[0] for event in events] * 7, np.float64), np.array([event[1] for event in events] * 7)
    whole = sketches_of({"x": Column(values, None)}, y, 3).separation_of("x")
    bounds = [0, *sorted(7 * cut for cut in cuts), len(y)]
    run_by_run, added = ClassSketches(["x"], "012"), ClassSketches(["x"], "012")
    for start, stop in itertools.pairwise(bounds):
        piece = ({"x": Column(values[start:stop], None)}, y[start:stop])
        run_by_run.add(*piece, np.ones(len(piece[1]), bool))
        added = pickle.loads(pickle.dumps(added)) + sketches_of(*piece, 3)
    assert run_by_run.separation_of("x") == added.separation_of("x") == whole


@pytest.mark.parametrize(("middle", "dropped"), [(0.0, 16), (2000.0, 5), (305040.0, 0)])
def test_of_many_different_values_the_last_bits_are_dropped_in_any_order_alike(middle: float, dropped: int) -> None:
    generator = np.random.default_rng(1)
    y = generator.integers(0, 2, 60_000)
    values = (middle + generator.normal(0, 1, 60_000) + 0.7 * y).astype(np.float32)
    columns = {"x": Column(values, None)}
    whole = sketches_of(columns, y)
    pieces = [ClassSketches(["x"], "01") for _ in range(2)]
    for start in generator.permutation(60) * 1000:
        part = slice(start, start + 1000)
        pieces[start // 1000 % 2].add({"x": Column(values[part], None)}, y[part], np.ones(1000, bool))
    both = pieces[0] + pieces[1]
    assert whole.separation_of("x") == both.separation_of("x") == (pieces[1] + pieces[0]).separation_of("x")
    assert whole._values["x"].dropped == both._values["x"].dropped == dropped
    assert len(whole._values["x"].keys) < 5000
    others = np.sort(values[y == 0])
    below = np.searchsorted(others, values) + np.searchsorted(others, values, "right")
    exact = below[y == 1].mean() / 2 / (y == 0).sum()
    found = whole.separation_of("x")
    assert found is not None
    assert found.auc == pytest.approx(exact, abs=2e-4)


def test_only_chosen_events_count() -> None:
    generator = np.random.default_rng(2)
    y, chosen = generator.integers(0, 2, 1000), generator.random(1000) < 0.5
    values = np.where(chosen, generator.normal(size=1000), 100.0 * y)
    sketches = sketches_of({"x": Column(values, None)}, y, chosen=chosen)
    expected = slow_separation(values[chosen].tolist(), y[chosen].tolist(), 2)
    found = sketches.separation_of("x")
    assert found is not None
    assert found.auc == pytest.approx(expected, abs=1e-12)
    assert separating_features(sketches) == []


def test_lists_are_judged_by_their_first_value_and_by_their_length() -> None:
    y = np.repeat([0, 1], 30)
    offsets = np.arange(0, 121, 2)
    first = Column(np.where(np.arange(120) % 2 == 0, np.repeat(y, 2), 5.0), offsets)
    other = Column(np.where(np.arange(120) % 2 == 1, np.repeat(y, 2), 5.0), offsets)
    length = Column(np.zeros(30), np.concatenate([np.zeros(30, int), np.arange(31)]))
    found = separating_features(sketches_of({"first": first, "other": other, "length": length}, y))
    assert [(one.feature, one.auc) for one in found] == [("first", 1.0), ("length", 1.0)]
    longer = Column(np.zeros(90), np.concatenate([np.arange(31), np.arange(32, 91, 2)]))
    assert [one.feature for one in separating_features(sketches_of({"Jet_pt": longer}, y))] == ["len(Jet_pt)"]


def test_whether_there_is_a_value_can_separate_too() -> None:
    y = np.repeat([0, 1], 30)
    found = separating_features(sketches_of({"x": Column(np.where(y == 1, np.nan, 1.0), None)}, y))
    assert [one.auc for one in found] == [1.0]


def test_numbers_of_runs_that_lie_close_are_told_apart() -> None:
    y = np.repeat([0, 1], 30)
    found = separating_features(sketches_of({"run": Column((305040 + y).astype(np.uint32), None)}, y))
    assert found == [Separation("run", 1.0, "1")]


def test_a_few_events_are_not_judged() -> None:
    y = np.repeat([0, 1], [30, 19])
    assert sketches_of({"x": Column(y, None)}, y).separation_of("x") is None
    assert separating_features(ClassSketches(["x"], ["0", "1"])) == []


def test_of_several_classes_the_one_that_is_separated_best_is_named() -> None:
    y = np.repeat([0, 1, 2], 50)
    generator = np.random.default_rng(3)
    values = np.where(y == 1, 10.0, generator.normal(size=150))
    sketches = ClassSketches(["x"], ["top", "higgs", "drell-yan"])
    sketches.add({"x": Column(values, None)}, y, np.ones(150, bool))
    assert [str(one) for one in separating_features(sketches)] == [
        "feature 'x' alone separates class 'higgs' from the rest (AUC 1.0000); leave it out unless that is physics"
    ]


def test_other_features_cannot_be_added() -> None:
    with pytest.raises(ValueError, match="other features or classes"):
        ClassSketches(["x"], ["0", "1"]) + ClassSketches(["y"], ["0", "1"])


def test_in_the_higgs_files_identifiers_separate_the_classes_and_nothing_else_does(higgs_files: list[str]) -> None:
    readers = [open_reader(path, "Events") for path in higgs_files]
    names = list(readers[0].columns)
    sketches = ClassSketches(names, ["GluGlu", "VBF"])
    for label, reader in zip((1, 0), readers, strict=True):
        for start in range(0, reader.entries, 5000):
            columns = reader.read(start, min(start + 5000, reader.entries), names)
            events = len(columns["run"].content)
            identity = event_identity([columns[name].content for name in ("run", "luminosityBlock", "event")])
            sketches.add(columns, np.full(events, label), Split().assign(identity) == 0)
    assert [(one.feature, one.auc, one.label) for one in separating_features(sketches)] == [
        ("event", 1.0, "VBF"),
        ("run", 1.0, "VBF"),
    ]
    jets = sketches.separation_of("nJet")
    assert jets is not None
    assert 0.7 < jets.auc < 0.85
