"""The loops that copy encoded events do what the obvious loops do."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.streaming.encoding.row_kernels import checksum, copy_bytes, copy_rows

ROWS = st.tuples(st.integers(0, 20), st.integers(0, 40), st.integers(0, 10), st.integers(0, 2**32 - 1))
MULTIPLIER, SHIFT, MODULUS = 0x9E3779B97F4A7C15, 29, 2**64


@given(ROWS)
def test_rows_are_parted_into_values_and_mask(case: tuple[int, int, int, int]) -> None:
    rows, width, chosen, seed = case
    generator = np.random.default_rng(seed)
    source = generator.normal(size=(rows + 1, width)).astype(np.float32)
    source[generator.random(source.shape) < 0.3] = np.nan
    source[generator.random(source.shape) < 0.1] = np.inf
    source[generator.random(source.shape) < 0.1] = -0.0
    wanted = generator.integers(0, rows + 1, chosen)
    to = generator.permutation(chosen + 2)[:chosen]
    x, mask = np.full((chosen + 2, width), 7, np.float32), np.full((chosen + 2, width), 7, np.uint8)
    expected_x, expected_mask = x.copy(), mask.copy()
    for row, destination in zip(wanted, to, strict=True):
        for place in range(width):
            absent = bool(np.isnan(source[row, place]))
            expected_x[destination, place] = 0 if absent else source[row, place]
            expected_mask[destination, place] = absent
    copy_rows(source, wanted, to, x, mask)
    assert x.tobytes() == expected_x.tobytes()
    assert mask.tobytes() == expected_mask.tobytes()


@given(ROWS)
def test_bytes_are_copied_as_numpy_copies_them(case: tuple[int, int, int, int]) -> None:
    rows, width, chosen, seed = case
    generator = np.random.default_rng(seed)
    source = generator.integers(0, 256, (rows + 1, width), np.uint8)
    wanted = generator.integers(0, rows + 1, chosen)
    to = generator.permutation(chosen + 2)[:chosen]
    found = np.zeros((chosen + 2, width), np.uint8)
    expected = found.copy()
    expected[to] = source[wanted]
    copy_bytes(source, wanted, to, found)
    assert found.tobytes() == expected.tobytes()


def slow_checksum(words: list[int], rest: list[int], length: int) -> int:
    first, second = [0] * 8, [0] * 8
    for place, word in enumerate([*words, *rest]):
        first[place % 8] = (first[place % 8] + word) % MODULUS
        second[place % 8] = (second[place % 8] + first[place % 8]) % MODULUS
    total = length
    for pair in zip(first, second, strict=True):
        for part in pair:
            total = (total ^ part) * MULTIPLIER % MODULUS
            total ^= total >> SHIFT
    return total


@given(st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_the_checksum_is_what_its_formula_says_and_another_for_any_changed_bit(blocks: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    words = generator.integers(0, 2**64, 8 * blocks, np.uint64)
    rest = generator.integers(0, 2**64, 8, np.uint64)
    expected = slow_checksum(words.tolist(), rest.tolist(), 100)
    assert int(checksum(words, rest, 100)) == expected
    assert int(checksum(words, rest, 101)) != expected
    if blocks:
        words[generator.integers(0, len(words))] ^= np.uint64(1) << np.uint64(generator.integers(0, 64))
        assert int(checksum(words, rest, 100)) != expected
