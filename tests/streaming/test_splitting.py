from __future__ import annotations

import json
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


identities = st.lists(st.integers(0, MASK), min_size=1, max_size=50).map(lambda numbers: np.array(numbers, np.uint64))
k_folds = st.tuples(st.integers(2, 12), st.sampled_from([0.0, 0.1, 0.25, 0.4]), st.integers(0, 2**40))


def slow_k_fold(identity: int, folds: int, fold: int, validation: float) -> int:
    """The obvious version: the test part is an interval of whole numbers, the validation part what follows it, round the end."""
    start, stop = 2**64 * fold // folds, 2**64 * (fold + 1) // folds
    if start <= identity < stop:
        return 2
    return 1 if (identity - stop) % 2**64 < int(validation * 2**64) else 0


@given(identities, k_folds)
def test_an_event_is_a_test_event_in_exactly_one_of_the_k_divisions(
    identity: np.ndarray, settings: tuple[int, float, int]
) -> None:
    folds, validation, salt = settings
    splits = [Split.k_fold(folds, fold, validation=validation, salt=salt) for fold in range(folds)]
    assigned = np.stack([split.assign(identity) for split in splits])
    assert np.all((assigned == FOLDS.index("test")).sum(axis=0) == 1)
    for split in splits:
        np.testing.assert_array_equal(split.fold_of(identity), (assigned == FOLDS.index("test")).argmax(axis=0))


@given(identities, k_folds, st.integers(0, 11))
def test_a_k_fold_equals_the_obvious_version(
    identity: np.ndarray, settings: tuple[int, float, int], number: int
) -> None:
    folds, validation, _ = settings
    fold = number % folds
    expected = [slow_k_fold(value, folds, fold, validation) for value in identity.tolist()]
    assert Split.k_fold(folds, fold, validation=validation).assign(identity).tolist() == expected


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_the_edges_of_a_k_fold_belong_to_one_part_each(folds: int) -> None:
    edges = [2**64 * fold // folds for fold in range(folds)]
    identity = np.array([*edges, *((edge - 1) % 2**64 for edge in edges)], np.uint64)
    expected = [*range(folds), *((fold - 1) % folds for fold in range(folds))]
    assert Split.k_fold(folds, 0).fold_of(identity).tolist() == expected


@given(st.permutations(list(range(40))), st.integers(1, 39), k_folds)
def test_a_k_fold_does_not_depend_on_order_or_chunking(
    order: list[int], cut: int, settings: tuple[int, float, int]
) -> None:
    folds, validation, salt = settings
    split = Split.k_fold(folds, folds - 1, validation=validation, salt=salt)
    numbers = np.arange(40)
    whole = event_identity([numbers], salt)
    chunks = [event_identity([chunk], salt) for chunk in (numbers[order][:cut], numbers[order][cut:])]
    for function in (split.assign, split.fold_of):
        np.testing.assert_array_equal(np.concatenate([function(chunk) for chunk in chunks]), function(whole)[order])


def test_the_parts_of_a_k_fold_have_equal_sizes() -> None:
    folds = Split.k_fold(5, 0).fold_of(event_identity([np.arange(100_000)]))
    np.testing.assert_allclose(np.bincount(folds) / 100_000, 0.2, atol=4 * np.sqrt(0.2 * 0.8 / 100_000))


@pytest.mark.parametrize("split", [Split(), Split(0.3, 0.2, salt=7), Split(0, 0), Split.k_fold(5, 3, validation=0.2)])
def test_a_split_is_read_back_from_its_dict(split: Split) -> None:
    assert Split.from_dict(json.loads(json.dumps(split.to_dict()))) == split


def test_a_plain_split_is_described_and_assigned_as_before_there_were_k_folds() -> None:
    split = Split(test=0.3, validation=0.2, salt=4)
    assert split.to_dict() == {"test": 0.3, "validation": 0.2, "salt": 4, "hash_version": 1}
    identity = event_identity([np.arange(20)], salt=4)
    bounds = [int(0.3 * 2**64), int(0.5 * 2**64)]
    expected = [2 if value < bounds[0] else 1 if value < bounds[1] else 0 for value in identity.tolist()]
    assert split.assign(identity).tolist() == expected


def test_a_split_may_be_described_by_some_of_its_settings() -> None:
    assert Split.from_dict({"test": 0.3, "validation": 0.2}) == Split(test=0.3, validation=0.2)
    assert Split.from_dict({"folds": 4, "fold": 1}) == Split.k_fold(4, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1, "fold": 0}, r"'split\.folds' must be an integer ≥ 2; got 1"),
        ({"folds": 5, "fold": 5}, r"'split\.fold' must be an integer from 0 to 4; got 5"),
        ({"folds": 5}, r"'split\.fold' must be an integer from 0 to 4; got None"),
        ({"fold": 0}, r"'split\.fold' must be given together with split\.folds; got 0"),
        ({"folds": 5, "fold": 0, "test": 0.3}, r"'split\.test' must be 1/5, since split\.folds is 5; got 0\.3"),
        ({"folds": 2, "fold": 0, "validation": 0.5}, r"less than 1"),
        ({"folds": True, "fold": 0}, r"'split\.folds'"),
        ({"tset": 0.3}, r"'split\.tset' must be one of test, validation"),
        ({"test": 0.3, "hash_version": 2}, r"'split\.hash_version' must be 1; got 2"),
    ],
)
def test_a_description_that_is_no_split_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Split.from_dict(settings)


def test_a_plain_split_has_no_model_for_each_event() -> None:
    with pytest.raises(SettingError, match="only a k-fold"):
        Split().fold_of(np.array([1], np.uint64))
