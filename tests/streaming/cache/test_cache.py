"""A cache of encoded events gives the batches that the files give, to the bit, whatever happens to it."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import make_events, write_tree_file

import mlaas4hep
from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.cache.cache_folder import CacheFolder
from mlaas4hep.streaming.cache.cache_names import ShardName
from mlaas4hep.streaming.splitting import Split
from mlaas4hep.streaming.stream.stream import Batch, EventStream

RUN_BYTES = 3000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two classes, 60 uneven clusters a file."""
    folder = tmp_path_factory.mktemp("files")
    made = []
    for number, events in enumerate((600, 1500)):
        bounds = sorted(set(np.random.default_rng(number).integers(1, events, 60).tolist()))
        made.append(
            write_tree_file(folder / f"{number}.root", make_events(events, seed=number + 1, run=number), bounds)
        )
    return made


@pytest.fixture(scope="module")
def dataset(files: list[Path]) -> mlaas4hep.Dataset:
    opened = mlaas4hep.open(files, labels=[1, 0])
    _ = opened.specs
    return opened


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared") / "cache"


def stream_of(dataset: mlaas4hep.Dataset, cache: Path | None, **other: Any) -> EventStream:
    return dataset.stream(**{"batch_size": 100, "run_bytes": RUN_BYTES, "pool_bytes": 20_000, "cache": cache, **other})


def copied(batches: Iterable[Batch]) -> list[Batch]:
    return [Batch(*(array.copy() for array in batch)) for batch in batches]


def assert_same_bits(found: Iterable[Batch], expected: Iterable[Batch]) -> None:
    for one, other in zip(found, expected, strict=True):
        for array, same in zip(one, other, strict=True):
            assert array.dtype == same.dtype
            assert array.shape == same.shape
            assert array.tobytes() == same.tobytes()


