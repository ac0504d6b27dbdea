"""Bad files and bad servers: every wait ends, no event comes twice, none is missing without being reported."""

from __future__ import annotations

import gc
import json
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import make_events, write_tree_file
from tests.streaming.servers import XRootDServer, free_port, require_xrootd

import mlaas4hep
from mlaas4hep.errors import BranchesDifferError, SettingError, SourceError, TreeNotFoundError
from mlaas4hep.streaming.access.faults import Faults
from mlaas4hep.streaming.access.losses import Loss, LossReport
from mlaas4hep.streaming.access.retry import RetryPolicy
from mlaas4hep.streaming.dataset import Dataset
from mlaas4hep.streaming.formats.root import RootReader
from mlaas4hep.streaming.stream.stream import EventStream

CLUSTERS = list(range(50, 3000, 50))
SMALL = {"run_bytes": 3000, "pool_bytes": 20_000, "batch_size": 100}
"""Many runs, so that most of them are still to be read when something happens."""

QUICK = RetryPolicy(attempts=2, first_wait=0.1)


def delivered(
    stream: EventStream, after: int = 0, happens: Callable[[], object] | None = None
) -> Counter[tuple[int, int]]:
    """Read an epoch; after some batches something happens."""
    found: Counter[tuple[int, int]] = Counter()
    for number, batch in enumerate(stream, start=1):
        found.update(zip(batch.id["file"].tolist(), batch.id["entry"].tolist(), strict=True))
        if number == after and happens is not None:
            happens()
    return found


def everything(*entries: int) -> Counter[tuple[int, int]]:
    return Counter((file, entry) for file, events in enumerate(entries) for entry in range(events))


def lost(report: LossReport, files: tuple[str, ...]) -> Counter[tuple[int, int]]:
    """Every lost event; one that was reported twice counts twice."""
    return Counter(
        (files.index(loss.file), entry) for loss in report for entry in range(loss.start, loss.stop or loss.start)
    )


