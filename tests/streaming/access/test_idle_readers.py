from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path

import pytest
from tests.conftest import make_events, write_tree_file

import mlaas4hep
from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.access.idle_readers import IdleReaders, signature_of
from mlaas4hep.streaming.formats import open_reader
from mlaas4hep.streaming.formats import root as root_format


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_tree_file(tmp_path / "f.root", make_events(300, seed=1), [100, 200])


def test_a_local_file_is_opened_once_for_catalogue_specs_and_epochs(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    original = root_format._open
    monkeypatch.setattr(root_format, "_open", lambda path: opened.append(path) or original(path))
    dataset = mlaas4hep.open(file)
    stream = dataset.stream()
    for _ in range(3):
        assert sum(len(batch.x) for batch in stream) == 300
    assert opened == [str(file)]


def test_a_file_that_changed_is_opened_anew_and_its_change_noticed(file: Path) -> None:
    dataset = mlaas4hep.open(file)
    _ = dataset.specs
    write_tree_file(file, make_events(200, seed=2))
    with pytest.raises(SourceError, match="has changed since it was catalogued"):
        list(dataset.stream())


def test_a_reader_is_kept_as_long_as_its_file_is_the_same(file: Path) -> None:
    idle = IdleReaders()
    reader = open_reader(str(file), "Events")
    idle.give(str(file), signature_of(str(file)), reader)
    assert idle.take(str(file)) is reader
    assert idle.take(str(file)) is None
    idle.give(str(file), signature_of(str(file)), reader)
    os.utime(file, (0, 0))
    assert idle.take(str(file)) is None


def test_no_more_than_so_many_are_kept_and_none_when_nobody_wants_them(tmp_path: Path) -> None:
    files = [write_tree_file(tmp_path / f"{n}.root", make_events(10, seed=n)) for n in range(4)]
    idle = IdleReaders(limit=2)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for path in files:
        idle.give(str(path), signature_of(str(path)), open_reader(str(path), "Events"))
    assert [idle.take(str(path)) is not None for path in files] == [False, False, True, True]
    for path in files:
        idle.give(str(path), signature_of(str(path)), open_reader(str(path), "Events"))
    del idle
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # noqa: PTH208 - the two that were taken


def test_remote_files_and_those_without_a_signature_are_closed_at_once(file: Path) -> None:
    assert signature_of("root://host//f.root") is None
    assert signature_of(str(file.with_name("nothing.root"))) is None
    idle = IdleReaders()
    idle.give("root://host//f.root", None, open_reader(str(file), "Events"))
    assert idle.take("root://host//f.root") is None


def test_open_files_do_not_travel_to_other_processes(file: Path) -> None:
    idle = IdleReaders(limit=3)
    idle.give(str(file), signature_of(str(file)), open_reader(str(file), "Events"))
    assert pickle.loads(pickle.dumps(idle)).take(str(file)) is None
