"""Means, bootstrap, agreement, working points and calibration against slow definitions, scipy and repeated experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from mlaas4hep.training.agreement import compare_distributions, kolmogorov_probability
from mlaas4hep.training.bootstrap import bootstrap, replica_counts
from mlaas4hep.training.calibration import reliability
from mlaas4hep.training.weighted import effective_events, mean_with_error
from mlaas4hep.training.working_points import working_points

POSITIVE = st.sampled_from([0.5, 1.0, 3.0])


@st.composite
def samples(draw, weights=POSITIVE):
    n = draw(st.integers(2, 40))
    score = np.array(draw(st.lists(st.integers(0, 10), min_size=n, max_size=n))) / 10
    signal = np.array([True, False, *draw(st.lists(st.booleans(), min_size=n - 2, max_size=n - 2))])
    weight = np.array(draw(st.lists(weights, min_size=n, max_size=n)))
    return score, signal, weight


SIGNED = samples(st.sampled_from([0.5, 1.0, 3.0, -0.5]))


def test_the_error_of_a_mean_of_signed_weights_is_the_scatter_of_repeated_simulations():
    random = np.random.default_rng(1)
    means, errors = [], []
    for _ in range(500):
        weight = np.where(random.random(2000) < 0.2, -1.0, 1.0)
        mean, error = mean_with_error(random.random(2000) < 0.8, weight)
        means.append(mean)
        errors.append(error)
    assert np.mean(means) == pytest.approx(0.8, abs=0.003)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


@given(SIGNED, st.sampled_from([1e-30, 1e-3, 1e20, 1e200]))
def test_the_scale_of_weights_does_not_matter(sample, scale):
    score, _, weight = sample
    assert mean_with_error(score, scale * weight) == pytest.approx(mean_with_error(score, weight), nan_ok=True)
    assert effective_events(scale * weight) == pytest.approx(effective_events(weight))


def test_the_bootstrap_gives_the_error_of_a_mean():
    values = np.random.default_rng(2).normal(size=3000)
    expected = mean_with_error(values)[1]
    found = bootstrap(lambda counts: [counts @ values / counts.sum(), np.nan], 3000, replicas=800, seed=3)
    assert found[0] == pytest.approx(expected, rel=0.1)
    assert math.isnan(found[1])


def test_the_bootstrap_follows_from_its_seed_and_draws_poisson_numbers():
    first, second, other = (np.stack(list(replica_counts(20_000, 3, seed))) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    for count in range(5):
        assert (first == count).mean() == pytest.approx(stats.poisson.pmf(count, 1), abs=0.005)
    assert abs(np.corrcoef(first[0], first[1])[0, 1]) < 0.03


@given(SIGNED, SIGNED)
def test_the_distance_is_the_largest_difference_of_the_cumulative_distributions(one, two):
    (a, _, wa), (b, _, wb) = one, two
    found = compare_distributions(a, wa, b, wb)
    if wa.sum() <= 0 or wb.sum() <= 0:
        assert math.isnan(found.distance)
        return
    slow = max(
        abs(wa[a <= value].sum() / wa.sum() - wb[b <= value].sum() / wb.sum()) for value in np.concatenate([a, b])
    )
    assert found.distance == pytest.approx(slow, abs=1e-12)


@given(st.integers(0, 1000))
def test_without_weights_it_is_the_test_of_scipy(seed):
    random = np.random.default_rng(seed)
    a, b = random.normal(size=150), random.normal(0.2, 1, size=230)
    found = compare_distributions(a, np.ones(150), b, np.full(230, 7.0))
    expected = stats.ks_2samp(a, b, method="exact")
    assert found.distance == pytest.approx(expected.statistic)
    assert found.probability == pytest.approx(expected.pvalue, abs=0.03)


@given(st.floats(0.0, 5.0))
def test_the_series_is_kolmogorovs(scaled):
    assert kolmogorov_probability(scaled) == pytest.approx(special.kolmogorov(scaled), abs=1e-9)


def test_weighted_samples_of_one_distribution_agree_as_often_as_they_say():
    random = np.random.default_rng(4)
    rejected = 0
    for _ in range(400):
        a, b = random.random(300), random.random(500)
        rejected += compare_distributions(a, random.exponential(size=300), b, np.ones(500)).probability < 0.1
    assert 15 < rejected < 65  # 40 expected


@given(SIGNED, st.sampled_from([0.0, 0.1, 0.3, 1.0]))
def test_a_working_point_is_the_loosest_cut_that_lets_no_more_background_pass(sample, share):
    score, signal, weight = sample
    (point,) = working_points(score, signal, weight, [share], replicas=2)
    kept, passed = weight[signal].sum(), weight[~signal].sum()
    if kept <= 0 or passed <= 0:
        assert math.isnan(point.signal)
        return
    cut = math.nan
    for value in np.unique(score)[::-1]:
        if weight[~signal & (score >= value)].sum() / passed > share * (1 + 1e-12):
            break
        cut = value
    assert point.cut == pytest.approx(cut, nan_ok=True)
    expected = 0.0 if math.isnan(cut) else weight[signal & (score >= cut)].sum() / kept
    assert point.signal == pytest.approx(expected)


def test_the_error_of_a_working_point_is_the_scatter_of_repeated_simulations():
    random = np.random.default_rng(6)
    found, errors = [], []
    for seed in range(120):
        signal = np.arange(3000) < 1000
        (point,) = working_points(
            random.normal(1.5 * signal), signal, random.uniform(0.5, 1.5, 3000), [0.01], replicas=60, seed=seed
        )
        found.append(point.signal)
        errors.append(point.signal_error)
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.25)


@given(samples(), st.integers(1, 12))
def test_reliability_is_what_a_loop_over_the_bins_finds(sample, bins):
    score, signal, weight = sample
    found = reliability(score, signal, weight, bins=bins, replicas=2)
    error = 0.0
    for one in range(bins):
        inside = np.minimum((score * bins).astype(int), bins - 1) == one
        if not inside.any():
            assert found.share[one] == 0
            assert math.isnan(found.observed[one])
            continue
        w = weight[inside]
        predicted, observed = (w * score[inside]).sum() / w.sum(), (w * signal[inside]).sum() / w.sum()
        assert found.predicted[one] == pytest.approx(predicted)
        assert found.observed[one] == pytest.approx(observed)
        error += w.sum() / weight.sum() * abs(predicted - observed)
    assert found.error == pytest.approx(error, abs=1e-12)
    assert found.share.sum() == pytest.approx(1)


def test_probabilities_that_are_right_are_calibrated_and_sure_ones_are_not():
    random = np.random.default_rng(7)
    p = random.random(20_000)
    truth = random.random(20_000) < p
    right, sure = reliability(p, truth), reliability(np.where(p > 0.5, 0.99, 0.01), truth)
    assert right.error < 0.02
    assert sure.error == pytest.approx(0.24, abs=0.01)
    assert 0 < sure.error_error < 0.01
    pulls = (right.observed - right.predicted) / right.observed_error
    assert np.abs(pulls).max() < 4