# Servers


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits of the client that a test can wait for."""
    for name, seconds in {
        "CONNECTIONWINDOW": 1,
        "CONNECTIONRETRY": 1,
        "REQUESTTIMEOUT": 2,
        "STREAMTIMEOUT": 2,
        "STREAMERRORWINDOW": 1,
    }.items():
        monkeypatch.setenv(f"XRD_{name}", str(seconds))


@pytest.fixture
def servers(limits: None) -> Iterator[tuple[XRootDServer, XRootDServer]]:
    require_xrootd()
    running = XRootDServer(), XRootDServer()
    yield running
    for server in running:
        server.go_on()
        server.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree_file(tmp_path_factory.mktemp("source") / "f.root", make_events(3000, seed=1), CLUSTERS)


@pytest.mark.parametrize("url", ["root://no.such.host.invalid//store/f.root", "http://no.such.host.invalid/f.root"])
def test_a_host_that_is_not_known_is_an_error_of_one_line(limits: None, url: str) -> None:
    with pytest.raises(SourceError, match=r"no\.such\.host\.invalid.*f\.root: it cannot be opened") as error:
        mlaas4hep.open(url, retry=QUICK)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scheme", ["root", "http"])
def test_a_connection_that_is_refused_is_an_error_of_one_line(limits: None, scheme: str) -> None:
    with pytest.raises(SourceError, match=r"f\.root: it cannot be opened") as error:
        mlaas4hep.open(f"{scheme}://127.0.0.1:{free_port()}//f.root", retry=QUICK)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scheme", ["root", "http"])
def test_a_server_that_never_answers_is_given_up(limits: None, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAAS4HEP_HTTP_TIMEOUT", "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}//f.root"
        with pytest.raises(SourceError, match=r"f\.root: it cannot be opened"):
            mlaas4hep.open(url, retry=RetryPolicy(attempts=1))


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_server_that_goes_away_while_reading_is_an_error(
    servers: tuple[XRootDServer, XRootDServer], file: Path, fault: str
) -> None:
    dataset = mlaas4hep.open(servers[0].add(file), retry=QUICK)
    stream = dataset.stream(**SMALL)
    before = set(threading.enumerate())
    with pytest.raises(SourceError, match=r"store/f\.root: "):
        delivered(stream, 3, getattr(servers[0], fault))
    assert set(threading.enumerate()) <= before | {t for t in threading.enumerate() if "fsspec" in t.name}


@pytest.mark.parametrize("fault", ["kill", "pause"])
@pytest.mark.parametrize("policy", ["skip", "quarantine"])
def test_what_a_dead_server_had_is_reported_and_nothing_else(
    servers: tuple[XRootDServer, XRootDServer], tmp_path: Path, policy: str, fault: str
) -> None:
    # Twelve runs, of which at most half are under way at any time; each of the others waits for the server in vain.
    paths = [
        write_tree_file(tmp_path / f"{name}.root", make_events(3000, seed=2), range(250, 3000, 250)) for name in "ab"
    ]
    retry = RetryPolicy(attempts=1)
    dataset = mlaas4hep.open([servers[0].add(paths[0]), paths[1]], on_bad_file=policy, retry=retry)
    _ = dataset.specs
    stream = dataset.stream(**SMALL | {"run_bytes": 1}, shuffle=False)
    found = delivered(stream, 1, getattr(servers[0], fault))
    assert stream.losses.events > 0
    assert found + lost(stream.losses, dataset.files) == everything(3000, 3000)
    assert stream.losses.files == (dataset.files[0],)
    assert (dataset.files[0] in dataset.catalog.faults.quarantined) == (policy == "quarantine")


def test_an_epoch_goes_on_when_the_server_is_back_after_three_seconds(
    servers: tuple[XRootDServer, XRootDServer], file: Path
) -> None:
    server = servers[0]
    dataset = mlaas4hep.open(server.add(file), retry=RetryPolicy(attempts=8, first_wait=0.5, longest_wait=1))
    stream = dataset.stream(**SMALL)
    restart = threading.Timer(3.0, server.start)

    def crash() -> None:
        server.kill()
        restart.start()

    try:
        assert delivered(stream, 3, crash) == everything(3000)
    finally:
        restart.join(20)
    assert len(stream.losses) == 0
    assert delivered(stream) == everything(3000)


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_the_next_redirector_takes_over_in_the_middle_of_an_epoch(
    servers: tuple[XRootDServer, XRootDServer], file: Path, fault: str
) -> None:
    for server in servers:
        server.add(file)
    redirectors = [server.url for server in servers]
    dataset = mlaas4hep.open("/store/f.root", redirector=redirectors, retry=RetryPolicy(attempts=1))
    _ = dataset.specs
    stream = dataset.stream(**SMALL)
    assert delivered(stream, 3, getattr(servers[0], fault)) == everything(3000)
    assert len(stream.losses) == 0
    assert dataset.files == (f"{servers[0].url}/store/f.root",)


def test_a_file_that_only_the_second_redirector_has_is_found(
    servers: tuple[XRootDServer, XRootDServer], file: Path
) -> None:
    servers[1].add(file)
    redirector = ",".join(server.url for server in servers)
    assert mlaas4hep.open("/store/f.root", redirector=redirector, retry=QUICK).events == 3000
    with pytest.raises(SourceError, match=r"it cannot be had from any of 2 places: .*\[3011\].*\[3011\]"):
        mlaas4hep.open("/store/g.root", redirector=redirector, retry=QUICK)


def test_a_remote_file_that_was_replaced_is_noticed(servers: tuple[XRootDServer, XRootDServer], file: Path) -> None:
    dataset = mlaas4hep.open(servers[0].add(file), retry=QUICK)
    _ = dataset.specs
    servers[0].add(write_tree_file(file.with_name("other.root"), make_events(3000, seed=9), CLUSTERS), "f.root")
    with pytest.raises(SourceError, match="has changed since it was catalogued"):
        list(dataset.stream())


# Files


def test_a_file_that_was_replaced_between_catalogue_and_read_is_a_loss(tmp_path: Path, file: Path) -> None:
    paths = [tmp_path / "a.root", tmp_path / "b.root"]
    for path in paths:
        shutil.copyfile(file, path)
    dataset = mlaas4hep.open(paths, on_bad_file="skip")
    _ = dataset.specs
    write_tree_file(paths[1], make_events(3000, seed=9), CLUSTERS)
    stream = dataset.stream(**SMALL)
    found = delivered(stream)
    assert found == everything(3000)
    assert found + lost(stream.losses, dataset.files) == everything(3000, 3000)
    assert all("has changed since it was catalogued" in loss.reason for loss in stream.losses)


def test_a_file_of_another_size_is_not_the_one_that_was_catalogued(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "a.root"
    shutil.copyfile(file, path)
    dataset = mlaas4hep.open(path)
    _ = dataset.specs
    with path.open("ab") as longer:
        longer.write(b"more")
    with pytest.raises(SourceError, match=r"has changed since it was catalogued: uuid .* bytes; it had"):
        list(dataset.stream())


def damaged(tmp_path: Path, file: Path) -> Dataset:
    """Two files; the first lacks what its tree says is in the middle, but opens."""
    path = tmp_path / "damaged.root"
    shutil.copyfile(file, path)
    whole = tmp_path / "whole.root"
    shutil.copyfile(file, whole)
    dataset = mlaas4hep.open([path, whole], on_bad_file="skip")
    data = bytearray(path.read_bytes())
    # The key of one basket of one branch, about in the middle: its length becomes absurd.
    import uproot

    with uproot.open(path) as opened:
        seek = int(opened["Events"]["MET_pt"].member("fBasketSeek")[30])
    data[seek : seek + 4] = b"\x7f\xff\xff\xff"
    path.write_bytes(data)
    return dataset


def test_skip_loses_only_the_runs_that_are_damaged(tmp_path: Path, file: Path) -> None:
    dataset = damaged(tmp_path, file)
    for shuffle in (True, False):
        stream = dataset.stream(shuffle=shuffle, **SMALL)
        for _ in range(2):
            found = delivered(stream)
            assert 0 < stream.losses.events < 300
            assert found + lost(stream.losses, dataset.files) == everything(3000, 3000)
            assert stream.losses.files == dataset.files[:1]
    assert dataset.losses.events_of(dataset.files[0]) > 0
    assert sum(dataset.specs.file_events.values()) == 6000 - dataset.losses.events


def test_the_order_of_what_is_left_follows_from_the_seed(tmp_path: Path, file: Path) -> None:
    dataset = damaged(tmp_path, file)
    one, two = ([batch.id.copy() for batch in dataset.stream(seed=5, **SMALL)] for _ in range(2))
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(two))


def test_quarantine_loses_every_later_run_of_the_file(tmp_path: Path, file: Path) -> None:
    dataset = damaged(tmp_path, file)
    _ = dataset.specs
    dataset.catalog.faults.on_bad_file = "quarantine"
    stream = dataset.stream(shuffle=False, **SMALL)
    found = delivered(stream)
    assert found + lost(stream.losses, dataset.files) == everything(3000, 3000)
    first = min(loss.start for loss in stream.losses)
    assert 0 < first < 2000
    assert max(loss.stop or 0 for loss in stream.losses) == 3000
    assert stream.losses.events == 3000 - first
    again = delivered(stream)
    assert again == Counter((1, entry) for entry in range(3000))
    assert stream.losses.events == 3000


def test_a_file_that_cannot_be_opened_is_lost_as_a_whole(tmp_path: Path, file: Path) -> None:
    paths = [tmp_path / f"{name}.root" for name in "abcd"]
    paths[0].write_bytes(b"")
    shutil.copyfile(file, paths[1])
    paths[2].write_bytes(file.read_bytes()[:1000])
    write_tree_file(paths[3], {"other": np.arange(10)})
    dataset = mlaas4hep.open(paths, on_bad_file="skip")
    assert dataset.files == (str(paths[1]),)
    assert dataset.losses.whole_files == (str(paths[0]), str(paths[2]), str(paths[3]))
    assert delivered(dataset.stream()) == everything(3000)
    with pytest.raises(SourceError, match="the file is empty"):
        mlaas4hep.open(paths)
    with pytest.raises(BranchesDifferError, match=r"d\.root does not match"):
        mlaas4hep.open([paths[1], paths[3]])


def test_labels_stay_with_their_files_when_one_is_lost(tmp_path: Path, file: Path) -> None:
    paths = [tmp_path / f"{name}.root" for name in "abc"]
    paths[0].write_bytes(b"")
    shutil.copyfile(file, paths[1])
    write_tree_file(paths[2], make_events(400, seed=5))
    dataset = mlaas4hep.open(paths, labels=["signal", "background", "signal"], on_bad_file="skip")
    for batch in dataset.stream():
        assert [dataset.classes[y] for y in batch.y] == [("background", "signal")[f] for f in batch.id["file"]]


def test_where_no_file_is_left_the_first_error_is_raised(tmp_path: Path) -> None:
    path = write_tree_file(tmp_path / "a.root", make_events(10, seed=5))
    with pytest.raises(TreeNotFoundError, match="no tree 'Nothing'"):
        mlaas4hep.open([path, tmp_path / "missing.root"], tree="Nothing", on_bad_file="skip")


def test_a_scan_that_can_read_nothing_is_an_error(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "a.root"
    shutil.copyfile(file, path)
    dataset = mlaas4hep.open(path, on_bad_file="skip")
    path.unlink()
    with pytest.raises(SourceError, match="no event of any file can be read: no such file"):
        _ = dataset.specs


COPIES = 500


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Some damage sends uproot into recursion up to Python's limit; garbage of other tests must not be finalised down there."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage")
def test_five_hundred_corrupted_copies_give_every_event_or_its_loss(tmp_path: Path) -> None:
    generator = np.random.default_rng(20)
    entries = 120
    original = write_tree_file(tmp_path / "original.root", make_events(entries, seed=3), [40, 80])
    whole = original.read_bytes()
    paths = [original]
    for number in range(COPIES):
        data = bytearray(whole)
        if number % 4 == 0:
            del data[int(generator.integers(0, len(data))) :]
        else:
            for _ in range(int(generator.integers(1, 4))):
                data[int(generator.integers(0, len(data)))] ^= int(generator.integers(1, 256))
        paths.append(tmp_path / f"{number:03}.root")
        paths[-1].write_bytes(data)
    dataset = mlaas4hep.open(paths, on_bad_file="skip")
    encoding = mlaas4hep.open(original).encoding
    stream = dataset.stream(encoding=encoding, run_bytes=1500)
    found = delivered(stream)
    # What was catalogued: everything or its loss, exactly once. What was not: named as a whole.
    catalogued = everything(*(file.entries for file in dataset.catalog.files))
    assert found + lost(stream.losses, dataset.files) == catalogued
    assert {file.entries for file in dataset.catalog.files} == {entries}
    assert set(dataset.losses.whole_files).isdisjoint(dataset.files)
    assert {*dataset.losses.whole_files, *dataset.files} == {str(path) for path in paths}
    assert len(dataset.losses.whole_files) > 20
    assert len(stream.losses.files) > COPIES / 10  # a file that is cut off is refused when it is opened


def test_a_flipped_byte_in_a_page_of_an_rntuple_is_an_error(tmp_path: Path) -> None:
    original = Path(__file__).parents[2] / "data" / "Run2012BC_DoubleMuParked_Muons_1000evts_rntuple_v1-0-0-0.root"
    reader = RootReader(str(original), "Events")
    names = list(reader.columns)
    pages = [page.locator for column in reader._source.page_link_list[0] for page in column.pages]
    reader.close()
    generator = np.random.default_rng(4)
    for page in pages:
        data = bytearray(original.read_bytes())
        data[int(generator.integers(page.offset, page.offset + page.num_bytes))] ^= 1
        (tmp_path / "f.root").write_bytes(data)
        damaged = RootReader(str(tmp_path / "f.root"), "Events")
        with pytest.raises(SourceError, match=rf"the checksum of the page at byte {page.offset} is wrong"):
            damaged.read(0, 1000, names)
        damaged.close()
    assert len(pages) == 6


# Rules


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_bad_file": "ignore"}, "setting 'on_bad_file' must be 'fail', 'skip' or 'quarantine'; got 'ignore'"),
        ({"retry": 3}, "setting 'retry' must be a RetryPolicy; got 3"),
    ],
)
def test_a_rule_that_is_none_is_named(file: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        mlaas4hep.open(file, **settings)


@pytest.mark.parametrize(
    "settings", [{"attempts": 0}, {"first_wait": -1.0}, {"jitter": 2.0}, {"total_time": float("nan")}]
)
def test_a_policy_that_cannot_be_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=f"setting 'retry.{next(iter(settings))}' must be"):
        RetryPolicy(**settings)  # type: ignore[arg-type]


@given(
    st.integers(1, 12), st.floats(0, 100), st.floats(0, 100), st.floats(0, 1), st.integers(0, 1000), st.text(max_size=5)
)
def test_waits_grow_up_to_the_longest_and_follow_from_the_seed(
    attempts: int, first: float, longest: float, jitter: float, seed: int, name: str
) -> None:
    policy = RetryPolicy(attempts=attempts, first_wait=first, longest_wait=longest, jitter=jitter, seed=seed)
    waits = list(policy.waits(name))
    assert waits == list(policy.waits(name))
    assert len(waits) == attempts
    assert waits[0] == 0
    for number, wait in enumerate(waits[1:]):
        full = min(first * 2**number, longest)
        assert full * (1 - jitter) * (1 - 1e-12) <= wait <= full


def test_no_attempt_begins_after_the_total_time() -> None:
    policy = RetryPolicy(attempts=1000, first_wait=0.05, longest_wait=0.05, jitter=0, total_time=0.2)
    assert 2 <= len(list(policy.attempts_at("f"))) <= 5


def test_only_faults_that_may_pass_are_tried_again() -> None:
    faults = Faults(retry=RetryPolicy(attempts=4, first_wait=0))
    for cause, expected in [(OSError("expired"), 4), (OSError("[3011] no such file"), 1), (ValueError("bad"), 1)]:
        tried = []

        def action(location: str, cause: Exception = cause, tried: list[str] = tried) -> None:
            tried.append(location)
            raise SourceError(location, "fault") from cause

        with pytest.raises(SourceError, match="fault"):
            faults.attempt(["root://host//f.root"], action)
        assert len(tried) == expected


def test_hosts_that_failed_are_asked_last_from_then_on() -> None:
    faults = Faults(retry=RetryPolicy(attempts=1))
    asked: list[str] = []

    def action(location: str) -> str:
        asked.append(location)
        if "dead" in location:
            raise SourceError(location, "fault") from OSError("expired")
        return location

    for name in "ab":
        places = [f"root://dead//{name}.root", f"root://live//{name}.root"]
        assert faults.attempt(places, action) == places[1]
    assert asked == ["root://dead//a.root", "root://live//a.root", "root://live//b.root"]


spans = st.builds(
    lambda file, start, events: Loss(file, start, start + events, "x"),
    st.sampled_from("ab"),
    st.integers(0, 20),
    st.integers(1, 20),
)


@given(st.lists(spans, max_size=12))
def test_a_report_counts_every_lost_event_once(losses: list[Loss]) -> None:
    report = LossReport(losses + losses)
    assert report.events == len({(loss.file, entry) for loss in losses for entry in range(loss.start, loss.stop or 0)})
    assert json.loads(report.to_json())["events"] == report.events
    assert len(str(report).splitlines()) == (len(set(losses)) + 2 if losses else 1)
