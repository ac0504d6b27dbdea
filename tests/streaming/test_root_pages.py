"""RNTuple pages are decoded as ROOT decodes them, each cluster and byte once, and no damaged page passes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.formats.base import Column
from mlaas4hep.streaming.formats.root import RootReader

DATA = Path(__file__).parent.parent / "data"
NTUPLES = ["root-ntuple-zstd.root", "root-ntuple-plain.root"]
MUONS = DATA / "Run2012BC_DoubleMuParked_Muons_1000evts_rntuple_v1-0-0-0.root"


def truth(name: str) -> dict[str, Column]:
    """What ROOT itself reads."""
    with np.load(DATA / name) as stored:
        columns = {}
        for column in stored.files:
            if not column.endswith(" lengths"):
                lengths = stored.get(f"{column} lengths")
                offsets = None if lengths is None else np.concatenate([[0], np.cumsum(lengths)])
                columns[column] = Column(stored[column], offsets)
        return columns


def cut(column: Column, start: int, stop: int) -> Column:
    if column.offsets is None:
        return Column(column.content[start:stop], None)
    bounds = column.offsets[start : stop + 1]
    return Column(column.content[bounds[0] : bounds[-1]], bounds - bounds[0])


def assert_same(found: Column, expected: Column, what: str) -> None:
    np.testing.assert_array_equal(found.content, expected.content, err_msg=what)
    assert (found.offsets is None) == (expected.offsets is None), what
    if found.offsets is not None:
        np.testing.assert_array_equal(found.offsets, expected.offsets, err_msg=what)
    assert found.content.dtype.isnative


@pytest.fixture(scope="module", params=NTUPLES)
def ntuple(request: pytest.FixtureRequest) -> Iterator[RootReader]:
    with closing(RootReader(str(DATA / request.param), "Events")) as reader:
        yield reader


def test_every_encoding_that_root_writes_gives_the_values_that_root_reads(ntuple: RootReader) -> None:
    expected = truth("root-ntuple.npz")
    assert sorted(ntuple.columns) == sorted(expected)
    assert sorted(ntuple.skipped) == ["maybe", "text", "vv"]
    read = ntuple.read(0, ntuple.entries, list(ntuple.columns))
    for name, column in read.items():
        assert_same(column, expected[name], name)
        assert column.content.dtype == ntuple.columns[name].dtype


@given(first=st.integers(0, 120), second=st.integers(0, 120), data=st.data())
def test_any_range_of_events_and_any_fields_are_those_that_root_reads(
    ntuple: RootReader, first: int, second: int, data: Any
) -> None:
    start, stop = sorted((first, second))
    expected = truth("root-ntuple.npz")
    names = data.draw(st.lists(st.sampled_from(sorted(expected)), unique=True, max_size=4))
    for name, column in ntuple.read(start, stop, names).items():
        assert_same(column, cut(expected[name], start, stop), f"{name} {start}–{stop}")


def test_fields_that_came_in_the_middle_are_zero_and_empty_before(ntuple: RootReader) -> None:
    read = ntuple.read(0, 120, ["late", "vlate"])
    assert not read["late"].content[:61].any()
    assert read["late"].content[61:].tolist() == list(range(61, 120))
    assert read["vlate"].offsets is not None
    assert read["vlate"].offsets[61] == 0
    assert read["vlate"].offsets[-1] > 0


def test_numbers_above_two_to_the_53_and_what_is_not_finite_come_through(ntuple: RootReader) -> None:
    read = ntuple.read(0, 3, ["u64", "f", "d"])
    assert read["u64"].content.tolist() == [2**53 + 1, 2**53 + 3, 2**53 + 5]
    assert np.isnan(read["f"].content).tolist() == [True, False, False]
    assert read["d"].content[0] == -np.inf


class Asked:
    """Counts what is fetched of a file."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.places: list[tuple[int, int]] = []
        self.requests = 0

    def fetch(self, places: Any) -> Any:
        self.places.extend(places)
        self.requests += 1
        return self.source.fetch(places)


