from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlaas4hep.errors import BranchTypeError, SettingError, WeightError
from mlaas4hep.streaming.formats import open_reader
from mlaas4hep.streaming.formats.base import Column
from mlaas4hep.streaming.splitting import Split, event_identity
from mlaas4hep.streaming.weights.weights import TrainingRun, Weighting, Weights, learn_weights, refuse_negative

CLASSES = ("background", "signal")

EVENTS = st.lists(
    st.tuples(
        st.floats(0.125, 8.0, width=32),  # weight
        st.sampled_from([1.0, 1.0, 1.0, -1.0]),  # its sign
        st.integers(0, 1),  # class
        st.booleans(),  # chosen
        st.floats(-3, 3, width=32) | st.just(math.nan),  # pt
        st.integers(0, 5),  # number of jets
    ),
    min_size=4,
    max_size=60,
)


class Events:
    """Events as columns, cut into runs of two files."""

    def __init__(self, events: Iterable[tuple[float, float, int, bool, float, int]], runs: int = 3) -> None:
        size, sign, y, chosen, pt, jets = (np.array(values) for values in zip(*events, strict=True))
        self.weight, self.y, self.chosen = size * sign, y, chosen.astype(bool)
        self.columns = {"w": self.weight, "pt": pt, "n": jets.astype(np.uint8)}
        self.bounds = np.linspace(0, len(y), runs + 1).astype(int)

    def runs(self) -> list[TrainingRun]:
        return [
            TrainingRun(number % 2, int(start), self.cut(start, stop), self.y[start:stop], self.chosen[start:stop])
            for number, (start, stop) in enumerate(zip(self.bounds, self.bounds[1:], strict=False))
        ]

    def cut(self, start: int, stop: int) -> dict[str, Column]:
        return {name: Column(values[start:stop], None) for name, values in self.columns.items()}

    def learn(self, weighting: Weighting, per_file: Sequence[float] = (1.0, 1.0)) -> Weights:
        return learn_weights(weighting, self.runs, CLASSES, np.array(per_file), ("one.root", "two.root"))

    def training(self, weights: Weights) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Weights of all events, and whether each is kept."""
        pairs = [weights.training(run.file, len(run.y), run.columns, run.y, entries=run.entries) for run in self.runs()]
        kept = [np.ones(len(weight), bool) if keep is None else keep for weight, keep in pairs]
        return np.concatenate([weight for weight, _ in pairs]).astype(np.float64), np.concatenate(kept)


def slow_rule(weight: float, rule: str) -> float | None:
    """The obvious version; None for an event that is left out."""
    if weight >= 0 or rule == "keep":
        return weight
    return -weight if rule == "abs" else None


@given(EVENTS, st.sampled_from(["keep", "abs", "drop"]), st.booleans())
def test_training_weights_equal_the_obvious_version_and_signed_ones_stay(
    made: list[Any], rule: Any, balance: bool
) -> None:
    events = Events(made)
    per_file = (0.5, 3.0)
    factor = np.concatenate([np.full(len(run.y), per_file[run.file]) for run in events.runs()])
    left = [slow_rule(weight, rule) for weight in events.weight * factor]
    sums, count = [0.0, 0.0], 0
    for weight, y, chosen in zip(left, events.y, events.chosen, strict=True):
        if chosen and weight is not None:
            sums[y] += weight
            count += 1
    assume(min(sums) > 0.01)

    weights = events.learn(Weighting("w", negative=rule, balance_classes=balance), per_file)
    found, keep = events.training(weights)
    scale = [count / 2 / total if balance else count / sum(sums) for total in sums]
    expected = [0.0 if w is None else w * scale[y] for w, y in zip(left, events.y, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * max(scale))
    np.testing.assert_array_equal(keep, [weight is not None for weight in left])
    assert weights.negative == sum(weight < 0 for weight in events.weight[events.chosen])
    assert sum(weights.events) == count
    for run in events.runs():
        signed = weights.signed(run.file, len(run.y), run.columns)
        np.testing.assert_array_equal(signed, run.columns["w"].content * per_file[run.file])


@given(EVENTS, st.sampled_from(["keep", "abs", "drop"]))
def test_balanced_classes_have_equal_sums_and_the_mean_is_one(made: list[Any], rule: Any) -> None:
    events = Events(made)
    try:
        weights = events.learn(Weighting("w", negative=rule, balance_classes=True))
    except WeightError:
        assume(False)
    weight, keep = events.training(weights)
    used = events.chosen & keep
    assume(np.abs(weight[used]).max() < 100)
    sums = [weight[used & (events.y == label)].sum() for label in (0, 1)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-3 if rule == "keep" else 1e-6)
    assert weight[used].mean() == pytest.approx(1.0, rel=1e-3 if rule == "keep" else 1e-6)


def cells_of(events: Events, weights: Weights) -> list[Any]:
    """The obvious version of the bins, from the edges that the weights hold."""
    cells: list[list[int]] = [[] for _ in events.y]
    for name, inner in zip(weights.weighting.flatten, weights.edges, strict=True):
        for place, value in enumerate(events.columns[name]):
            cells[place].append(-1 if math.isnan(value) else sum(value >= edge for edge in inner))
    return [tuple(cell) for cell in cells]


@given(
    EVENTS,
    st.sampled_from(
        [
            {"pt": 3},
            {"pt": [-1.0, 0.0, 2.0]},
            {"n": 4},
            {"pt": [edge / 20 for edge in range(-60, 61)]},
            {"pt": 2, "n": [0.0, 2.0, 4.0]},
            {"n": 3, "pt": 2},
        ]
    ),
    st.booleans(),
)
def test_flattened_weights_are_equal_in_all_bins_of_a_class_that_hold_events(
    made: list[Any], flatten: Any, balance: bool
) -> None:
    events = Events(made)
    assume(set(events.y[events.chosen].tolist()) == {0, 1})
    weighting = Weighting("w", negative="abs", flatten=flatten, balance_classes=balance)
    weights = events.learn(weighting)
    weight, _ = events.training(weights)
    cells = cells_of(events, weights)
    totals = []
    for label in (0, 1):
        sums: dict[Any, float] = {}
        for value, y, chosen, cell in zip(weight, events.y, events.chosen, cells, strict=True):
            if y == label and chosen:
                sums[cell] = sums.get(cell, 0.0) + value
        assert list(sums.values()) == pytest.approx([next(iter(sums.values()))] * len(sums), rel=1e-6)
        assert all(
            value == 0
            for value, y, cell in zip(weight, events.y, cells, strict=True)
            if y == label and cell not in sums
        )
        totals.append(sum(sums.values()))
    before = [np.abs(events.weight)[events.chosen & (events.y == label)].sum() for label in (0, 1)]
    assert totals[0] / totals[1] == pytest.approx(1.0 if balance else before[0] / before[1], rel=1e-5)
    assert weight[events.chosen].mean() == pytest.approx(1.0, rel=1e-6)


@given(EVENTS, st.floats(-3, 3, width=32), st.floats(0.5, 8, width=32), st.integers(0, 1))
def test_nothing_is_learned_from_held_out_events(made: list[Any], pt: float, size: float, label: int) -> None:
    weighting = Weighting("w", negative="abs", flatten={"pt": 3, "n": 2}, balance_classes=True)
    changed = [event if event[3] else (size, -1.0, label, False, pt, 1) for event in made]
    events = Events(made)
    assume(set(events.y[events.chosen].tolist()) == {0, 1})
    assert events.learn(weighting) == Events(changed).learn(weighting)
    held_out_nan = [event if event[3] else (math.nan, 1.0, 0, False, math.nan, 0) for event in made]
    assert Events(held_out_nan).learn(weighting) == events.learn(weighting)


@given(EVENTS, st.integers(1, 5))
def test_how_events_are_cut_into_runs_does_not_count(made: list[Any], runs: int) -> None:
    weighting = Weighting(flatten={"pt": 3}, balance_classes=True)
    whole, cut = Events(made, 1), Events(made, runs)
    assume(set(whole.y[whole.chosen].tolist()) == {0, 1})
    assert cut.learn(weighting).edges == whole.learn(weighting).edges
    np.testing.assert_allclose(cut.learn(weighting).factors, whole.learn(weighting).factors, rtol=1e-12)


def test_bins_hold_equally_many_training_events() -> None:
    generator = np.random.default_rng(1)
    pt = generator.exponential(50, 20_000)
    run = TrainingRun(0, 0, {"pt": Column(pt, None)}, np.zeros(20_000, int), generator.random(20_000) < 0.5)
    weights = learn_weights(Weighting(flatten={"pt": 10}), lambda: [run], (), np.ones(1))
    counts = np.bincount(np.searchsorted(weights.edges[0], pt[run.chosen], side="right"))
    assert len(counts) == 10
    np.testing.assert_allclose(counts, run.chosen.sum() / 10, rtol=0.1)


def test_without_settings_every_weight_is_one_and_nothing_is_read() -> None:
    def passes() -> list[TrainingRun]:
        raise AssertionError("the events are read")

    weights = learn_weights(Weighting(), passes, CLASSES, np.ones(2))
    weight, keep = weights.training(1, 3, {}, np.array([0, 1, 1]))
    assert (weight.tolist(), weight.dtype, keep) == ([1.0] * 3, np.float32, None)
    assert weights.signed(1, 3, {}).tolist() == [1.0] * 3
    assert weights.columns == ()


def test_a_number_per_file_scales_signed_weights_and_keeps_their_proportion_in_training() -> None:
    runs = [TrainingRun(file, 0, {}, np.array([file] * 3), np.ones(3, bool)) for file in (0, 1)]
    weighting = Weighting(cross_sections=[1.0, 3.0], sum_of_weights=[1000.0, 1000.0])
    weights = learn_weights(weighting, lambda: runs, CLASSES, np.array([0.001, 0.003]))
    assert weights.signed(1, 2, {}).tolist() == [0.003, 0.003]
    assert weights.training(0, 1, {}, np.array([0]))[0].tolist() == [0.5]
    assert weights.training(1, 1, {}, np.array([1]))[0].tolist() == [1.5]


def test_regression_needs_no_class_index() -> None:
    columns = {"w": Column(np.array([1.0, 3.0]), None)}
    targets = np.array([[0.5], [7.5]], np.float32)
    weights = learn_weights(
        Weighting("w"), lambda: [TrainingRun(0, 0, columns, targets, np.ones(2, bool))], (), np.ones(1)
    )
    assert weights.training(0, 2, columns, targets)[0].tolist() == [0.5, 1.5]
    with pytest.raises(SettingError, match=r"'weights.balance_classes' must be left out where there are no classes"):
        learn_weights(Weighting(balance_classes=True), list, (), np.ones(1))


@given(EVENTS)
def test_weights_come_back_from_plain_values_and_other_processes(made: list[Any]) -> None:
    events = Events(made)
    assume(set(events.y[events.chosen].tolist()) == {0, 1})
    weights = events.learn(Weighting("w", negative="abs", flatten={"pt": [-1.0, 0.0, 1.0], "n": 2}))
    events.training(weights)
    again = Weights.from_dict(json.loads(json.dumps(weights.to_dict())))
    assert again == weights == pickle.loads(pickle.dumps(weights))
    np.testing.assert_array_equal(events.training(again)[0], events.training(weights)[0])


def one_run(
    weight: Sequence[float], y: Sequence[int] = (0, 0, 1, 1), **columns: Any
) -> Callable[[], list[TrainingRun]]:
    made = {"w": Column(np.array(weight), None), **columns}
    return lambda: [TrainingRun(1, 500, made, np.array(y), np.ones(len(y), bool))]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_not_finite_is_named_with_its_file_and_entry(value: float) -> None:
    passes = one_run([1.0, 1.0, value, 1.0])
    with pytest.raises(
        WeightError, match=rf"^weight 'w' is {value}; it must be .*, at entry 502 of two.root$"
    ) as caught:
        learn_weights(Weighting("w"), passes, CLASSES, np.ones(2), ("one.root", "two.root"))
    assert (caught.value.file, caught.value.entry, caught.value.column) == ("two.root", 502, "w")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    learned = learn_weights(Weighting("w"), one_run([1.0] * 4), CLASSES, np.ones(2), ("one.root", "two.root"))
    [run] = passes()
    for ask in (learned.signed, lambda *given, **more: learned.training(*given, run.y, **more)):
        with pytest.raises(WeightError, match=r"at entry 7 of two.root"):
            ask(1, 4, run.columns, entries=5)
        with pytest.raises(WeightError, match=r"at entry 70 of two.root"):
            ask(1, 4, run.columns, entries=np.array([1, 3, 70, 71]))
        ask(1, 4, run.columns, chosen=np.array([True, True, False, True]))


def test_a_weight_that_float32_cannot_hold_is_an_error() -> None:
    learned = learn_weights(Weighting("w"), one_run([1.0] * 4), CLASSES, np.ones(2))
    columns = {"w": Column(np.array([1e39]), None)}
    assert learned.signed(0, 1, columns).tolist() == [1e39]
    with pytest.raises(
        WeightError, match=r"weight 'w' is 1e\+39; it must be finite, also as float32, at entry 0 of file 0"
    ):
        learned.training(0, 1, columns, np.array([0]))


@pytest.mark.parametrize(
    ("weighting", "weight", "message"),
    [
        (Weighting("w"), [0.0] * 4, "the weights of the 2 training events of class 'background' add up to 0"),
        (
            Weighting("w"),
            [1.0, 1.0, 1.0, -3.0],
            "the 2 training events of class 'signal' add up to -2; it must be more",
        ),
        (Weighting("w", negative="drop"), [-1.0, -1.0, 1.0, 1.0], None),
        (
            Weighting("w", negative="drop", balance_classes=True),
            [-1.0, -1.0, 1.0, 1.0],
            "there is no training event of class 'background' whose weight could be scaled",
        ),
        (Weighting("w", negative="drop"), [-1.0] * 4, "there is no training event of class 'background'"),
        (
            Weighting("w", flatten={"pt": [0.0, 1.0, 2.0]}),
            [1.0, 1.0, 3.0, -1.0],
            r"of class 'signal' with pt in \[1, inf\) add up to -1, which no factor makes flat; take fewer bins",
        ),
    ],
)
def test_weights_that_do_not_add_up_are_an_error_that_names_the_class(
    weighting: Weighting, weight: list[float], message: str | None
) -> None:
    passes = one_run(weight, pt=Column(np.array([0.5, 1.5, 0.5, 1.5]), None))
    if message is None:
        assert learn_weights(weighting, passes, CLASSES, np.ones(2)).events == (0, 2)
        return
    with pytest.raises(WeightError, match=message):
        learn_weights(weighting, passes, CLASSES, np.ones(2))


def test_negative_weights_are_refused_where_they_must_not_be() -> None:
    passes = one_run([1.0, -1.0, 1.0, -1.0, 5.0], (0, 0, 1, 1, 0))
    with pytest.raises(
        SettingError, match=r"'weights.negative' must be 'keep', 'abs' or 'drop', since 2 training events"
    ):
        learn_weights(Weighting("w", negative="error"), passes, CLASSES, np.ones(2))
    positive = learn_weights(Weighting("w", negative="error"), one_run([1.0] * 4), CLASSES, np.ones(2))
    [run] = passes()
    with pytest.raises(SettingError, match=r"'weights.negative'"):
        positive.training(1, 5, run.columns, run.y)


def test_a_framework_that_takes_no_negative_weights_names_the_setting() -> None:
    passes = one_run([2.0, -1.0, 1.0, 1.0])
    kept = learn_weights(Weighting("w"), passes, CLASSES, np.ones(2))
    with pytest.raises(SettingError, match=r"'weights.negative' must be 'abs' or 'drop' for XGBoost, .* \(1 training"):
        refuse_negative("XGBoost", kept)
    refuse_negative("XGBoost", learn_weights(Weighting("w", negative="abs"), passes, CLASSES, np.ones(2)))
    refuse_negative("XGBoost", learn_weights(Weighting("w"), one_run([1.0] * 4), CLASSES, np.ones(2)))


@pytest.mark.parametrize(
    "weighting", [Weighting("w"), Weighting(flatten={"w": 2}), Weighting(flatten={"w": [0, 1, 2]})]
)
def test_a_list_is_no_weight(weighting: Weighting) -> None:
    lists = Column(np.ones(6), np.array([0, 1, 3, 4, 6]))
    with pytest.raises(BranchTypeError, match="branch 'w' of file 1 cannot be used: weights need one value an event"):
        learn_weights(weighting, one_run([1.0] * 4, w=lists), CLASSES, np.ones(2))


def test_too_many_bins_are_refused() -> None:
    passes = one_run([1.0] * 4, pt=Column(np.arange(4.0), None))
    edges = list(range(1001))
    with pytest.raises(SettingError, match=r"'weights.flatten' must be of at most 1000 bins for 10000 classes"):
        learn_weights(Weighting(flatten={"pt": edges, "w": edges}), passes, list(map(str, range(10_000))), np.ones(2))


def test_in_the_higgs_files_negative_weights_balance_and_flatten(higgs_files: list[str]) -> None:
    names = ["run", "luminosityBlock", "event", "genWeight", "MET_pt", "nJet"]

    def passes() -> Iterable[TrainingRun]:
        for file, path in enumerate(higgs_files):
            columns = open_reader(path, "Events").read(0, 24_000, names)
            identity = event_identity([columns[name].content for name in names[:3]])
            yield TrainingRun(file, 0, columns, np.full(24_000, 1 - file), Split().assign(identity) == 0)

    weighting = Weighting("genWeight", negative="drop", balance_classes=True, flatten={"MET_pt": 20, "nJet": 4})
    weights = learn_weights(weighting, passes, CLASSES, np.ones(2), higgs_files)
    assert 0.015 < weights.negative / sum(weights.events) < 0.025
    sums, maps = [], []
    for run in passes():
        weight, keep = weights.training(run.file, 24_000, run.columns, run.y)
        assert keep is not None
        used = run.chosen & keep
        np.testing.assert_array_equal(keep, run.columns["genWeight"].content > 0)
        np.testing.assert_array_equal(weights.signed(run.file, 24_000, run.columns), run.columns["genWeight"].content)
        met, jets = (
            np.searchsorted(inner, run.columns[name].content, side="right")
            for name, inner in zip(("MET_pt", "nJet"), weights.edges, strict=True)
        )
        filled = np.bincount(met[used] * 10 + jets[used], weight[used].astype(np.float64))
        maps.append(filled[filled > 0])
        sums.append(filled.sum())
    assert sums[0] == pytest.approx(sums[1], rel=1e-6)
    for filled in maps:
        assert len(filled) > 60
        np.testing.assert_allclose(filled, filled.mean(), rtol=1e-6)
