"""A stream goes on in the middle of an epoch, and shares its events among processes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import make_events, write_tree_file

import mlaas4hep
from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.stream.stream import Batch, EventStream


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> mlaas4hep.Dataset:
    """Two classes, 60 uneven clusters a file."""
    folder = tmp_path_factory.mktemp("resuming")
    files = []
    for number, events in enumerate((600, 1500)):
        bounds = sorted(set(np.random.default_rng(number).integers(1, events, 60).tolist()))
        files.append(
            write_tree_file(folder / f"{number}.root", make_events(events, seed=number + 1, run=number), bounds)
        )
    opened = mlaas4hep.open(files, labels=[1, 0])
    _ = opened.specs
    return opened


def assert_same_batches(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for array, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, same)


def copied(batches: Any) -> list[Batch]:
    return [Batch(*(array.copy() for array in batch)) for batch in batches]


@settings(max_examples=30)
@given(
    st.sampled_from([None, "train", "validation", "test"]),
    st.sampled_from([16, 100, 257]),
    st.integers(2_000, 20_000),
    st.booleans(),
    st.floats(0, 1),
    st.integers(0, 2),
)
def test_the_rest_of_the_epoch_is_the_same_to_the_bit_wherever_it_was_left(
    dataset: mlaas4hep.Dataset, fold: Any, batch_size: int, pool_bytes: int, shuffle: bool, share: float, epoch: int
) -> None:
    def new() -> EventStream:
        return dataset.stream(
            fold, batch_size=batch_size, pool_bytes=pool_bytes, run_bytes=3000, shuffle=shuffle, seed=7
        )

    whole = new()
    whole.epoch = epoch
    batches = copied(whole)
    following = copied(whole)
    given_before = int(share * len(batches))
    left = new()
    left.epoch = epoch
    iterator = iter(left)
    for _ in range(given_before):
        next(iterator)
    state = json.loads(json.dumps(left.state_dict())) if given_before else None
    iterator.close()  # type: ignore[attr-defined]
    resumed = new()
    resumed.epoch = epoch
    if state is not None:
        resumed.load_state_dict(state)
    assert_same_batches(copied(resumed), batches[given_before:])
    assert_same_batches(copied(resumed), following)


def test_after_an_epoch_the_state_is_that_of_the_next_one(dataset: mlaas4hep.Dataset) -> None:
    stream = dataset.stream(batch_size=500, seed=1)
    list(stream)
    state = stream.state_dict()
    again = dataset.stream(batch_size=500, seed=1)
    again.load_state_dict(state)
    assert again.epoch == 1
    assert_same_batches(copied(again), copied(stream))


@pytest.mark.parametrize("other", [{"seed": 2}, {"batch_size": 64}, {"fold": "test"}, {"world_size": 2}])
def test_a_state_of_other_settings_is_refused(dataset: mlaas4hep.Dataset, other: dict[str, Any]) -> None:
    own = {"fold": "train", "batch_size": 32, "seed": 1}
    state = dataset.stream(**own).state_dict()
    with pytest.raises(
        SettingError, match="setting 'state' must be one of a stream of the same files, features and settings"
    ):
        dataset.stream(**(own | other)).load_state_dict(state)


@pytest.mark.parametrize("world_size", [1, 2, 8])
@pytest.mark.parametrize("fold", [None, "train"])
def test_the_shares_of_all_ranks_are_the_whole_each_event_once(
    dataset: mlaas4hep.Dataset, world_size: int, fold: Any
) -> None:
    def events_of(stream: EventStream) -> Counter[tuple[int, int]]:
        return Counter((int(file), int(entry)) for batch in stream for file, entry in batch.id[["file", "entry"]])

    whole = events_of(dataset.stream(fold))
    small = {"run_bytes": 3000, "pool_bytes": 30_000}
    shares = [events_of(dataset.stream(fold, rank=rank, world_size=world_size, **small)) for rank in range(world_size)]
    assert sum(shares, Counter()) == whole
    assert min(sum(share.values()) for share in shares) > 0
    parts = [events_of(dataset.stream(fold, rank=1, world_size=2, **small).shard(rank, 3)) for rank in range(3)]
    assert sum(parts, Counter()) == events_of(dataset.stream(fold, rank=1, world_size=2, **small))


def test_a_rank_beyond_the_world_is_refused(dataset: mlaas4hep.Dataset) -> None:
    with pytest.raises(SettingError, match="setting 'rank' must be an integer from 0 to 1; got 2"):
        dataset.stream(rank=2, world_size=2)


def test_the_workers_of_a_data_loader_give_every_event_once(dataset: mlaas4hep.Dataset, tmp_path: Path) -> None:
    from torch.utils.data import DataLoader

    tensors = dataset.torch_dataset(batch_size=300, run_bytes=3000)
    loader = DataLoader(tensors, batch_size=None, num_workers=2, multiprocessing_context="forkserver")
    loaded = sorted(x.sum().item() for batch in loader for x in batch[0])
    assert loaded == pytest.approx(sorted(x.sum() for batch in dataset.stream(shuffle=False) for x in batch.x))


def test_an_epoch_can_be_chosen_and_begins_with_its_first_batch(tmp_path: Path) -> None:
    path = write_tree_file(tmp_path / "f.root", make_events(1000, seed=3), range(100, 1000, 100))
    stream = mlaas4hep.open(path).stream(batch_size=64, pool_bytes=10_000, run_bytes=3000)
    epochs = [[batch.id["entry"].tolist() for batch in stream] for _ in range(3)]
    stream.set_epoch(1)
    batches = iter(stream)
    assert [next(batches).id["entry"].tolist() for _ in range(3)] == epochs[1][:3]
    stream.set_epoch(1)
    assert [batch.id["entry"].tolist() for batch in stream] == epochs[1]
    assert [batch.id["entry"].tolist() for batch in stream] == epochs[2]
    with pytest.raises(SettingError, match="setting 'epoch' must be an integer ≥ 0"):
        stream.set_epoch(-1)
