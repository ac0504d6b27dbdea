from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from tests.conftest import make_events, write_tree_file

import mlaas4hep
from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.stream.quantities import parse_size

EVENTS = 20_000

PROGRAM = """
import json, sys
import mlaas4hep
files, settings = json.loads(sys.argv[1])
stream = mlaas4hep.open(files, labels=[0, 1] * (len(files) // 2)).stream(**settings)
events = sum(len(batch.x) for batch in stream)
print(events)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two files of two clusters each: much larger ones than fit into a small bound."""
    folder = tmp_path_factory.mktemp("memory")
    columns = make_events(EVENTS, seed=1, widest=30)
    paths = [write_tree_file(folder / f"{name}.root", columns, [EVENTS // 2]) for name in "ab"]
    return [str(path) for path in paths]


def peak_megabytes(files: list[str], **settings: object) -> tuple[float, int]:
    """Run a program that streams an epoch; return the most that all its processes had together, and the events of an epoch."""
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), json.dumps([files, settings])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0.0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, _megabytes(process.pid))
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate(timeout=200)
    watcher.join()
    assert process.returncode == 0
    return peak, int(output)


def long_files(folder: Path, clusters: int) -> list[str]:
    """Write two files of so many clusters of 8000 events, 20 values each on average."""
    columns = make_events(8000, seed=1, widest=20)
    paths = []
    for name in "ab":
        path = folder / f"{name}{clusters}.root"
        with uproot.recreate(path) as file:
            types = {key: a.dtype if isinstance(a, np.ndarray) else ak.type(a).content for key, a in columns.items()}
            file.mktree("Events", types)
            for _ in range(clusters):
                file["Events"].extend(columns)
        paths.append(str(path))
    return paths


@pytest.mark.parametrize(("memory", "workers"), [("300MB", 0), ("780MB", 2)])
def test_a_bound_on_memory_is_kept_however_large_the_input_is(tmp_path: Path, memory: str, workers: int) -> None:
    small, events = peak_megabytes(long_files(tmp_path, 20), memory=memory, workers=workers)
    large, many_events = peak_megabytes(long_files(tmp_path, 200), memory=memory, workers=workers)
    assert many_events == 10 * events
    assert small < 1.2 * parse_size(memory) / 1e6
    assert large < 1.2 * parse_size(memory) / 1e6
    assert large < 1.1 * small


def test_a_bound_below_what_python_itself_takes_is_refused_with_what_would_do(files: list[str]) -> None:
    with pytest.raises(
        SettingError, match=r"setting 'memory' must be at least \d+MB: \d+ MB are taken before .*; got '5MB'"
    ):
        mlaas4hep.open(files, labels=[0, 1]).stream(memory="5MB")


@pytest.mark.parametrize("value", ["much", "", -1, True, "2 GG"])
def test_a_bound_that_is_no_number_of_bytes_is_refused(files: list[str], value: object) -> None:
    with pytest.raises(SettingError, match="setting 'memory' must be a number of bytes with a unit, as in '20GB'"):
        mlaas4hep.open(files, labels=[0, 1]).stream(memory=value)


def test_an_epoch_goes_on_when_less_memory_is_free_than_before(files: list[str]) -> None:
    dataset = mlaas4hep.open(files, labels=[0, 1])
    taken = int(_megabytes_of("self"))
    first = dataset.stream(memory=f"{taken + 400}MB", batch_size=1000)
    batches = iter(first)
    before = [next(batches).id.copy() for _ in range(5)]
    state = first.state_dict()
    rest = [batch.id.copy() for batch in batches]
    second = dataset.stream(memory=f"{taken + 130}MB", batch_size=1000)
    assert second.settings.pool_bytes < first.settings.pool_bytes
    second.load_state_dict(state)
    np.testing.assert_array_equal(np.concatenate([batch.id.copy() for batch in second]), np.concatenate(rest))
    assert len(np.concatenate(before + rest)) == 2 * EVENTS


def test_a_cluster_that_is_too_large_is_read_in_parts(files: list[str]) -> None:
    catalog = mlaas4hep.open(files, labels=[0, 1]).catalog
    whole, parts = (catalog.runs(100_000, split=split) for split in (False, True))
    assert [run.events for run in whole] == [EVENTS // 2] * 4
    assert max(run.events for run in parts) * catalog.bytes_per_event() < 110_000
    for file in range(2):
        bounds = [bound for run in parts if run.file == file for bound in (run.start, run.stop)]
        assert (bounds[0], bounds[-1]) == (0, EVENTS)
        assert bounds[1:-1:2] == bounds[2::2]


def _megabytes(root: int) -> float:
    """What a process and its descendants have, without mapped files; shared memory counts once."""
    processes = [root]
    for process in processes:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            processes.extend(int(child) for child in _text(task).split())
    shared = max(_megabytes_of(process, "RssShmem") for process in processes)
    return shared + sum(_megabytes_of(process) for process in processes)


def _megabytes_of(process: int | str, what: str = "RssAnon") -> float:
    lines = dict(line.split(":", 1) for line in _text(Path(f"/proc/{process}/status")).splitlines() if ":" in line)
    return int(lines.get(what, "0 kB").split()[0]) * 1024 / 1e6


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
