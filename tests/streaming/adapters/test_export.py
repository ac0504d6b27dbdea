from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import make_events

import mlaas4hep
from mlaas4hep.errors import SettingError, SourceError
from mlaas4hep.streaming.adapters.export import Layout, to_arrow, to_parquet
from mlaas4hep.streaming.dataset import Dataset
from mlaas4hep.streaming.encoding.encoding import Encoding
from mlaas4hep.streaming.stream.stream import Batch

EVENTS = 900


@pytest.fixture
def dataset(write_tree: Callable[..., Path]) -> Dataset:
    files = [write_tree(f"{seed}.root", make_events(EVENTS, seed), clusters=range(100, EVENTS, 100)) for seed in (1, 2)]
    return mlaas4hep.open(files, labels=["signal", "background"])


def joined(batches: list[Batch]) -> Batch:
    return Batch._make(np.concatenate(parts) for parts in zip(*batches, strict=True))


def assert_table_holds(table: pa.Table, batch: Batch, layout: Layout, columns: tuple[str, ...]) -> None:
    """Compare value by value with what the stream gave."""
    expected = np.where(batch.mask, np.nan, batch.x)
    if layout == "vector":
        flat = table["x"].combine_chunks().flatten()
        found = flat.to_numpy(zero_copy_only=False).reshape(expected.shape)
        nulls = flat.is_null().to_numpy(zero_copy_only=False).reshape(expected.shape)
    else:
        found = np.stack([table[name].to_numpy() for name in columns], axis=1)
        nulls = np.stack([table[name].is_null().to_numpy() for name in columns], axis=1)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(nulls, batch.mask)
    np.testing.assert_array_equal(table["y"].to_numpy(), batch.y)
    np.testing.assert_array_equal(table["weight"].to_numpy(), batch.weight)
    for name in batch.id.dtype.names or ():
        column = table[name].to_numpy()
        assert column.dtype == batch.id.dtype[name]
        np.testing.assert_array_equal(column, batch.id[name])


@pytest.mark.parametrize("layout", ["columns", "vector"])
def test_the_record_batches_are_the_streams_batches(dataset: Dataset, layout: Layout) -> None:
    settings = {"batch_size": 128, "seed": 3}
    reader = to_arrow(dataset.stream("train", **settings), layout=layout)
    batches = list(dataset.stream("train", **settings))
    found = list(reader)
    assert [batch.num_rows for batch in found] == [len(batch.x) for batch in batches]
    assert_table_holds(pa.Table.from_batches(found), joined(batches), layout, dataset.encoding.columns)
    assert joined(batches).mask.any()


@pytest.mark.parametrize("layout", ["columns", "vector"])
def test_a_parquet_file_holds_every_event_of_the_fold(dataset: Dataset, layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    written = to_parquet(dataset.stream("train"), path, layout=layout)
    table = pq.read_table(path)
    assert written == len(table) == sum(dataset.class_counts("train").values())
    assert_table_holds(table, joined(list(dataset.stream("train"))), layout, dataset.encoding.columns)


def test_the_schema_says_what_the_values_are(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    to_parquet(dataset.stream("test"), path)
    about = json.loads(pq.read_schema(path).metadata[b"mlaas4hep"])
    assert Encoding.from_dict(about["encoding"]) == dataset.encoding
    assert about["classes"] == list(dataset.classes)
    assert [file["path"] for file in about["files"]] == list(dataset.files)
    assert (about["fold"], about["layout"], about["split"]) == ("test", "columns", dataset.split.to_dict())


def test_what_was_written_can_be_opened_again_with_the_same_values(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    to_parquet(dataset.stream(None, shuffle=False, batch_size=200), path)
    again = mlaas4hep.open(path, branches=dataset.encoding.columns)
    raw = np.concatenate([block for block, *_ in again.raw_blocks()])
    whole = joined(list(dataset.stream(None, shuffle=False)))
    places = [again.encoding.columns.index(name) for name in dataset.encoding.columns]
    np.testing.assert_array_equal(raw[:, places], np.where(whole.mask, np.nan, whole.x))


def test_an_empty_fold_gives_an_empty_file_with_all_columns(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "none.parquet"
    emptied = mlaas4hep.open(dataset.files, labels=["signal", "background"], split=mlaas4hep_split(test=0.0))
    assert to_parquet(emptied.stream("test"), path) == 0
    table = pq.read_table(path)
    assert len(table) == 0
    assert {*emptied.encoding.columns, "y", "weight", "file", "entry", "event"} <= set(table.column_names)


def mlaas4hep_split(test: float) -> object:
    from mlaas4hep.streaming.splitting import Split

    return Split(test=test)


def test_row_groups_have_the_size_that_was_asked_for(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "groups.parquet"
    to_parquet(dataset.stream("train", batch_size=50), path, row_group_bytes=10_000, compression="none")
    metadata = pq.read_metadata(path)
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert len(rows) > 4
    assert len(set(rows[:-1])) == 1
    assert rows[0] % 50 == 0


def test_a_file_that_cannot_be_read_leaves_nothing_and_the_old_file_as_it_was(
    dataset: Dataset, write_tree: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "out" / "train.parquet"
    path.parent.mkdir()
    path.write_bytes(b"old")
    stream = dataset.stream("train")
    write_tree("2.root", make_events(EVENTS, 9))  # another file in the place of the one that was catalogued
    with pytest.raises(SourceError, match=r"2\.root: has changed since it was catalogued"):
        to_parquet(stream, path)
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [("train.parquet", b"old")]


def test_a_folder_that_is_not_there_is_named(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere/x\.parquet: cannot be written: No such file or directory"):
        to_parquet(dataset.stream("train"), tmp_path / "nowhere" / "x.parquet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "rows"}, "'layout' must be one of columns, vector; got 'rows'"),
        ({"row_group_bytes": 0}, "'row_group_bytes' must be an integer ≥ 1; got 0"),
        ({"compression": "zip"}, "'compression' must be one of zstd, lz4"),
    ],
)
def test_arguments_that_are_wrong_are_refused_before_anything_is_read(
    dataset: Dataset, tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        to_parquet(dataset.stream("train"), tmp_path / "x.parquet", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "x.parquet").exists()


def test_a_feature_with_the_name_of_another_column_needs_the_vector(write_tree: Callable[..., Path]) -> None:
    path = write_tree("w.root", make_events(EVENTS, 1) | {"weight": np.ones(EVENTS)})
    stream = mlaas4hep.open(path).stream("train")
    with pytest.raises(SettingError, match="'vector' where a feature is called 'weight'"):
        to_arrow(stream)
    assert to_arrow(stream, layout="vector").read_next_batch().num_rows == 512


def test_memory_does_not_grow_with_the_number_of_events(write_tree: Callable[..., Path], tmp_path: Path) -> None:
    path = write_tree("long.root", make_events(400_000, 1), clusters=range(20_000, 400_000, 20_000))
    dataset = mlaas4hep.open(path)
    small = {"pool_bytes": 2**20, "run_bytes": 2**20}
    process = psutil.Process(os.getpid())
    reader = to_arrow(dataset.stream(**small), layout="vector")
    seen: list[int] = []
    for batch in reader:
        assert batch.num_rows
        seen.append(process.memory_info().rss)
    assert max(seen) - seen[len(seen) // 10] < 16 * 2**20  # the values and masks of all events take 26 MB
