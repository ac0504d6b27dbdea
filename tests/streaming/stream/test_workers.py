from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tests.conftest import make_events, write_tree_file

import mlaas4hep
from mlaas4hep import errors
from mlaas4hep.errors import SettingError, SourceError, WorkerError
from mlaas4hep.streaming.dataset import Dataset
from mlaas4hep.streaming.stream.stream import Batch, EventStream

SMALL = {"run_bytes": 3000, "pool_bytes": 30_000, "batch_size": 100}
"""More than fifty runs and many pools, from few events."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two files with 60 uneven clusters each, the second three times as large."""
    folder = tmp_path_factory.mktemp("workers")
    generator = np.random.default_rng(0)
    paths = []
    for number, (name, events) in enumerate([("small", 3000), ("large", 9000)]):
        bounds = np.sort(generator.choice(np.arange(1, events), 60, replace=False))
        paths.append(write_tree_file(folder / f"{name}.root", make_events(events, seed=number, run=number), bounds))
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def dataset(files: list[str]) -> Dataset:
    opened = mlaas4hep.open(files, labels=[1, 0], selection="MET_pt > 5", new_columns={"HT": "sum(Jet_pt)"})
    assert len(opened.catalog.runs(SMALL["run_bytes"])) > 100
    return opened


def copied(stream: EventStream) -> list[Batch]:
    return [Batch(*(array.copy() for array in batch)) for batch in stream]


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        for name in Batch._fields:
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("fold", [None, "train"])
def test_the_stream_is_the_same_to_the_bit_with_any_number_of_workers(
    dataset: Dataset, workers: int, fold: str | None
) -> None:
    alone, helped = (dataset.stream(fold, workers=count, seed=3, **SMALL) for count in (0, workers))
    for _ in range(2):
        assert_same(copied(alone), copied(helped))
    assert alone.cut_values == helped.cut_values


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (1, 8)])
def test_an_epoch_goes_on_with_another_number_of_workers(dataset: Dataset, before: int, after: int) -> None:
    whole = copied(dataset.stream("train", seed=3, **SMALL))
    first = dataset.stream("train", seed=3, workers=before, **SMALL)
    batches = iter(first)
    for _ in range(17):
        next(batches)
    second = dataset.stream("train", seed=3, workers=after, **SMALL)
    second.load_state_dict(first.state_dict())
    assert_same(whole[17:], copied(second))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_batch_is_a_fair_sample_of_the_classes(dataset: Dataset, workers: int) -> None:
    batches = copied(dataset.stream(None, workers=workers, seed=5, **SMALL))[:-1]
    share = np.mean(np.concatenate([batch.y for batch in batches]))
    signal = np.array([batch.y.sum() for batch in batches])
    # The pools take the classes in exact proportion, so the counts scatter less than binomially, and never more.
    chance = 2 * np.minimum(stats.binom.cdf(signal, 100, share), stats.binom.sf(signal - 1, 100, share))
    assert chance.min() > 0.05 / len(batches)
    assert abs(np.corrcoef(np.arange(len(signal)), signal)[0, 1]) < 4 / np.sqrt(len(signal))


@pytest.mark.parametrize("workers", [0, 2])
def test_neighbours_in_an_epoch_are_no_neighbours_in_the_file(files: list[str], workers: int) -> None:
    stream = mlaas4hep.open(files[1]).stream(workers=workers, seed=5, **SMALL | {"pool_bytes": 200_000})
    entries = np.concatenate([batch.id["entry"].copy() for batch in stream])
    assert abs(np.corrcoef(entries[:-1], entries[1:])[0, 1]) < 4 / np.sqrt(len(entries))


def test_an_epoch_that_is_left_early_ends_its_workers(dataset: Dataset) -> None:
    stream = dataset.stream(workers=2, **SMALL)
    for _ in stream:
        break
    gc.collect()
    assert [process.name for process in _workers()] == []
    assert len(copied(stream)) == len(copied(dataset.stream(**SMALL)))


