"""Files in a store that speaks the protocol of S3 give what local files give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.conftest import make_events, write_tree_file
from tests.streaming.servers import S3Server, s3_server

import mlaas4hep
from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.access.credentials import client_options, explained
from mlaas4hep.streaming.access.retry import RetryPolicy, may_pass
from mlaas4hep.streaming.access.sources import expand_files
from mlaas4hep.streaming.formats import open_reader

QUICK = RetryPolicy(attempts=2, first_wait=0.01)


@pytest.fixture
def store() -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch, s3_server("data", patch) as server:
        yield server


def test_an_epoch_from_s3_is_the_local_epoch_to_the_bit(store: S3Server, tmp_path: Path) -> None:
    path = write_tree_file(tmp_path / "f.root", make_events(2000, seed=1), [100, 333, 900])
    local, remote = mlaas4hep.open(path), mlaas4hep.open(store.add(path, "data", "run1/f.root"))
    settings = {"batch_size": 100, "run_bytes": 4000, "pool_bytes": 40_000, "seed": 3}
    batches = list(zip(remote.stream(**settings), local.stream(**settings), strict=True))
    assert len(batches) == 20
    for batch, expected in batches:
        np.testing.assert_array_equal(batch.x, expected.x)
        np.testing.assert_array_equal(batch.id, expected.id)


def test_ranges_are_read_and_not_whole_files(store: S3Server, higgs_files: list[str]) -> None:
    url = store.add(higgs_files[0], "data", "f.root")
    reader = open_reader(url, "Events")
    reader.read(0, reader.entries, ["MET_pt"])
    size = Path(higgs_files[0]).stat().st_size
    reader.close()
    assert store.sent
    assert all(asked for _, asked, _ in store.sent)
    assert sum(length for _, _, length in store.sent) < size / 10


def test_parquet_is_read_from_s3(store: S3Server, tmp_path: Path) -> None:
    table = pa.table({"x": np.arange(50.0), "n": np.arange(50)})
    pyarrow.parquet.write_table(table, tmp_path / "e.parquet")
    reader = open_reader(store.add(tmp_path / "e.parquet", "data", "e.parquet"), "")
    np.testing.assert_array_equal(reader.read(10, 20, ["x"])["x"].content, np.arange(10.0, 20.0))
    reader.close()


def test_folders_and_patterns_on_s3_are_listed(store: S3Server, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    for key in ("run/b.root", "run/a.root", "run/c.csv.gz", "run/notes.txt", "run/deep/d.root", "other/e.root"):
        store.add(tmp_path / "x", "data", key)
    assert expand_files("s3://data/run/") == ["s3://data/run/a.root", "s3://data/run/b.root", "s3://data/run/c.csv.gz"]
    assert expand_files("s3://data/*/*.root:Runs") == [
        "s3://data/other/e.root:Runs",
        "s3://data/run/a.root:Runs",
        "s3://data/run/b.root:Runs",
    ]
    with pytest.raises(SourceError, match=r"s3://data/none/\*\.root: no file matches this pattern"):
        expand_files("s3://data/none/*.root")
    with pytest.raises(SourceError, match="s3://nothere/: there is no such folder"):
        expand_files("s3://nothere/")


def test_a_missing_object_is_lost_and_not_tried_again(store: S3Server, tmp_path: Path) -> None:
    good = store.add(write_tree_file(tmp_path / "f.root", make_events(100, seed=1)), "data", "f.root")
    missing = "s3://data/missing.root"
    with pytest.raises(SourceError, match=r"s3://data/missing\.root: .*key does not exist") as error:
        open_reader(missing, "Events")
    assert not may_pass(error.value)
    dataset = mlaas4hep.open([good, missing], on_bad_file="skip", retry=QUICK)
    assert dataset.files == (good,)
    assert dataset.losses.whole_files == (missing,)
    with pytest.raises(SourceError, match=r"missing\.root"):
        mlaas4hep.open([good, missing], retry=QUICK)


def test_a_refused_key_is_named(store: S3Server, tmp_path: Path) -> None:
    url = store.add(write_tree_file(tmp_path / "f.root", make_events(10, seed=1)), "data", "f.root")
    store.refuse = True
    with pytest.raises(SourceError, match=r"f\.root: ") as error:
        open_reader(url, "Events")
    assert not may_pass(error.value)
    assert "the server refused the access: AWS_ACCESS_KEY_ID; " in str(explained(error.value))


def test_a_store_that_is_gone_may_come_back_and_waits_have_limits(store: S3Server) -> None:
    store.close()
    with pytest.raises(SourceError, match="Could not connect to the endpoint") as error:
        open_reader("s3://data/f.root", "Events")
    assert may_pass(error.value)
    limits = client_options("s3://data/f.root")["config_kwargs"]
    assert limits == {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 1}}
