from __future__ import annotations

import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.splitting import FOLDS, Split, entry_identity, event_identity

MASK = 2**64 - 1


def slow_mix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def slow_identity(identifiers: tuple[int, ...], salt: int) -> int:
    """The obvious version, with Python's integers."""
    state = slow_mix(salt)
    for value in identifiers:
        state = slow_mix(state ^ (value & MASK))
    return state


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(0, MASK)), min_size=1),
    st.integers(0, 1000),
)
def test_the_identity_equals_the_obvious_version(events: list[tuple[int, int, int]], salt: int) -> None:
    columns = [
        np.array([event[i] for event in events], dtype) for i, dtype in enumerate((np.uint32, np.int32, np.uint64))
    ]
    found = event_identity(columns, salt)
    assert found.tolist() == [slow_identity(event, salt) for event in events]


@given(st.permutations(list(range(40))), st.integers(1, 39))
def test_an_events_fold_does_not_depend_on_order_or_chunking(order: list[int], cut: int) -> None:
    split = Split(test=0.3, validation=0.2)
    numbers = np.arange(40)
    whole = split.assign(event_identity([numbers]))
    shuffled = numbers[order]
    chunks = [split.assign(event_identity([chunk])) for chunk in (shuffled[:cut], shuffled[cut:])]
    np.testing.assert_array_equal(np.concatenate(chunks), whole[order])


def test_the_folds_have_their_sizes_and_no_dependence_on_the_numbers() -> None:
    folds = Split(test=0.2, validation=0.1).assign(event_identity([np.ones(100_000, int), np.arange(100_000)]))
    sizes = np.bincount(folds, minlength=3) / 100_000
    for fold, expected in zip(FOLDS, (0.7, 0.1, 0.2), strict=True):
        assert sizes[FOLDS.index(fold)] == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 100_000))
    neighbours = np.mean(folds[1:] == folds[:-1])
    assert neighbours == pytest.approx(0.7**2 + 0.1**2 + 0.2**2, abs=0.01)


def test_another_salt_gives_an_independent_division() -> None:
    numbers = [np.arange(50_000)]
    first, second = (Split(test=0.5, validation=0, salt=salt).assign(event_identity(numbers, salt)) for salt in (0, 1))
    assert np.mean(first == second) == pytest.approx(0.5, abs=0.01)


def test_a_larger_test_part_holds_the_smaller_one() -> None:
    identity = event_identity([np.arange(10_000)])
    small, large = (Split(test=test, validation=0).assign(identity) == 2 for test in (0.1, 0.3))
    assert np.all(large[small])


def test_the_entry_identity_depends_on_the_file_and_the_entry() -> None:
    entries = np.arange(1000)
    one, other = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
    assert len({*entry_identity(one, entries).tolist(), *entry_identity(other, entries).tolist()}) == 2000
    np.testing.assert_array_equal(entry_identity(one, entries)[500:], entry_identity(one, entries[500:]))
    np.testing.assert_array_equal(entry_identity("no uuid", entries), entry_identity("no uuid", entries))


@pytest.mark.parametrize(
    "parts", [{"test": 1.0}, {"test": -0.1}, {"validation": 1.5}, {"test": 0.5, "validation": 0.5}, {"test": "0.2"}]
)
def test_a_split_that_leaves_no_training_events_is_refused(parts: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=r"setting 'split\."):
        Split(**parts)


def test_no_test_part_means_no_test_event() -> None:
    folds = Split(test=0, validation=0).assign(np.array([0, 1, MASK], np.uint64))
    assert folds.tolist() == [0, 0, 0]