def shards_in(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*.arrow"))


def without_files(dataset: mlaas4hep.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make reading the dataset's files an error."""
    monkeypatch.setattr(
        "mlaas4hep.streaming.stream.reading.open_reader", lambda *_: pytest.fail(f"one of {dataset.files} was opened")
    )


@settings(max_examples=15)
@given(
    st.sampled_from([None, "train", "validation", "test"]),
    st.sampled_from([16, 100, 257]),
    st.integers(2_000, 20_000),
    st.sampled_from(["proportional", "balanced"]),
    st.booleans(),
    st.integers(0, 3),
)
def test_two_epochs_are_the_same_to_the_bit_from_the_files_and_from_a_cache_whatever_is_in_it(
    dataset: mlaas4hep.Dataset,
    shared_cache: Path,
    fold: Any,
    batch_size: int,
    pool_bytes: int,
    mixing: Any,
    shuffle: bool,
    seed: int,
) -> None:
    given_settings: dict[str, Any] = {
        "fold": fold,
        "batch_size": batch_size,
        "pool_bytes": pool_bytes,
        "mixing": mixing,
        "shuffle": shuffle,
        "seed": seed,
    }
    plain, cached = stream_of(dataset, None, **given_settings), stream_of(dataset, shared_cache, **given_settings)
    for _ in range(2):
        assert_same_bits(copied(cached), copied(plain))


def test_the_second_epoch_opens_no_file(
    dataset: mlaas4hep.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = copied(stream_of(dataset, None, fold="train"))
    assert_same_bits(copied(stream_of(dataset, tmp_path / "c", fold="train")), expected)
    without_files(dataset, monkeypatch)
    assert_same_bits(copied(stream_of(dataset, tmp_path / "c", fold="train")), expected)


def test_only_the_runs_that_are_missing_are_read(
    dataset: mlaas4hep.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = copied(stream_of(dataset, None))
    copied(stream_of(dataset, tmp_path / "c"))
    shards = shards_in(tmp_path / "c")
    for shard in shards[::3]:
        shard.unlink()
    from mlaas4hep.streaming.stream import supply

    asked: list[Any] = []
    monkeypatch.setattr(
        supply,
        "read_ahead",
        lambda catalog, runs, *rest, read_ahead=supply.read_ahead: read_ahead(
            catalog, asked.extend(runs) or list(asked), *rest
        ),
    )
    assert_same_bits(copied(stream_of(dataset, tmp_path / "c")), expected)
    assert len(asked) == len(shards[::3])
    assert shards_in(tmp_path / "c") == shards


def test_runs_without_an_event_of_the_stream_are_not_read_again(
    dataset: mlaas4hep.Dataset, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    selected = mlaas4hep.open(files, labels=[1, 0], selection="MET_pt > 100", branches=["MET_pt"])
    expected = copied(stream_of(selected, None, run_bytes=200))
    assert_same_bits(copied(stream_of(selected, tmp_path / "c", run_bytes=200)), expected)
    names = [ShardName.parse(path.name) for path in shards_in(tmp_path / "c")]
    assert any(name is not None and name.events == 0 for name in names)
    without_files(selected, monkeypatch)
    assert_same_bits(copied(stream_of(selected, tmp_path / "c", run_bytes=200)), expected)


def test_targets_and_identifiers_come_back_as_they_were(files: list[Path], tmp_path: Path) -> None:
    regression = mlaas4hep.open(
        files, target=["MET_pt", "sum(Jet_pt)"], branches=["Jet_*"], identifiers=["event", "luminosityBlock"]
    )
    expected = copied(stream_of(regression, None, fold="train"))
    assert expected[0].y.shape == (100, 2)
    for _ in range(2):
        assert_same_bits(copied(stream_of(regression, tmp_path / "c", fold="train")), expected)


def test_files_in_another_order_and_place_are_found_again(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = mlaas4hep.open(files, labels=[1, 0])
    copied(stream_of(first, tmp_path / "c"))
    moved = [tmp_path / "moved" / path.name for path in files]
    moved[0].parent.mkdir()
    for path, new in zip(files, moved, strict=True):
        new.write_bytes(path.read_bytes())
    turned = mlaas4hep.open(moved[::-1], labels=[0, 1])
    expected = copied(stream_of(turned, None, encoding=first.encoding))
    without_files(turned, monkeypatch)
    assert_same_bits(copied(stream_of(turned, tmp_path / "c", encoding=first.encoding)), expected)


def test_weights_of_files_belong_to_the_files_whatever_their_order(files: list[Path], tmp_path: Path) -> None:
    cross_sections = {files[0].name: 1.0, files[1].name: 3.0}
    sums = dict.fromkeys(cross_sections, 100.0)
    weights = {"cross_sections": cross_sections, "sum_of_weights": sums}
    first = mlaas4hep.open(files, labels=[1, 0], weights=weights)
    keys = keys_of(first, tmp_path / "c", weights="signed", encoding=first.encoding)
    turned = mlaas4hep.open(files[::-1], labels=[0, 1], weights=weights)
    assert keys_of(turned, tmp_path / "c", weights="signed", encoding=first.encoding) == keys
    plain = stream_of(turned, None, weights="signed", encoding=first.encoding)
    assert_same_bits(
        copied(stream_of(turned, tmp_path / "c", weights="signed", encoding=first.encoding)), copied(plain)
    )


@pytest.mark.parametrize("begins_with_cache", [True, False])
def test_an_epoch_goes_on_from_the_cache_where_it_began_without_and_the_other_way(
    dataset: mlaas4hep.Dataset, tmp_path: Path, begins_with_cache: bool
) -> None:
    caches = [tmp_path / "c", None] if begins_with_cache else [None, tmp_path / "c"]
    expected = copied(stream_of(dataset, None, fold="train", seed=3))
    left = stream_of(dataset, caches[0], fold="train", seed=3)
    iterator = iter(left)
    for _ in range(5):
        next(iterator)
    state = json.loads(json.dumps(left.state_dict()))
    iterator.close()  # type: ignore[attr-defined]
    resumed = stream_of(dataset, caches[1], fold="train", seed=3)
    resumed.load_state_dict(state)
    assert_same_bits(copied(resumed), expected[5:])


def test_ranks_share_a_cache(dataset: mlaas4hep.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied(stream_of(dataset, tmp_path / "c"))
    expected = [copied(stream_of(dataset, None).shard(rank, 2)) for rank in range(2)]
    without_files(dataset, monkeypatch)
    for rank in range(2):
        assert_same_bits(copied(stream_of(dataset, tmp_path / "c").shard(rank, 2)), expected[rank])


def test_workers_fill_a_cache_that_serves_without_them(
    dataset: mlaas4hep.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [copied(stream_of(dataset, None, fold="train", seed=seed)) for seed in (0, 5)]
    with_workers = stream_of(dataset, tmp_path / "c", fold="train", workers=2)
    assert_same_bits(copied(with_workers), expected[0])
    without_files(dataset, monkeypatch)
    assert_same_bits(copied(stream_of(dataset, tmp_path / "c", fold="train", seed=5)), expected[1])
    assert_same_bits(copied(stream_of(dataset, tmp_path / "c", fold="train", seed=5, workers=2)), expected[1])


def test_two_streams_that_write_the_same_shards_at_once_do_not_disturb_each_other(
    dataset: mlaas4hep.Dataset, tmp_path: Path
) -> None:
    expected = copied(stream_of(dataset, None))
    one, other = iter(stream_of(dataset, tmp_path / "c")), iter(stream_of(dataset, tmp_path / "c"))
    pairs = [(copied([a])[0], copied([b])[0]) for a, b in zip(one, other, strict=True)]
    assert_same_bits([a for a, _ in pairs], expected)
    assert_same_bits([b for _, b in pairs], expected)
    assert not list((tmp_path / "c").rglob("*.part"))


# What the key stands for.


def keys_of(dataset: mlaas4hep.Dataset, cache: Path, **other: Any) -> set[str]:
    """Names of the shards, with the folder of the dataset, that a stream looks for."""
    for path in cache.glob("*/*"):
        path.unlink()
    copied(stream_of(dataset, cache, **other))
    return {str(path.relative_to(cache)).partition("-")[0] for path in shards_in(cache)}


OTHER_DATASETS: dict[str, dict[str, Any]] = {
    "classes": {"labels": [0, 1]},
    "no labels": {"labels": None},
    "labels by expression": {"labels": "MET_pt > 20"},
    "targets": {"labels": None, "target": "MET_pt"},
    "features": {"exclude": ["trigger"]},
    "identifiers": {"identifiers": ["event"]},
    "split": {"split": Split(test=0.3)},
    "salt": {"split": Split(salt=1)},
    "cut": {"selection": "MET_pt > 1"},
    "object cut": {"object_cuts": {"Jet": "pt > 1"}},
    "new column": {"new_columns": {"HT": "sum(Jet_pt)"}},
    "lumi mask": {"lumi_mask": "mask.json"},
    "weights by branch": {"weights": {"branch": "MET_pt"}},
    "weights by class": {"weights": {"balance_classes": True}},
    "weights by file": {"weights": {"cross_sections": [1.0, 2.0], "sum_of_weights": [3.0, 3.0]}},
    "preprocessing": {"preproc": "preprocess.py"},
}


@pytest.mark.parametrize("what", OTHER_DATASETS)
def test_another_dataset_has_other_keys(
    what: str, files: list[Path], dataset: mlaas4hep.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mask.json").write_text('{"0": [[1, 2]], "1": [[0, 9]]}')
    Path("preprocess.py").write_text("def preprocessing(rec):\n    rec['MET_pt'] = 2 * rec['MET_pt']\n    return rec\n")
    other = mlaas4hep.open(files, **{"labels": [1, 0], **OTHER_DATASETS[what]})
    encoding = {} if what == "features" else {"encoding": dataset.encoding}
    expected = keys_of(dataset, tmp_path / "c", fold="train")
    assert expected
    assert not keys_of(other, tmp_path / "c", fold="train", **encoding) & expected


@pytest.mark.parametrize("other", [{"fold": "test"}, {"fold": None}, {"weights": "signed"}, {"run_bytes": 2000}])
def test_settings_that_decide_content_are_in_the_key(
    other: dict[str, Any], dataset: mlaas4hep.Dataset, tmp_path: Path
) -> None:
    usual = {"fold": "train"}
    found, expected = (keys_of(dataset, tmp_path / "c", **usual | more) for more in (other, {}))
    assert found - expected if "run_bytes" in other else not found & expected


@pytest.mark.parametrize(
    "other", [{"seed": 7}, {"batch_size": 17}, {"shuffle": False}, {"pool_bytes": 5000}, {"drop_last": True}]
)
def test_settings_that_decide_only_the_order_are_not_in_the_key(
    other: dict[str, Any], dataset: mlaas4hep.Dataset, tmp_path: Path
) -> None:
    assert keys_of(dataset, tmp_path / "c", **other) == keys_of(dataset, tmp_path / "c")


def test_another_encoding_another_content_and_another_version_have_other_keys(
    dataset: mlaas4hep.Dataset, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = keys_of(dataset, tmp_path / "c")
    assert not keys_of(dataset, tmp_path / "c", encoding=dataset.specs.make_encoding("standard")) & expected
    rewritten = [
        write_tree_file(tmp_path / path.name, make_events(events, seed=9), range(30, events, 30))
        for path, events in zip(files, (600, 1500), strict=True)
    ]
    other = mlaas4hep.open(rewritten, labels=[1, 0])
    assert not keys_of(other, tmp_path / "c", encoding=dataset.encoding) & expected
    monkeypatch.setattr("mlaas4hep.streaming.cache.cache_keys.FORMAT_VERSION", 999)
    assert not keys_of(dataset, tmp_path / "c") & expected


# What happens to files.


@settings(max_examples=30)
@given(data=st.data())
def test_a_damaged_shard_is_noticed_and_made_anew(
    data: st.DataObject, dataset: mlaas4hep.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("damaged")
    expected = copied(stream_of(dataset, cache, shuffle=False))
    shards = shards_in(cache)
    victim = shards[data.draw(st.integers(0, len(shards) - 1))]
    whole = victim.read_bytes()
    kind = data.draw(st.sampled_from(["flip", "cut", "grow", "zero", "swap"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    if kind == "flip":
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del damaged[at:]
    elif kind == "grow":
        damaged[at:at] = bytes(1)
    elif kind == "zero":
        damaged[at : at + 512] = bytes(len(damaged[at : at + 512]))
    else:
        damaged[at : at + 64], damaged[-64:] = damaged[-64:], damaged[at : at + 64]
    victim.write_bytes(damaged)
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("mlaas4hep.streaming.cache.cache")
    logger.addHandler(handler)
    try:
        assert_same_bits(copied(stream_of(dataset, cache, shuffle=False)), expected)
    finally:
        logger.removeHandler(handler)
    if bytes(damaged) != whole:
        (line,) = records
        assert victim.name in line
        assert "are read again" in line
        assert "\n" not in line
    assert victim.read_bytes() == whole


@pytest.mark.parametrize("how", ["truncated", "flipped", "removed"])
def test_a_shard_that_is_damaged_while_a_stream_has_it_mapped_is_made_anew(
    how: str, dataset: mlaas4hep.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Of one run a file: shards that are large enough to be mapped.
    wide: dict[str, Any] = {"encoding": widened(dataset), "run_bytes": 10**6, "pool_bytes": 10**6}
    plain, stream = stream_of(dataset, None, **wide), stream_of(dataset, tmp_path, **wide)
    assert_same_bits(copied(stream), copied(plain))
    for shard in shards_in(tmp_path):
        assert shard.stat().st_size > 64 * 1024
        if how == "truncated":
            os.truncate(shard, 4096)
        elif how == "removed":
            shard.unlink()
        else:
            with shard.open("r+b") as file:
                file.seek(40_000)
                file.write(b"\x01\x02\x03")
    assert_same_bits(copied(stream), copied(plain))
    assert len(caplog.records) == (0 if how == "removed" else 2)
    caplog.clear()
    assert_same_bits(copied(stream), copied(plain))
    assert not caplog.records


def widened(dataset: mlaas4hep.Dataset) -> Any:
    """The event vector with 50 places for each list."""
    description = dataset.encoding.to_dict()
    for feature in description["features"]:
        feature["width"] = 50 if feature["jagged"] else 1
    return type(dataset.encoding).from_dict(description)


def test_a_shard_that_carries_another_name_is_noticed(
    dataset: mlaas4hep.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = copied(stream_of(dataset, tmp_path))
    shards = shards_in(tmp_path)
    first, second = (ShardName.parse(path.name) for path in shards[:2])
    assert first is not None
    assert second is not None
    shards[0].rename(shards[0].with_name(str(ShardName(first.key, second.events, second.checksum))))
    assert_same_bits(copied(stream_of(dataset, tmp_path)), expected)
    assert "are read again" in caplog.text


def test_shards_that_are_pruned_while_an_epoch_runs_are_read_again(
    dataset: mlaas4hep.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = copied(stream_of(dataset, tmp_path))
    iterator = iter(stream_of(dataset, tmp_path, pool_bytes=1))
    first = copied([next(iterator)])
    CacheFolder.existing(tmp_path).prune(everything=True)
    rest = copied(iterator)
    small_pools = copied(stream_of(dataset, None, pool_bytes=1))
    assert_same_bits([*first, *rest], small_pools)
    assert_same_bits(copied(stream_of(dataset, tmp_path)), expected)
    assert not caplog.records


WRITER = """
import sys, mlaas4hep
dataset = mlaas4hep.open(sys.argv[2:], labels=[1, 0])
stream = dataset.stream(batch_size=100, run_bytes=3000, pool_bytes=20_000, cache=sys.argv[1])
while True:
    print(sum(len(batch.x) for batch in stream), flush=True)
    for shard in __import__("pathlib").Path(sys.argv[1]).glob("*/*.arrow"):
        shard.unlink()
"""


def test_a_process_that_is_killed_while_it_writes_leaves_nothing_that_is_taken_for_a_shard(
    dataset: mlaas4hep.Dataset, files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = copied(stream_of(dataset, None))
    cache = tmp_path / "c"
    command = [sys.executable, "-c", WRITER, str(cache), *map(str, files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"2100\n"
        # It writes without end: end it in the middle of a file, as seen from outside.
        deadline = time.monotonic() + 60
        while not list(cache.glob("*/*.part")) and time.monotonic() < deadline:
            pass
        process.send_signal(signal.SIGKILL)
    assert_same_bits(copied(stream_of(dataset, cache)), expected)
    assert_same_bits(copied(stream_of(dataset, cache)), expected)
    assert not caplog.records
    for shard in shards_in(cache):
        name = ShardName.parse(shard.name)
        assert name is not None
        assert pa.ipc.open_file(shard).get_batch(0).num_rows == name.events


LIMITED = """
import resource, sys, mlaas4hep
dataset = mlaas4hep.open(sys.argv[2:], labels=[1, 0])
_ = dataset.specs
sizes = [int(number) for number in sys.stdin.readline().split()]
resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[0], sizes[0]))
stream = dataset.stream(batch_size=100, run_bytes=3000, pool_bytes=20_000, cache=sys.argv[1])
for _ in range(2):
    print(sum(len(batch.x) for batch in stream), float(sum(batch.x.sum(dtype=float) for batch in stream)))
"""


def test_an_epoch_goes_on_from_the_files_where_the_disk_takes_no_more(
    dataset: mlaas4hep.Dataset, files: list[Path], tmp_path: Path
) -> None:
    copied(stream_of(dataset, tmp_path / "whole"))
    sizes = sorted(path.stat().st_size for path in shards_in(tmp_path / "whole"))
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "c"), *map(str, files)]
    # The description and the smaller shards fit, the larger ones do not.
    limit = max(sizes[len(sizes) // 2], 1 + next((tmp_path / "whole").glob("*/dataset.json")).stat().st_size)
    assert limit < sizes[-1]
    result = subprocess.run(command, input=f"{limit}\n", capture_output=True, text=True, timeout=120, check=True)
    plain = stream_of(dataset, None)
    expected = [
        f"{sum(len(batch.x) for batch in plain)} {float(sum(batch.x.sum(dtype=float) for batch in plain))}"
        for _ in range(2)
    ]
    assert result.stdout.splitlines() == expected
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert "cannot be written" in lines[0]
    assert not list((tmp_path / "c").rglob("*.part"))
    assert {path.name for path in shards_in(tmp_path / "c")} < {path.name for path in shards_in(tmp_path / "whole")}


def test_lost_runs_are_reported_and_not_cached(files: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "1.root"
    content = files[1].read_bytes()
    broken.write_bytes(content)
    opened = mlaas4hep.open([files[0], broken], labels=[1, 0], on_bad_file="skip")
    _ = opened.specs
    os.truncate(broken, len(content) // 2)
    plain, cached = stream_of(opened, None), stream_of(opened, tmp_path / "c")
    for _ in range(2):
        assert_same_bits(copied(cached), copied(plain))
        assert len(cached.losses)
        assert {(loss.file, loss.start, loss.stop) for loss in cached.losses} == {
            (loss.file, loss.start, loss.stop) for loss in plain.losses
        }
    broken.write_bytes(content)
    again = mlaas4hep.open([files[0], broken], labels=[1, 0], on_bad_file="skip")
    whole = stream_of(again, tmp_path / "c", encoding=opened.encoding)
    assert sum(len(batch.x) for batch in whole) == 2100
    assert not len(whole.losses)


def test_many_shards_need_few_open_files(dataset: mlaas4hep.Dataset, tmp_path: Path) -> None:
    stream = stream_of(dataset, tmp_path / "c", run_bytes=1, pool_bytes=10**8)
    copied(stream)
    assert len(shards_in(tmp_path / "c")) > 100
    opened_now = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 64
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened_now + 10, hard))
    try:
        assert sum(len(batch.x) for batch in stream) == 2100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("place", ["file/below", "file", "full"])
def test_a_folder_that_cannot_be_a_cache_is_refused_before_the_epoch(
    place: str, dataset: mlaas4hep.Dataset, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("something")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("important")
    with pytest.raises(SettingError, match="cache"):
        stream_of(dataset, tmp_path / place)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_permission_is_refused(dataset: mlaas4hep.Dataset, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir(mode=0o500)
    with pytest.raises(SettingError, match="can be written to"):
        stream_of(dataset, tmp_path / "c")


# Pruning.


@pytest.fixture
def filled(dataset: mlaas4hep.Dataset, tmp_path: Path) -> CacheFolder:
    """A cache of two folds; the shards of the test fold were used a year ago."""
    for fold in ("train", "test"):
        copied(stream_of(dataset, tmp_path / "c", fold=fold))
    cache = CacheFolder.existing(tmp_path / "c")
    (old,) = [found for found in cache.datasets() if found.about["fold"] == "test"]
    for shard in (cache.path / old.key).glob("*.arrow"):
        os.utime(shard, (time.time() - 365 * 86400,) * 2)
    return cache


def test_what_there_is_is_listed_with_the_last_used_first(filled: CacheFolder, files: list[Path]) -> None:
    train, test = filled.datasets()
    assert (train.about["fold"], test.about["fold"]) == ("train", "test")
    assert [file["path"] for file in train.about["files"]] == list(map(str, files))
    assert train.events + test.events < 2100
    assert train.events > test.events > 0
    assert train.last_used - test.last_used > 300 * 86400
    assert train.nbytes + test.nbytes == sum(path.stat().st_size for path in shards_in(filled.path))
    assert json.loads(json.dumps(train.to_dict()))["shards"] == train.shards


def test_pruning_by_age_removes_what_was_not_used(filled: CacheFolder) -> None:
    train, test = filled.datasets()
    assert filled.prune(older_than="30d", dry_run=True).shards == test.shards
    assert len(filled.datasets()) == 2
    pruned = filled.prune(older_than="30d")
    assert (pruned.shards, pruned.nbytes, pruned.kept) == (test.shards, test.nbytes, train.shards)
    assert [found.key for found in filled.datasets()] == [train.key]
    assert not (filled.path / test.key).exists()


def test_a_use_counts_against_the_age(filled: CacheFolder, dataset: mlaas4hep.Dataset) -> None:
    copied(stream_of(dataset, filled.path, fold="test"))
    assert filled.prune(older_than="30d").shards == 0


def test_pruning_by_size_removes_the_least_recently_used_first(filled: CacheFolder) -> None:
    train, test = filled.datasets()
    pruned = filled.prune(max_size=train.nbytes + test.nbytes // 2)
    assert 0 < pruned.shards < test.shards
    assert pruned.kept_bytes <= train.nbytes + test.nbytes // 2
    assert filled.datasets()[0].shards == train.shards
    filled.prune(everything=True)
    assert not filled.datasets()
    assert [path.name for path in filled.path.iterdir()] == ["CACHEDIR.TAG"]


def test_leftovers_of_killed_writers_are_removed_after_an_hour_and_nothing_that_is_not_ours(
    filled: CacheFolder,
) -> None:
    folder = filled.path / filled.datasets()[0].key
    hour = (time.time() - 3700,) * 2
    for path in (folder / "a.part", filled.path / "b.part", folder / "new.part", folder / "mine.txt"):
        path.write_bytes(b"12345")
        if path.name != "new.part":
            os.utime(path, hour)
    (filled.path / "mine").mkdir()
    (filled.path / "mine" / "thesis.part").write_text("important")
    os.utime(filled.path / "mine" / "thesis.part", hour)
    pruned = filled.prune(older_than="10000d")
    assert (pruned.shards, pruned.leftovers, pruned.nbytes) == (0, 2, 10)
    filled.prune(everything=True)
    assert sorted(path.name for path in filled.path.rglob("*") if path.is_file()) == [
        "CACHEDIR.TAG",
        "dataset.json",
        "mine.txt",
        "new.part",
        "thesis.part",
    ]


@pytest.mark.parametrize("wrong", [{}, {"older_than": "soon"}, {"max_size": "much"}, {"max_size": "-1"}])
def test_pruning_without_a_rule_or_with_a_wrong_one_is_refused(wrong: dict[str, Any], filled: CacheFolder) -> None:
    before = shards_in(filled.path)
    with pytest.raises(SettingError):
        filled.prune(**wrong)
    assert shards_in(filled.path) == before


def test_a_folder_without_our_mark_is_not_pruned(tmp_path: Path) -> None:
    (tmp_path / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# of another program\n")
    with pytest.raises(SettingError, match=r"no CACHEDIR\.TAG of mlaas4hep"):
        CacheFolder.existing(tmp_path)