def test_a_stream_that_is_gone_leaves_no_process_and_no_memory_behind(dataset: Dataset) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    stream = dataset.stream(workers=2, **SMALL)
    copied(stream)
    assert len(_workers()) == 2
    del stream
    gc.collect()
    assert _workers() == []
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 4  # the fork server's own


def test_a_worker_that_is_killed_is_an_error_that_says_so(dataset: Dataset) -> None:
    stream = dataset.stream(workers=2, **SMALL)
    iterator = iter(stream)
    next(iterator)
    for process in _workers():
        os.kill(process.pid or 0, signal.SIGKILL)
    with pytest.raises(WorkerError, match="was ended by signal 9 while it read events; where memory ran out"):
        list(iterator)


def test_a_file_that_breaks_is_the_same_error_as_without_workers(files: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.root"
    broken.write_bytes(Path(files[0]).read_bytes())
    opened = mlaas4hep.open([str(broken), files[1]], labels=[1, 0])
    _ = opened.specs
    with broken.open("r+b") as file:
        file.truncate(broken.stat().st_size // 2)
    with pytest.raises(SourceError, match=r"broken\.root") as error:
        list(opened.stream(workers=2, **SMALL))
    assert error.value.file == str(broken)


@pytest.mark.parametrize("policy", ["skip", "quarantine"])
def test_what_is_lost_is_the_same_as_without_workers(files: list[str], tmp_path: Path, policy: str) -> None:
    delivered = []
    for workers in (0, 3):
        broken = tmp_path / f"broken{workers}.root"
        broken.write_bytes(Path(files[0]).read_bytes())
        opened = mlaas4hep.open([str(broken), files[1]], labels=[1, 0], on_bad_file=policy)
        _ = opened.specs
        with broken.open("r+b") as file:
            file.seek(broken.stat().st_size // 3)
            file.write(bytes(4000))
        os.utime(broken, (0, 0))
        stream = opened.stream(workers=workers, seed=1, **SMALL)
        events = sum(len(batch.x) for batch in stream)
        assert events + stream.losses.events == opened.events
        assert stream.losses.events > 0
        delivered.append((events, [(loss.start, loss.stop) for loss in stream.losses]))
    assert delivered[0] == delivered[1]


def test_a_program_needs_no_main_guard(files: list[str], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(f"""
        import mlaas4hep
        stream = mlaas4hep.open({files!r}, labels=[1, 0]).stream(workers=2)
        print(sum(len(batch.x) for batch in stream))
        """)
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["12000"], "")


def test_ctrl_c_ends_a_program_with_workers_at_once(files: list[str], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(f"""
        import mlaas4hep
        stream = mlaas4hep.open({files!r}, labels=[1, 0]).stream(workers=2, run_bytes=3000, pool_bytes=30000)
        try:
            while True:
                for batch in stream:
                    print("going", flush=True)
        except KeyboardInterrupt:
            print("stopped")
        """)
    )
    process = subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"
    os.killpg(process.pid, signal.SIGINT)
    output, complaints = process.communicate(timeout=60)
    assert (process.returncode, output.splitlines()[-1], complaints) == (0, "stopped", "")
    until = time.monotonic() + 30
    while _group_lives(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _group_lives(process.pid)


@pytest.mark.parametrize("value", [-1, 1.5, True, "two"])
def test_a_wrong_number_of_workers_is_refused(dataset: Dataset, value: object) -> None:
    with pytest.raises(SettingError, match="setting 'workers' must be an integer ≥ 0"):
        dataset.stream(workers=value)


def test_errors_travel_between_processes_with_all_their_parts() -> None:
    error = errors.BranchNotFoundError("Jet_Pt", "Events", "f.root", ["Jet_pt", "Jet_phi"])
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def _workers() -> list[BaseProcess]:
    return [process for process in multiprocessing.active_children() if process.name == "mlaas4hep-worker"]


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
