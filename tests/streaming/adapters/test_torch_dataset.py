from __future__ import annotations

import multiprocessing
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import make_events
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import mlaas4hep
from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.dataset import Dataset

# torchdata calls a function of torch that newer versions of torch no longer need.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")

# Workers are then forked from a process that has imported everything.
multiprocessing.set_forkserver_preload(
    [
        "mlaas4hep.streaming.adapters.torch_dataset",
        "mlaas4hep.streaming.dataset",
        "mlaas4hep.streaming.encoding.kernels",
    ]
)

EVENTS = 600
SETTINGS = {"batch_size": 100, "run_bytes": 3000, "pool_bytes": 20_000, "seed": 5}
WORKERS = {"num_workers": 2, "multiprocessing_context": "forkserver"}


@pytest.fixture
def dataset(write_tree: Callable[..., Path]) -> Dataset:
    files = []
    for seed in (1, 2):
        columns = make_events(EVENTS, seed)
        columns["number"] = np.arange(EVENTS, dtype=np.float32) + seed * EVENTS
        files.append(write_tree(f"{seed}.root", columns, clusters=range(12, EVENTS, 12)))
    return mlaas4hep.open(files, labels=[0, 1])


def rows(batches: Any) -> list[bytes]:
    """Each event's vector, in the order in which they come."""
    return [row.tobytes() for x, *_ in batches for row in np.asarray(x)]


def expected_rows(dataset: Dataset, epochs: int = 1) -> list[list[bytes]]:
    stream = dataset.stream("train", **SETTINGS)
    return [rows((batch.x,) for batch in stream) for _ in range(epochs)]


@pytest.mark.parametrize("persistent", [False, True])
def test_each_epoch_of_the_workers_has_all_events_in_another_order(dataset: Dataset, persistent: bool) -> None:
    loader = DataLoader(
        dataset.torch_dataset("train", **SETTINGS), batch_size=None, persistent_workers=persistent, **WORKERS
    )
    epochs = [rows(loader) for _ in range(3)]
    (whole,) = expected_rows(dataset)
    assert all(sorted(epoch) == sorted(whole) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    again = DataLoader(dataset.torch_dataset("train", **SETTINGS), batch_size=None, **WORKERS)
    assert [rows(again) for _ in range(2)] == epochs[:2]


def test_an_epoch_can_be_set_for_workers_that_live_on(dataset: Dataset) -> None:
    tensors = dataset.torch_dataset("train", **SETTINGS)
    loader = DataLoader(tensors, batch_size=None, persistent_workers=True, **WORKERS)
    epochs = [rows(loader) for _ in range(3)]
    for epoch in (1, 2):
        tensors.set_epoch(epoch)
        assert rows(loader) == epochs[epoch]


def test_an_epoch_can_be_set_and_begins_whole(dataset: Dataset) -> None:
    tensors = dataset.torch_dataset("train", **SETTINGS)
    expected = expected_rows(dataset, epochs=3)
    next(iter(tensors))
    for epoch in (0, 2, 1, 1):
        tensors.set_epoch(epoch)
        assert rows(tensors) == expected[epoch]


@pytest.mark.parametrize(("workers", "taken"), [({}, 0), ({}, 1), ({}, 3), (WORKERS, 3)])
def test_a_stateful_loader_goes_on_in_the_middle_of_an_epoch(
    dataset: Dataset, workers: dict[str, Any], taken: int
) -> None:
    def new_loader() -> StatefulDataLoader:
        return StatefulDataLoader(dataset.torch_dataset("train", **SETTINGS), batch_size=None, **workers)

    loader = new_loader()
    rows(loader)
    iterator = iter(loader)
    for _ in range(taken):
        next(iterator)
    state = pickle.loads(pickle.dumps(loader.state_dict()))
    rest = rows(iterator)
    following = rows(loader)
    resumed = new_loader()
    resumed.load_state_dict(state)
    assert rows(resumed) == rest
    assert rows(resumed) == following


def test_a_state_of_another_number_of_workers_is_refused(dataset: Dataset) -> None:
    tensors = dataset.torch_dataset("train", **SETTINGS)
    share = dataset.stream("train", rank=0, world_size=2, **SETTINGS)
    with pytest.raises(SettingError, match="setting 'state' must be one of a stream of the same files"):
        tensors.load_state_dict(share.state_dict())


def test_a_worker_is_sent_no_events(dataset: Dataset) -> None:
    tensors = dataset.torch_dataset("train", **SETTINGS)
    before = len(pickle.dumps(tensors))
    rows(tensors)
    assert len(pickle.dumps(tensors)) < before + 5000  # the events take ten times as much


def test_pinned_memory_is_given_where_there_is_an_accelerator_and_nothing_is_said_elsewhere(dataset: Dataset) -> None:
    from mlaas4hep.streaming.adapters.torch_dataset import TorchEventDataset

    tensors = TorchEventDataset(dataset.stream("train", **SETTINGS), pin_memory=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = list(tensors)
    pinned = torch.accelerator.is_available()
    assert all(tensor.is_pinned() == pinned for batch in batches for tensor in batch)
    (whole,) = expected_rows(dataset)
    assert rows(batches) == whole
