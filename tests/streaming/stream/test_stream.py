from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import make_events, write_tree_file

import mlaas4hep
from mlaas4hep.errors import LabelError, SettingError, SourceError
from mlaas4hep.streaming.stream.stream import Batch, EventStream

UNEVEN = [3, 40, 41, 100, 180, 333, 334, 500, 720, 900, 1111, 1490]


@pytest.fixture(scope="module")
def two_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two small files of two classes with uneven clusters, the second four times as large."""
    folder = tmp_path_factory.mktemp("two")
    small = write_tree_file(folder / "small.root", make_events(1500, seed=1, run=1), UNEVEN)
    large = write_tree_file(folder / "large.root", make_events(6000, seed=2, run=2), [4 * bound for bound in UNEVEN])
    return [str(small), str(large)]


def entries_of(batches: list[Batch]) -> list[tuple[int, int]]:
    return [
        (int(file), int(entry))
        for batch in batches
        for file, entry in zip(batch.id["file"], batch.id["entry"], strict=True)
    ]


SMALL = {"run_bytes": 4000, "pool_bytes": 40_000}
"""Many runs and many pools, from few events."""


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7, 512, 100_000])
def test_every_event_comes_once_an_epoch(two_files: list[str], shuffle: bool, batch_size: int) -> None:
    stream = mlaas4hep.open(two_files, labels=[1, 0]).stream(batch_size=batch_size, shuffle=shuffle, **SMALL)
    expected = Counter((file, entry) for file, events in enumerate((1500, 6000)) for entry in range(events))
    for _ in range(2):
        batches = list(stream)
        assert Counter(entries_of(batches)) == expected
        assert all(len(batch.x) == batch_size for batch in batches[:-1])


def test_the_folds_are_disjoint_and_together_the_whole(two_files: list[str]) -> None:
    dataset = mlaas4hep.open(two_files, labels=[1, 0])
    folds = {fold: Counter(entries_of(list(dataset.stream(fold, **SMALL)))) for fold in ("train", "validation", "test")}
    together = sum(folds.values(), Counter())
    assert together == Counter(entries_of(list(dataset.stream())))
    counts = {fold: sum(dataset.class_counts(fold).values()) for fold in ("train", "validation", "test")}
    assert counts == {fold: len(events) for fold, events in folds.items()}


def test_an_event_is_in_the_same_fold_in_whatever_order_the_files_come(two_files: list[str]) -> None:
    forward, backward = (mlaas4hep.open(files, labels=[0, 1]) for files in (two_files, two_files[::-1]))
    identifiers = [
        {(int(r), int(e)) for b in d.stream("test", **SMALL) for r, e in b.id[["run", "event"]]}
        for d in (forward, backward)
    ]
    assert identifiers[0] == identifiers[1]


def test_the_order_follows_from_seed_and_epoch(two_files: list[str]) -> None:
    dataset = mlaas4hep.open(two_files, labels=[1, 0])
    first, again, other = (dataset.stream(seed=seed, **SMALL) for seed in (5, 5, 6))
    one, two = entries_of(list(first)), entries_of(list(first))
    assert entries_of(list(again)) == one
    assert entries_of(list(again)) == two
    assert one != two
    assert entries_of(list(other)) != one


def test_without_shuffling_events_come_in_the_files_order(two_files: list[str]) -> None:
    found = entries_of(list(mlaas4hep.open(two_files).stream(shuffle=False, **SMALL)))
    assert found == [(file, entry) for file, events in enumerate((1500, 6000)) for entry in range(events)]


def test_each_events_values_stay_with_its_identity(two_files: list[str]) -> None:
    import uproot

    dataset = mlaas4hep.open(two_files, labels=["signal", "background"])
    truth = [uproot.open(path)["Events"].arrays() for path in two_files]
    place = dataset.encoding.columns.index("MET_pt")
    feature = dataset.encoding.features[dataset.encoding.branches.index("MET_pt")]
    for batch in dataset.stream(batch_size=100, **SMALL):
        for row in range(0, len(batch.x), 17):
            event = truth[batch.id["file"][row]][int(batch.id["entry"][row])]
            assert batch.id["event"][row] == event["event"]
            assert batch.x[row, place] == pytest.approx((event["MET_pt"] - feature.shift) * feature.scale, abs=1e-6)
            assert dataset.classes[batch.y[row]] == ("signal", "background")[batch.id["file"][row]]
        assert np.all(batch.weight == 1)


def test_every_batch_is_a_fair_sample_of_the_classes(two_files: list[str]) -> None:
    batches = list(mlaas4hep.open(two_files, labels=[1, 0]).stream(batch_size=250, seed=2, **SMALL))
    fractions = np.array([np.mean(batch.id["file"] == 0) for batch in batches])
    assert np.mean(fractions) == pytest.approx(0.2, abs=1e-6)
    # Without replacement from a fair pool the spread is at most the binomial one.
    pulls = (fractions - 0.2) / np.sqrt(0.2 * 0.8 / 250)
    assert np.abs(pulls).max() < 4
    assert np.std(pulls) < 1.4


def test_neighbours_in_the_stream_are_not_neighbours_in_the_file(two_files: list[str]) -> None:
    order = np.array(entries_of(list(mlaas4hep.open(two_files[1]).stream(seed=4))))[:, 1]
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 4 / np.sqrt(len(order))


def test_batches_that_are_kept_do_not_change(two_files: list[str]) -> None:
    stream = mlaas4hep.open(two_files, labels=[1, 0]).stream(batch_size=64, **SMALL)
    kept, copies = [], []
    for batch in stream:
        kept.append(batch)
        copies.append(tuple(array.copy() for array in batch))
    list(stream)
    for batch, copy in zip(kept, copies, strict=True):
        for array, before in zip(batch, copy, strict=True):
            np.testing.assert_array_equal(array, before)


def test_blocks_that_nobody_refers_to_are_used_again(two_files: list[str]) -> None:
    stream = mlaas4hep.open(two_files, labels=[1, 0]).stream(batch_size=64, **SMALL)
    owners = set()
    for _ in range(3):
        for batch in stream:
            owners.add(batch.x.base.__array_interface__["data"][0])
    assert len(owners) <= 6


def test_a_consumer_that_leaves_early_leaves_no_thread_behind(two_files: list[str]) -> None:
    before = set(threading.enumerate())
    iterator = iter(mlaas4hep.open(two_files, labels=[1, 0]).stream(batch_size=10, **SMALL))
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) == before


def test_an_error_of_the_reading_thread_reaches_the_consumer(tmp_path: Path) -> None:
    path = write_tree_file(tmp_path / "f.root", make_events(2000, seed=3), [500, 1000, 1500])
    dataset = mlaas4hep.open(path)
    stream = dataset.stream(**SMALL)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = set(threading.enumerate())
    with pytest.raises(SourceError, match=r"f\.root"):
        list(stream)
    assert set(threading.enumerate()) <= before


def test_a_file_that_was_replaced_after_the_catalogue_was_made_is_noticed(tmp_path: Path) -> None:
    path = write_tree_file(tmp_path / "f.root", make_events(100, seed=3))
    dataset = mlaas4hep.open(path)
    _ = dataset.specs
    write_tree_file(path, make_events(100, seed=4))
    with pytest.raises(SourceError, match="has changed since it was catalogued"):
        list(dataset.stream())


def test_longer_events_than_the_training_had_are_cut_and_counted(tmp_path: Path) -> None:
    lists = [[1.0, 2.0]] * 99 + [[1.0, 2.0, 3.0, 4.0]]
    path = write_tree_file(tmp_path / "f.root", {"l": lists})
    dataset = mlaas4hep.open(path)
    specs = dataset.specs
    narrow = type(specs.ranges)(specs.ranges.minimum, specs.ranges.maximum, {"l": 2}, 100).encoding((), ("l",))
    stream: EventStream = dataset.stream(encoding=narrow)
    assert sum(len(batch.x) for batch in stream) == 100
    assert stream.cut_values == 2


def test_labels_can_come_from_a_branch(write_tree: Any) -> None:
    path = write_tree("f.root", {"kind": np.arange(90) % 3 + 5, "x": np.arange(90.0)})
    dataset = mlaas4hep.open(path, labels="kind")
    assert dataset.classes == ("5", "6", "7")
    assert "kind" not in dataset.features
    for batch in dataset.stream():
        np.testing.assert_array_equal(batch.y, batch.id["entry"] % 3)
    assert dataset.class_counts() == {"5": 30, "6": 30, "7": 30}


def test_a_branch_of_labels_with_one_value_is_refused(write_tree: Any) -> None:
    path = write_tree("f.root", {"kind": np.ones(90, np.int32), "x": np.arange(90.0)})
    with pytest.raises(LabelError, match="branch 'kind' holds only 1; a classification needs at least two classes"):
        mlaas4hep.open(path, labels="kind")


def test_drop_last_leaves_out_the_smaller_batch(two_files: list[str]) -> None:
    stream = mlaas4hep.open(two_files).stream(batch_size=400, drop_last=True, **SMALL)
    assert [len(batch.x) for batch in stream] == [400] * (7500 // 400)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "setting 'batch_size' must be an integer ≥ 1; got 0"),
        ({"batch_size": "10"}, "setting 'batch_size' must be an integer ≥ 1; got '10'"),
        ({"seed": -1}, "setting 'seed' must be an integer ≥ 0; got -1"),
        ({"fold": "training"}, "setting 'fold' must be one of train, validation, test, or None"),
        ({"batchsize": 10}, "setting 'batchsize' must be a setting of a stream"),
    ],
)
def test_a_setting_with_a_wrong_value_is_named(two_files: list[str], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        mlaas4hep.open(two_files).stream(**settings)


def test_the_torch_dataset_gives_the_streams_batches_as_tensors(two_files: list[str]) -> None:
    torch = pytest.importorskip("torch")
    dataset = mlaas4hep.open(two_files, labels=[1, 0])
    tensors = list(dataset.torch_dataset("train", batch_size=128, seed=1))
    arrays = list(dataset.stream("train", batch_size=128, seed=1))
    assert len(tensors) == len(arrays) > 10
    for (x, mask, y, weight), batch in zip(tensors, arrays, strict=True):
        assert (x.dtype, mask.dtype, y.dtype, weight.dtype) == (torch.float32, torch.bool, torch.int64, torch.float32)
        np.testing.assert_array_equal(x.numpy(), batch.x)
        np.testing.assert_array_equal(mask.numpy(), batch.mask)
        np.testing.assert_array_equal(y.numpy(), batch.y)


def test_raw_blocks_are_all_events_in_order_as_physical_values(two_files: list[str]) -> None:
    dataset = mlaas4hep.open(two_files)
    blocks = list(dataset.raw_blocks(max_events=1000))
    raw, identity = np.concatenate([block[0] for block in blocks]), np.concatenate([block[1] for block in blocks])
    assert max(len(block[0]) for block in blocks) <= 1000
    assert identity["entry"].tolist() == [*range(1500), *range(6000)]
    (batch,) = list(dataset.stream(shuffle=False, batch_size=7500))
    x, mask = dataset.encoding.scale_raw(raw)
    np.testing.assert_array_equal(x, batch.x)
    np.testing.assert_array_equal(mask, batch.mask)


def test_small_files_are_cut_finer_where_several_processes_share_them(higgs_files: list[str]) -> None:
    stream = mlaas4hep.open(higgs_files, labels=[1, 0]).stream()
    shares = [stream.shard(rank, 4) for rank in range(4)]
    found = Counter(entry for share in shares for entry in entries_of(list(share)))
    assert found == Counter((file, entry) for file in range(2) for entry in range(24_000))
    events = [share.report.events for share in shares]
    assert min(events) > 0
