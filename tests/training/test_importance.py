"""Which branches a model relies on, where that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mlaas4hep
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.streaming.encoding.objects import Collection
from mlaas4hep.training.evaluation import area_under_roc
from mlaas4hep.training.importance import RawEvents, branch_groups, permutation_importance, raw_events
from mlaas4hep.training.plots_inputs import draw_importance, draw_input, input_edges

ENCODING = Encoding((Feature("MET_pt", False, 1, 1.0, 2.0), Feature("nMuon", False, 1), Feature("Jet_pt", True, 3)))


def events(n, seed):
    random = np.random.default_rng(seed)
    y = np.arange(n) % 2
    raw = random.normal(size=(n, 5)).astype(np.float32)
    raw[:, 0] += 1.5 * y
    raw[:, 2:] += 0.5 * y[:, None]
    raw[:, 4][random.random(n) < 0.5] = np.nan
    weight = np.where(random.random(n) < 0.05, -1.0, 1.0)
    return RawEvents(raw, y, weight)


def predict(x, mask):
    """The mean of the jets that are there and a bit of MET; nMuon is not looked at."""
    there = ~mask[:, 2:]
    jets = (x[:, 2:] * there).sum(axis=1) / there.sum(axis=1)
    p = 1 / (1 + np.exp(-(0.5 * x[:, 0] + jets)))
    return np.stack([1 - p, p], axis=1).astype(np.float32)


def test_a_branch_that_is_not_looked_at_loses_nothing_and_the_strongest_comes_first():
    found = permutation_importance(predict, ENCODING, events(4000, 1))
    assert [one.name for one in found] == ["MET_pt", "Jet_pt", "nMuon"]
    assert (found[2].drop, found[2].error) == (0.0, 0.0)
    assert found[0].drop > found[1].drop > 5 * found[1].error


def test_the_loss_is_that_of_all_places_exchanged_together():
    sample = events(3000, 2)
    found = {one.name: one for one in permutation_importance(predict, ENCODING, sample, repeats=1, seed=5)}
    order = np.random.default_rng(5)
    before = area_under_roc(predict(*ENCODING.scale_raw(sample.raw))[:, 1], sample.y == 1, sample.weight)[0]
    for name, places in (("MET_pt", [0]), ("nMuon", [1]), ("Jet_pt", [2, 3, 4])):
        raw = sample.raw.copy()
        raw[:, places] = raw[order.permutation(3000)][:, places]
        after = area_under_roc(predict(*ENCODING.scale_raw(raw))[:, 1], sample.y == 1, sample.weight)[0]
        assert found[name].drop == pytest.approx(before - after, abs=1e-12)


def test_the_error_is_the_scatter_of_repeated_experiments():
    drops, errors = [], []
    for seed in range(60):
        one = next(one for one in permutation_importance(predict, ENCODING, events(1500, seed)) if one.name == "Jet_pt")
        drops.append(one.drop)
        errors.append(one.error)
    assert np.mean(errors) == pytest.approx(np.std(drops), rel=0.3)


def test_members_of_a_collection_are_exchanged_together():
    jets = Collection("Jet", ("Jet_eta", "Jet_pt"))
    encoding = Encoding(
        (Feature("MET_pt", False, 1), Feature("Jet_eta", True, 2), Feature("Jet_pt", True, 2)), "objects", (jets,)
    )
    groups = branch_groups(encoding)
    assert list(groups) == ["MET_pt", "Jet"]
    assert sorted(groups["Jet"]) == [1, 2, 3, 4]


def test_many_branches_get_fewer_events():
    calls = []

    def counted(x, mask):
        calls.append(len(x))
        return predict(x, mask)

    permutation_importance(counted, ENCODING, events(8000, 3), repeats=2, most_rows=12_000)
    assert sum(calls) <= 12_000 + 2001
    assert max(calls) == 2000


def test_a_class_without_events_gives_no_number():
    sample = events(100, 4)
    only = RawEvents(sample.raw[::2], sample.y[::2], sample.weight[::2])
    assert all(math.isnan(one.drop) for one in permutation_importance(predict, ENCODING, only))
    assert permutation_importance(predict, ENCODING, only)[0].to_dict()["drop"] is None


def test_events_come_as_the_files_hold_them(class_files):
    dataset = mlaas4hep.open(class_files, labels=["b", "s"], branches=["MET_pt", "Jet_pt"], weights="genWeight")
    found = raw_events(dataset, "test", 200)
    assert found.raw.shape == (200, 4)
    assert set(np.unique(found.y)) == {0, 1}
    assert set(np.unique(found.weight)) == {-1.0, 1.0}
    assert np.isnan(found.raw).any()
    assert np.nanmax(found.raw) > 50  # not scaled


@pytest.mark.parametrize(
    ("values", "first", "last", "bins"),
    [
        ([], 0.0, 1.0, 1),
        ([7.0] * 9, 6.5, 7.5, 1),
        ([0.25] * 9, -0.25, 0.75, 40),
        ([1e30, 1e30, 2e30], 1e30, 2e30, 40),
        ([0.0, 1.0, 2.0], -0.5, 2.5, 3),
    ],
)
def test_edges_hold_the_values_whatever_they_are(values, first, last, bins):
    edges = input_edges(np.array(values))
    assert len(edges) == bins + 1
    assert (np.diff(edges) > 0).all()
    assert edges[0] == pytest.approx(first, rel=0.02)
    assert edges[-1] == pytest.approx(last, rel=0.02)


def test_pictures_hold_odd_names_and_branches_without_values():
    sample = events(50, 5)
    sample.raw[:, 1] = np.nan
    for branch in ENCODING.branches:
        assert draw_input(branch, ENCODING, sample, ("a$b", "$x^{")).startswith(b"\x89PNG")
    found = permutation_importance(predict, ENCODING, sample, groups={"$\\frac{": [0], "x" * 300: [1]})
    assert draw_importance(found).startswith(b"\x89PNG")
