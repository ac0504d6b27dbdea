"""Histograms without a range: exact counts, in any order, in bounded memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlaas4hep.streaming.inspection.bins import MAX_OCCUPIED, BinCounts, count_values

FLOATS = arrays(
    np.float64,
    st.integers(0, 200),
    elements=st.one_of(st.floats(-1e307, 1e307), st.just(np.nan), st.just(np.inf), st.just(-999.0)),
)
INTEGERS = arrays(np.int32, st.integers(1, 200), elements=st.integers(-300, 300))


def counted_slowly(values, edges):
    """What a histogram is: for each bin, how many values lie in it."""
    return [sum(low <= value < high for value in values) for low, high in itertools.pairwise(edges)]


@given(FLOATS)
def test_every_finite_value_is_in_its_bin_or_outside(values):
    found = count_values(values)
    histogram = found.histogram(found.edges())
    finite = values[np.isfinite(values)]
    assert histogram.counts.tolist() == counted_slowly(finite, histogram.edges)
    assert histogram.below == sum(value < histogram.edges[0] for value in finite)
    assert histogram.above == sum(value >= histogram.edges[-1] for value in finite)
    assert histogram.total == len(finite)


@given(FLOATS, st.integers(0, 200))
def test_parts_in_any_order_add_up_to_the_whole(values, cut):
    left, right = count_values(values[:cut]), count_values(values[cut:])
    forth, back = left + right, right + left
    assert forth.exponent == back.exponent
    assert forth.bins.tolist() == back.bins.tolist()
    assert forth.counts.tolist() == back.counts.tolist()
    histogram = forth.histogram(forth.edges())
    assert histogram.counts.tolist() == counted_slowly(values[np.isfinite(values)], histogram.edges)
    # The parts can be drawn with the edges of the whole: their bins nest in its.
    parts = [part.histogram(histogram.edges).counts for part in (left, right)]
    assert sum(parts).tolist() == histogram.counts.tolist()


def test_a_negative_value_that_is_nothing_beside_the_width_of_a_bin_is_below_zero():
    found = count_values(np.array([1.25411413e204, -3.58387320e-136]))
    assert found.bins[0] == -1
    assert count_values(np.array([1.25411413e204] * 9000 + [-3.58387320e-136])).bins[0] == -1


@given(INTEGERS)
def test_few_whole_numbers_have_a_bin_each_with_the_number_in_its_middle(values):
    found = count_values(values)
    histogram = found.histogram(found.edges(whole=True))
    assert histogram.counts.tolist() == counted_slowly(values, histogram.edges)
    if np.ptp(values) < 80 and not histogram.below + histogram.above:
        middles = (histogram.edges[:-1] + histogram.edges[1:]) / 2
        assert middles.tolist() == list(range(values.min(), values.max() + 1))


@given(FLOATS)
def test_the_median_is_within_a_bin(values):
    found = count_values(values)
    finite = np.sort(values[np.isfinite(values)])
    if len(finite):
        middle = finite[len(finite) // 2]
        assert abs(found.quantile(0.5) - middle) <= found.width
    else:
        assert np.isnan(found.quantile(0.5))


def test_memory_is_bounded_whatever_the_values():
    generator = np.random.default_rng(1)
    found = BinCounts()
    for scale in (1e-3, 1.0, 1e3, 1e30):
        found += count_values(generator.normal(0, scale, 50_000))
        assert len(found.bins) <= MAX_OCCUPIED
    assert found.counts.sum() == 200_000


def test_a_far_off_value_leaves_the_others_as_they_are():
    values = np.random.default_rng(2).random(10_000)
    found = count_values(np.append(values, -999.0))
    histogram = found.histogram(found.edges())
    assert (histogram.below, histogram.above) == (1, 0)
    assert len(histogram.counts) >= 30
    assert histogram.counts.tolist() == np.histogram(values, histogram.edges)[0].tolist()


def test_a_far_off_value_that_is_most_of_them_does_so_too():
    values = np.concatenate([np.full(9_000, -99_999.0), np.random.default_rng(3).random(1_000)])
    found = count_values(values)
    assert found.width < 0.01


def test_the_largest_numbers_have_edges_that_are_finite():
    found = count_values(np.array([0.0, np.finfo(np.float64).max]))
    histogram = found.histogram(found.edges())
    assert np.isfinite(histogram.edges).all()
    assert histogram.total == 2


@pytest.mark.parametrize("value", [0.0, -2.5, 1e308, -1e-310, 5e-324, 2.0**53, 123456789.125])
def test_a_constant_is_one_bin_that_can_be_seen(value):
    found = count_values(np.full(7, value))
    histogram = found.histogram(found.edges())
    assert histogram.counts.tolist() == [7]
    assert histogram.edges[0] < value < histogram.edges[1]


def test_no_value_is_an_empty_histogram():
    found = count_values(np.array([np.nan, np.inf]))
    assert found.histogram(found.edges()).total == 0
    assert len((found + BinCounts()).bins) == 0
    whole = count_values(np.arange(3.0))
    assert (found + whole).counts.tolist() == (whole + found).counts.tolist() == [1, 1, 1]


def test_numbers_beyond_two_to_the_53_are_counted():
    values = np.array([2**64 - 1, 2**63, 1], np.uint64)
    assert count_values(values).counts.sum() == 3