def test_an_epoch_cluster_by_cluster_fetches_each_page_once(
    ntuple: RootReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(ntuple._layout._source)
    monkeypatch.setattr(ntuple._layout, "_source", asked)
    bounds = ntuple.clusters([]).tolist()
    assert bounds == [0, 25, 50, 75, 100, 120]
    for start, stop in itertools.pairwise(bounds):
        ntuple.read(start, stop, list(ntuple.columns))
    assert asked.requests == 5
    assert len(asked.places) == len(set(asked.places)) > 150


@given(data=st.data(), cuts=st.sets(st.integers(1, 39), max_size=5))
def test_what_uproot_writes_in_any_clusters_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, data: Any, cuts: set[int]
) -> None:
    lengths = data.draw(np_st.arrays(np.int64, 40, elements=st.integers(0, 4)))
    dtype = data.draw(st.sampled_from(["?", "i1", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]))
    values = data.draw(np_st.arrays(dtype, int(lengths.sum())))
    flat = data.draw(np_st.arrays(dtype, 40))
    table = ak.Array({"flat": flat, "lists": ak.unflatten(values, lengths)})
    path = tmp_path_factory.mktemp("pages") / "f.root"
    bounds = [0, *sorted(cuts), 40]
    with uproot.recreate(path) as file:
        writable = file.mkrntuple("Events", table[: bounds[1]])
        for start, stop in itertools.pairwise(bounds[1:]):
            writable.extend(table[start:stop])
    with closing(RootReader(str(path), "Events")) as reader:
        assert reader.clusters([]).tolist() == bounds
        read = reader.read(0, 40, ["flat", "lists"])
        assert_same(read["flat"], Column(flat, None), "flat")
        assert_same(read["lists"], Column(values, np.concatenate([[0], np.cumsum(lengths)])), "lists")
        expected = uproot.open(path)["Events"].arrays()
        assert ak.to_list(expected["flat"]) == pytest.approx(read["flat"].content.tolist(), abs=0, rel=0, nan_ok=True)


@pytest.mark.parametrize("file", [DATA / NTUPLES[0], DATA / NTUPLES[1], MUONS], ids=lambda path: path.stem[:20])
def test_a_flipped_bit_of_any_page_is_noticed_and_no_other_changes_a_value(tmp_path: Path, file: Path) -> None:
    with closing(RootReader(str(file), "Events")) as reader:
        entries = reader.entries
        layout: Any = reader._layout
        pages = sorted(layout._pages.places(0, entries, layout._fields.values()))
        expected = reader.read(0, entries, list(reader.columns))
    whole = file.read_bytes()
    chooser = random.Random(3)
    path = tmp_path / "f.root"

    def damaged(place: int) -> dict[str, Column]:
        data = bytearray(whole)
        data[place] ^= 1 << chooser.randrange(8)
        path.write_bytes(data)
        with closing(RootReader(str(path), "Events")) as reader:
            assert reader.entries == entries
            return reader.read(0, entries, list(reader.columns))

    for seek, size in chooser.sample(pages, min(20, len(pages))):
        with pytest.raises(SourceError, match="the checksum of the page at byte"):
            damaged(seek + chooser.randrange(size))
    for _ in range(25):
        try:
            found = damaged(chooser.randrange(len(whole)))
        except SourceError:
            continue
        for name, column in found.items():
            assert_same(column, expected[name], name)


def test_double32_and_float16_of_a_tree_are_what_root_reads_or_are_left_out() -> None:
    expected = truth("root-tree-types.npz")
    with closing(RootReader(str(DATA / "root-tree-types.root"), "Events")) as reader:
        read = reader.read(0, 60, list(reader.columns))
        assert reader.skipped == {
            "packed": "holds lists of Float16_t or Double32_t, which uproot takes for something else",
            "f16l": "holds lists of Float16_t or Double32_t, which uproot takes for something else",
            "vv": "holds std::vector<std::vector<float>>, not numbers",
            "text": "holds std::string, not numbers",
            "chars": "holds char*, not numbers",
            "m22": "holds float[2][2]: lists of lists",
            "pair": "holds struct {float x; int32_t n;}, not numbers",
        }
    assert set(read) == set(expected) - {"packed", "f16l"}
    for name, column in read.items():
        assert_same(column, expected[name], name)
