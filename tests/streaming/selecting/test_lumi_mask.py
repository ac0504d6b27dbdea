from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.selecting.lumi_mask import LumiMask

PAIRS = st.tuples(st.integers(1, 30), st.integers(0, 8)).map(lambda pair: [pair[0], pair[0] + pair[1]])
RUNS = st.dictionaries(st.sampled_from(["1", "2", "7", "273158", "4294967295"]), st.lists(PAIRS, max_size=5))


def slow_accepts(runs: dict[str, list[list[int]]], run: int, section: int) -> bool:
    """The obvious version."""
    return any(first <= section <= last for first, last in runs.get(str(run), []))


@given(RUNS, st.sampled_from([np.uint32, np.int64, np.uint64, np.float64]))
def test_the_mask_equals_the_obvious_version(runs: dict[str, list[list[int]]], dtype: type) -> None:
    events = [(run, section) for run in (0, 1, 2, 3, 7, 273158, 4294967295) for section in range(41)]
    run, section = (np.array(numbers, dtype) for numbers in zip(*events, strict=True))
    found = LumiMask.of(runs).accepts(run, section)
    assert found.tolist() == [slow_accepts(runs, *event) for event in events]


@given(RUNS)
def test_ranges_are_rising_and_apart_and_come_back_from_plain_values_and_other_processes(
    runs: dict[str, list[list[int]]],
) -> None:
    mask = LumiMask.of(runs)
    for before, after in zip(mask.ranges, mask.ranges[1:], strict=False):
        assert before[0] < after[0] or before[2] + 1 < after[1]
    assert LumiMask.from_dict(json.loads(json.dumps(mask.to_dict()))) == mask
    mask.accepts(np.array([1]), np.array([1]))
    assert pickle.loads(pickle.dumps(mask)) == mask


def test_the_order_of_runs_and_ranges_and_how_they_are_cut_does_not_count() -> None:
    one = LumiMask.of({"2": [[5, 9], [1, 4]], "10": [[1, 3], [2, 8]]})
    assert one == LumiMask.of({"10": [[1, 8]], "2": [[1, 9]]})
    assert one.to_dict() == {"2": [[1, 9]], "10": [[1, 8]]}


def test_values_that_are_no_numbers_of_sections_are_never_accepted() -> None:
    mask = LumiMask.of({"1": [[0, 4294967295]], "0": [[0, 4294967295]]})
    run = np.array([1.0, np.nan, 1.0, 1.0, -1.0, np.inf, 2.0**32])
    section = np.array([1.0, 1.0, np.nan, 1.5, 1.0, 1.0, 1.0])
    assert mask.accepts(run, section).tolist() == [True, *[False] * 6]
    assert mask.accepts(np.array([-1, 2**32 + 1, 1]), np.array([1, 1, -1])).tolist() == [False] * 3
    assert LumiMask.of({}).accepts(np.array([1]), np.array([1])).tolist() == [False]


@pytest.mark.parametrize("packed", [False, True])
def test_a_certification_file_is_read_compressed_or_not(tmp_path: Path, packed: bool) -> None:
    runs = {"273158": [[1, 1279]], "273302": [[1, 459], [461, 500]]}
    content = json.dumps(runs).encode()
    file = tmp_path / "certified.txt"
    file.write_bytes(gzip.compress(content) if packed else content)
    mask = LumiMask.read(file)
    assert mask.to_dict() == runs
    assert mask.accepts(np.full(3, 273302), np.array([459, 460, 461])).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"1": [[1, 2], [5, 3]]}', r"run 1, range 2: \[5, 3\] ends before it begins"),
        ('{"1": [[1, 2]], "1": [[3, 4]]}', "run '1' stands in it twice"),
        ('{"1": [1, 2]}', r"run 1, range 1: must be two whole numbers \[first, last\]; got 1"),
        ('{"1": [[1, 2, 3]]}', "run 1, range 1: must be two whole numbers"),
        ('{"1": [[1, true]]}', "run 1, range 1: must be two whole numbers"),
        ('{"1": [[-1, 2]]}', "run 1, range 1: must be two whole numbers"),
        ('{"1": [[1.0, 2]]}', "run 1, range 1: must be two whole numbers"),
        ('{"1": {"2": 3}}', r"run 1: must have a list of ranges"),
        ('{"one": [[1, 2]]}', "run 'one' is no run number"),
        ('{"4294967296": [[1, 2]]}', "is no run number"),
        ("[[1, 2]]", r'must hold \{"run": \[\[first, last\]'),
        ('{"1": [[1, 2]]', "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("\xff", "is no JSON"),
        ("", "is no JSON"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_refused_with_the_place(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "certified.json"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(SourceError, match=message) as caught:
        LumiMask.read(file)
    assert caught.value.file == str(file)


def test_a_missing_or_damaged_or_endless_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read as a certification file"):
        LumiMask.read(tmp_path / "none.json")
    packed: Any = bytearray(gzip.compress(json.dumps({"1": [[1, 2]] * 1000}).encode()))
    packed[20] ^= 0xFF
    (tmp_path / "damaged.json").write_bytes(packed)
    with pytest.raises(SourceError, match="cannot be read as a certification file"):
        LumiMask.read(tmp_path / "damaged.json")
    (tmp_path / "large.json").write_bytes(gzip.compress(b" " * (64 * 2**20 + 1)))
    with pytest.raises(SourceError, match="more than 64 MiB"):
        LumiMask.read(tmp_path / "large.json")
