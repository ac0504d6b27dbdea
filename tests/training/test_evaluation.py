"""Every number against its slow definition, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from mlaas4hep.training.evaluation import accuracy, area_under_roc, evaluate, log_loss, roc_curve


@st.composite
def scored_events(draw):
    n = draw(st.integers(2, 40))
    score = np.array(draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))) / 6  # few values: many ties
    signal = np.array([True, False, *draw(st.lists(st.booleans(), min_size=n - 2, max_size=n - 2))])
    weight = np.array(draw(st.lists(st.floats(0.1, 10), min_size=n, max_size=n)))
    return score, signal, weight


@given(scored_events())
def test_the_area_counts_every_pair_of_signal_and_background(events):
    score, signal, weight = events
    won = total = 0.0
    for i in np.flatnonzero(signal):
        for j in np.flatnonzero(~signal):
            total += weight[i] * weight[j]
            won += weight[i] * weight[j] * ((score[i] > score[j]) + (score[i] == score[j]) / 2)
    assert area_under_roc(score, signal, weight)[0] == pytest.approx(won / total, abs=1e-12)


@given(scored_events())
def test_the_area_and_the_curve_are_those_of_scikit_learn(events):
    score, signal, weight = events
    assert area_under_roc(score, signal, weight)[0] == pytest.approx(
        metrics.roc_auc_score(signal, score, sample_weight=weight), abs=1e-12
    )
    background, passed, _ = metrics.roc_curve(signal, score, sample_weight=weight, drop_intermediate=False)
    curve = roc_curve(score, signal, weight)
    assert curve.background == pytest.approx(background)
    assert curve.signal == pytest.approx(passed)
    assert np.trapezoid(curve.signal, curve.background) == pytest.approx(area_under_roc(score, signal, weight)[0])


@given(scored_events())
def test_the_error_of_unweighted_events_is_delongs(events):
    score, signal, _ = events
    kernel = [[(s > b) + (s == b) / 2 for b in score[~signal]] for s in score[signal]]
    m, n = np.shape(kernel)
    error = area_under_roc(score, signal)[1]
    if m < 2 or n < 2:
        assert math.isnan(error)
    else:
        variance = np.var(np.mean(kernel, axis=1), ddof=1) / m + np.var(np.mean(kernel, axis=0), ddof=1) / n
        assert error == pytest.approx(math.sqrt(variance), abs=1e-9)


def test_the_error_is_the_scatter_of_repeated_experiments():
    random = np.random.default_rng(3)
    areas, errors = [], []
    for _ in range(400):
        signal = np.arange(300) < 120
        weight = random.uniform(0.2, 2.0, 300)
        area, error = area_under_roc(random.normal(signal * 1.0), signal, weight)
        areas.append(area)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.1)


@given(scored_events())
def test_accuracy_and_log_loss_are_those_of_scikit_learn(events):
    score, signal, weight = events
    p = np.stack([1 - score, score], axis=1)
    y = signal.astype(np.int64)
    assert accuracy(p, y, weight)[0] == pytest.approx(
        metrics.accuracy_score(y, np.argmax(p, axis=1), sample_weight=weight)
    )
    clipped = np.clip(p, np.finfo(np.float32).eps, 1 - np.finfo(np.float32).eps)
    assert log_loss(p, y, weight) == pytest.approx(
        metrics.log_loss(y, clipped[:, 1], sample_weight=weight, labels=[0, 1]), abs=1e-5
    )


def test_three_classes_are_each_judged_against_the_rest():
    random = np.random.default_rng(4)
    y = random.integers(0, 3, 500)
    p = random.dirichlet(np.ones(3), 500) + 0.5 * np.eye(3)[y]
    p /= p.sum(axis=1, keepdims=True)
    weight = random.uniform(0.5, 1.5, 500)
    result = evaluate(p, y, weight, ("ggH", "VBF", "ttH"))
    for k, (name, auc, error) in enumerate(result.class_auc):
        assert name == ("ggH", "VBF", "ttH")[k]
        assert auc == pytest.approx(metrics.roc_auc_score(y == k, p[:, k], sample_weight=weight))
        assert 0 < error < 0.05
    assert result.auc == pytest.approx(np.mean([auc for _, auc, _ in result.class_auc]))


def test_a_fold_without_signal_has_no_area_and_says_so_in_json():
    result = evaluate(np.array([[0.6, 0.4], [0.7, 0.3]]), np.array([0, 0]))
    assert math.isnan(result.auc)
    assert result.to_dict()["auc"] is None
    assert result.accuracy == 1.0


def test_weights_that_sum_to_nothing_give_no_number():
    p, y = np.array([[0.6, 0.4], [0.2, 0.8]]), np.array([0, 1])
    assert math.isnan(accuracy(p, y, np.zeros(2))[0])
    assert math.isnan(log_loss(p, y, np.array([1.0, -1.0])))
    assert math.isnan(area_under_roc(p[:, 1], y == 1, np.array([1.0, -1.0]))[0])
