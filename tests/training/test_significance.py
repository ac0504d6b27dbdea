"""Significance against numerical profile likelihoods, and cuts against trying every one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from mlaas4hep.errors import SettingError
from mlaas4hep.training.significance import asimov_significance, best_cut, count_above

COUNTS = st.floats(0.5, 500)


@given(COUNTS, COUNTS)
def test_the_significance_is_that_of_the_likelihood_ratio_of_the_asimov_data(s, b):
    n = s + b
    ratio = 2 * ((n * math.log(n) - n) - (n * math.log(b) - b))
    assert asimov_significance(s, b) == pytest.approx(math.sqrt(ratio), rel=1e-6, abs=1e-5)


@pytest.mark.parametrize(("s", "b", "relative"), [(10.0, 100.0, 0.1), (50.0, 20.0, 0.3), (5.0, 1000.0, 0.02)])
def test_with_an_uncertainty_it_is_that_of_a_background_measured_in_a_control_region(s, b, relative):
    tau = 1 / (relative**2 * b)  # b / sigma², the size of the control region
    n, m = s + b, tau * b

    def likelihood(mu, background):
        signal_region, control = mu * s + background, tau * background
        return n * math.log(signal_region) - signal_region + m * math.log(control) - control

    without = optimize.minimize_scalar(
        lambda background: -likelihood(0, background), bounds=(b / 10, 10 * (s + b)), method="bounded"
    )
    expected = math.sqrt(2 * (likelihood(1, b) + without.fun))
    assert asimov_significance(s, b, relative * b) == pytest.approx(expected, rel=1e-3)


def test_a_small_signal_over_a_huge_background_keeps_its_digits():
    assert asimov_significance(10.0, 1e12) == pytest.approx(10 / 1e6, rel=1e-9)
    assert asimov_significance(1e5, 1e10) == pytest.approx(1.0, rel=1e-4)
    assert asimov_significance(10.0, 1e6, uncertainty=1e3) == pytest.approx(10 / math.hypot(1e3, 1e3), rel=1e-4)


def test_a_signal_below_zero_is_worth_nothing_and_no_background_is_an_error():
    assert asimov_significance(-3.0, 10.0) == 0.0
    with pytest.raises(SettingError, match="'background' must be a positive number of events; got 0"):
        asimov_significance(3.0, 0.0)
    with pytest.raises(SettingError, match="'uncertainty'"):
        asimov_significance(3.0, 1.0, -1.0)


@st.composite
def events(draw):
    n = draw(st.integers(4, 40))
    score = np.array(draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))) / 8
    signal = np.array([True, False, *draw(st.lists(st.booleans(), min_size=n - 2, max_size=n - 2))])
    weight = np.array(draw(st.lists(st.sampled_from([0.5, 1.0, 2.0, -0.5]), min_size=n, max_size=n)))
    return score, signal, weight


@given(events(), st.sampled_from([0.0, 0.2]))
def test_the_best_cut_is_the_best_of_all(sample, relative):
    score, signal, weight = sample
    found = best_cut(score, signal, weight, background_uncertainty=relative, least_background=1)
    tried = []
    for cut in np.unique(score):
        above = weight[(score >= cut) & ~signal]
        if above.sum() > 0 and above.sum() ** 2 / (above**2).sum() >= 1:
            s, b = weight[(score >= cut) & signal].sum(), above.sum()
            tried.append(asimov_significance(s, b, relative * b))
    if not tried or weight[signal].sum() <= 0:
        assert found is None
    else:
        assert found.significance == pytest.approx(max(tried), rel=1e-9, abs=1e-12)
        assert found == count_above(found.cut, score, signal, weight, background_uncertainty=relative)


@given(events(), st.integers(0, 2**32 - 1))
def test_the_order_of_events_does_not_matter(sample, seed):
    order = np.random.default_rng(seed).permutation(len(sample[0]))
    shuffled = tuple(part[order] for part in sample)
    first, second = best_cut(*sample, least_background=1), best_cut(*shuffled, least_background=1)
    assert (first is None) == (second is None)
    if first is not None:
        assert (first.cut, first.signal, first.background) == (second.cut, second.signal, second.background)


def test_yields_are_scaled_to_all_events_and_their_errors_with_them():
    score, signal = np.array([0.9, 0.8, 0.7, 0.2]), np.array([True, True, False, False])
    found = count_above(0.5, score, signal, np.array([1.0, 2.0, 3.0, 4.0]), share=0.25)
    assert (found.signal, found.background) == (12.0, 12.0)
    assert found.signal_error == pytest.approx(4 * math.sqrt(5))
    assert found.background_error == pytest.approx(12.0)


def test_the_error_of_the_significance_is_the_scatter_of_repeated_simulations():
    random = np.random.default_rng(5)
    significances, errors = [], []
    for _ in range(300):
        n_signal, n_background = random.poisson(2000), random.poisson(8000)
        score = np.concatenate([random.beta(3, 1, n_signal), random.beta(1, 3, n_background)])
        signal = np.arange(n_signal + n_background) < n_signal
        weight = np.where(signal, 0.01, 0.1)
        found = count_above(0.6, score, signal, weight, share=0.5, background_uncertainty=0.1)
        significances.append(found.significance)
        errors.append(found.significance_error)
    assert np.mean(errors) == pytest.approx(np.std(significances), rel=0.15)


def test_a_cut_without_enough_background_is_not_chosen():
    score = np.concatenate([np.linspace(0, 0.8, 100), np.linspace(0.5, 1, 100)])
    signal = np.arange(200) >= 100
    found = best_cut(score, signal, np.ones(200))
    assert ((score >= found.cut) & ~signal).sum() >= 10
    assert best_cut(score, signal, np.ones(200), least_background=101) is None


@pytest.mark.parametrize("setting", ["share", "background_uncertainty"])
def test_a_setting_that_makes_no_sense_is_named(setting):
    with pytest.raises(SettingError, match=f"'{setting}'"):
        count_above(0.5, np.ones(2), np.array([True, False]), np.ones(2), **{setting: -1.0})
