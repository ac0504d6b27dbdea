"""Files behind XRootD and HTTP servers give what local files give."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import make_events, write_tree_file
from tests.streaming.servers import XRootDServer, http_server, require_xrootd

import mlaas4hep
from mlaas4hep.errors import SourceError, TreeNotFoundError
from mlaas4hep.streaming.formats import open_reader
from mlaas4hep.streaming.formats.root import RootReader
from mlaas4hep.streaming.formats.root_remote import XROOTD_LIMITS

CLUSTERS = [40, 100, 333, 334, 900, 1490]
RNTUPLE = Path(__file__).parents[2] / "data" / "Run2012BC_DoubleMuParked_Muons_1000evts_rntuple_v1-0-0-0.root"


@pytest.fixture(scope="module")
def server() -> Iterator[XRootDServer]:
    require_xrootd()
    running = XRootDServer()
    yield running
    running.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a TTree and an RNTuple."""
    folder = tmp_path_factory.mktemp("served")
    write_tree_file(folder / "tree.root", make_events(2000, seed=1), CLUSTERS)
    shutil.copyfile(RNTUPLE, folder / "ntuple.root")
    return folder


def assert_same(remote: RootReader, local: RootReader) -> None:
    assert (remote.uuid, remote.entries, remote.size) == (local.uuid, local.entries, local.size)
    assert remote.columns == local.columns
    assert remote.skipped == local.skipped
    names = list(local.columns)
    np.testing.assert_array_equal(remote.clusters(names), local.clusters(names))
    for start, stop in [(0, local.entries), (7, 350), (local.entries - 1, local.entries)]:
        expected = local.read(start, stop, names)
        for name, column in remote.read(start, stop, names).items():
            np.testing.assert_array_equal(column.content, expected[name].content)
            np.testing.assert_array_equal(column.offsets, expected[name].offsets)


@pytest.mark.parametrize(("name", "tree"), [("tree.root", "Events"), ("ntuple.root", "Events")])
def test_a_file_behind_xrootd_gives_what_the_local_file_gives(
    server: XRootDServer, folder: Path, name: str, tree: str
) -> None:
    remote, local = RootReader(server.add(folder / name), tree), RootReader(str(folder / name), tree)
    assert_same(remote, local)
    remote.close()
    local.close()


@pytest.mark.parametrize(("name", "tree"), [("tree.root", "Events"), ("ntuple.root", "Events")])
def test_a_file_behind_http_gives_what_the_local_file_gives(folder: Path, name: str, tree: str) -> None:
    with http_server(folder) as (url, _):
        remote, local = RootReader(f"{url}/{name}", tree), RootReader(str(folder / name), tree)
        assert_same(remote, local)
        remote.close()
        local.close()


def test_an_epoch_over_xrootd_is_the_local_epoch_to_the_bit(server: XRootDServer, folder: Path) -> None:
    local = mlaas4hep.open(folder / "tree.root")
    remote = mlaas4hep.open(server.add(folder / "tree.root"))
    settings = {"batch_size": 100, "run_bytes": 4000, "pool_bytes": 40_000, "seed": 3}
    batches = list(zip(remote.stream(**settings), local.stream(**settings), strict=True))
    assert len(batches) == 20
    for batch, expected in batches:
        for array, truth in zip(batch, expected, strict=True):
            np.testing.assert_array_equal(array, truth)


def test_a_read_of_one_branch_is_one_request_and_fetches_little_else(
    server: XRootDServer, higgs_files: list[str]
) -> None:
    reader = RootReader(server.add(higgs_files[0]), "Events")
    source = reader._file.file.source
    reader.read(0, 10, ["MET_pt"])
    requests = source.num_requests, source.num_requested_bytes
    reader.read(0, reader.entries, ["MET_pt"])
    asked = source.num_requests - requests[0], source.num_requested_bytes - requests[1]
    assert asked[0] == 1
    assert asked[1] < reader.size / 20
    reader.close()


def test_runs_that_follow_are_asked_for_before_they_are_read(server: XRootDServer, folder: Path) -> None:
    reader = RootReader(server.add(folder / "tree.root"), "Events")
    source = reader._file.file.source
    before = source.num_requests
    reader.prefetch(0, 333, ["MET_pt", "Jet_pt"])
    reader.prefetch(0, 333, ["MET_pt", "Jet_pt"])
    assert source.num_requests == before + 1
    column = reader.read(0, 333, ["MET_pt", "Jet_pt"])["MET_pt"]
    assert source.num_requests == before + 1
    assert len(column.content) == 333
    reader.close()


def test_over_http_only_ranges_are_read(folder: Path, tmp_path: Path, higgs_files: list[str]) -> None:
    shutil.copyfile(higgs_files[0], tmp_path / "f.root")
    with http_server(tmp_path) as (url, server):
        reader = RootReader(f"{url}/f.root", "Events")
        before = len(server.ranges)
        reader.read(0, reader.entries, ["MET_pt"])
        asked = server.ranges[before:]
        reader.close()
    assert asked
    assert all(asked)
    assert sum(int(last) + 1 - int(first) for first, last in (pair for pair in asked if pair)) < reader.size / 10


def test_what_is_missing_on_a_server_is_named(server: XRootDServer, folder: Path) -> None:
    with pytest.raises(SourceError, match=r"store/missing\.root: it cannot be opened as a ROOT file: .*\[3011\]"):
        open_reader(f"{server.url}/store/missing.root", "Events")
    with pytest.raises(TreeNotFoundError, match=r"no tree 'events' in root://.*; it holds 'Events'"):
        open_reader(server.add(folder / "tree.root"), "events")
    with http_server(folder) as (url, _), pytest.raises(SourceError, match=r"missing\.root: it cannot be opened"):
        open_reader(f"{url}/missing.root", "Events")


@pytest.mark.parametrize("imported_before", [True, False])
def test_the_clients_time_limits_hold_even_when_it_was_imported_before(
    server: XRootDServer, folder: Path, imported_before: bool
) -> None:
    url = server.add(folder / "tree.root")
    program = f"""
import os
from warnings import filterwarnings
filterwarnings("ignore", category=FutureWarning)
{"import XRootD.client" if imported_before else ""}
os.environ["XRD_REQUESTTIMEOUT"] = "17"
from mlaas4hep.streaming.formats import open_reader
open_reader({url!r}, "Events").close()
from XRootD.client import EnvGetInt
print({{name: EnvGetInt(name) for name in {list(XROOTD_LIMITS)}}})
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == str(XROOTD_LIMITS | {"RequestTimeout": 17}), result.stderr
