"""The short way to a TTree's columns gives what uproot gives, for every compression, and never crashes on damage."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from tests.conftest import make_events

from mlaas4hep.errors import MLaaS4HEPError, SourceError
from mlaas4hep.streaming.formats import open_reader
from mlaas4hep.streaming.formats.root_baskets import BasketBranch, basket_branch, places_of, read_baskets
from mlaas4hep.streaming.formats.root_bytes import LocalBytes

DATA = Path(__file__).parent.parent / "data"
COMPRESSIONS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "ZLIB": lambda: uproot.ZLIB(1),
    "LZMA": lambda: uproot.LZMA(1),
    "LZ4": lambda: uproot.LZ4(1),
    "ZSTD": lambda: uproot.ZSTD(1),
}


def write(path: Path, columns: dict[str, Any], clusters: list[int], compression: Any) -> Path:
    events = len(columns["event"])
    with uproot.recreate(path, compression=compression) as file:
        arrays = {
            name: values if isinstance(values, np.ndarray) else ak.Array(values) for name, values in columns.items()
        }
        file.mktree(
            "Events", {name: a.dtype if isinstance(a, np.ndarray) else ak.type(a).content for name, a in arrays.items()}
        )
        for start, stop in zip([0, *clusters], [*clusters, events], strict=True):
            file["Events"].extend({name: array[start:stop] for name, array in arrays.items()})
    return path


def plain_branches(path: Path, tree: str = "Events") -> dict[str, BasketBranch]:
    opened = uproot.open(path)[tree]
    described = {name: basket_branch(branch, opened.num_entries) for name, branch in opened.items()}
    return {name: branch for name, branch in described.items() if branch is not None}


def assert_equals_uproot(path: Path, start: int, stop: int, tree: str = "Events") -> int:
    branches = plain_branches(path, tree)
    source = LocalBytes(str(path))
    read = read_baskets(source.fetch(places_of(start, stop, branches.values())), start, stop, branches)
    source.close()
    expected = uproot.open(path)[tree].arrays(list(branches), entry_start=start, entry_stop=stop, how=dict)
    for name, column in read.items():
        layout = expected[name].layout
        if column.offsets is None:
            np.testing.assert_array_equal(column.content, layout.data)
        else:
            np.testing.assert_array_equal(np.diff(column.offsets), np.diff(layout.offsets.data))
            np.testing.assert_array_equal(
                column.content, layout.content.data[layout.offsets.data[0] : layout.offsets.data[-1]]
            )
        assert column.content.dtype.isnative
    return len(read)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(("start", "stop"), [(0, 900), (0, 1), (899, 900), (100, 400), (137, 612), (400, 401)])
def test_every_compression_and_range_gives_what_uproot_gives(
    tmp_path: Path, compression: str, start: int, stop: int
) -> None:
    columns = make_events(900, seed=5) | {"double": np.linspace(-1, 1, 900), "byte": np.arange(900).astype(np.uint8)}
    path = write(tmp_path / "f.root", columns, [100, 101, 400, 700], COMPRESSIONS[compression]())
    assert assert_equals_uproot(path, start, stop) >= len(columns)


def test_a_file_that_root_wrote_gives_what_uproot_gives() -> None:
    assert assert_equals_uproot(DATA / "uproot-HZZ.root", 0, 2421, "events") == 51
    assert_equals_uproot(DATA / "uproot-HZZ.root", 17, 2300, "events")


def test_baskets_within_the_tree_itself_are_left_to_uproot() -> None:
    assert plain_branches(DATA / "nanoAOD_2015_CMS_Open_Data_ttbar.root") == {}


def test_a_basket_of_several_compressed_blocks_is_put_together(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random(2_500_000)  # 20 MB: a block holds 16 MB at most
    path = write(tmp_path / "f.root", {"event": values}, [], uproot.ZSTD(1))
    assert assert_equals_uproot(path, 0, len(values)) == 1


def test_a_wrong_checksum_of_a_block_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "f.root", make_events(2000, seed=5), [], uproot.LZ4(1))
    branch = plain_branches(path)["luminosityBlock"]
    damaged = bytearray(path.read_bytes())
    damaged[int(branch.seek[0] + branch.size[0]) - 20] ^= 0x10
    path.write_bytes(damaged)
    with pytest.raises(
        SourceError,
        match=r"f\.root: entries 0–1999 cannot be read: branch 'luminosityBlock': the checksum of a compressed block is wrong",
    ):
        open_reader(str(path), "Events").read(0, 2000, ["luminosityBlock"])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_flipped_bytes_give_an_error_or_sane_columns_and_never_a_crash(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "f.root", make_events(400, seed=6), [150], COMPRESSIONS[compression]())
    whole = path.read_bytes()
    chooser = random.Random(compression)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chooser.choice((1, 1, 4))):
            damaged[chooser.randrange(len(damaged))] ^= 1 << chooser.randrange(8)
        path.write_bytes(damaged)
        try:
            reader = open_reader(str(path), "Events")
            columns = reader.read(0, reader.entries, list(reader.columns)) if reader.entries < 10_000 else {}
            reader.close()
        except MLaaS4HEPError:
            refused += 1
            continue
        for column in columns.values():
            if column.offsets is not None:
                assert column.offsets[0] == 0
                assert column.offsets[-1] == len(column.content)
                assert (np.diff(column.offsets) >= 0).all()
    assert refused > 5
