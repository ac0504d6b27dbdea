from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import make_events, write_tree_file
from tests.streaming.servers import XRootDServer, require_xrootd

import mlaas4hep
from mlaas4hep.errors import LabelError, SettingError, SourceError
from mlaas4hep.streaming.access import sources
from mlaas4hep.streaming.access.checksums import Checksums
from mlaas4hep.streaming.access.sources import SourceFile, expand_files, find_files

DATASET = "/VBF_HToTauTau/Run2-v1/NANOAODSIM"


def test_a_tree_can_be_named_behind_the_file() -> None:
    assert find_files("root://host:1094//data/f.root:analysis/Events") == [
        SourceFile("root://host:1094//data/f.root", "analysis/Events")
    ]
    assert find_files("/data/f.root:/Runs") == [SourceFile("/data/f.root", "Runs")]
    assert find_files("root://host:1094//data/f.root") == [SourceFile("root://host:1094//data/f.root")]


def test_each_file_is_read_from_its_own_tree(tmp_path: Path) -> None:
    one = write_tree_file(tmp_path / "a.root", make_events(100, seed=1), tree="signal")
    two = write_tree_file(tmp_path / "b.root", make_events(50, seed=2), tree="background")
    dataset = mlaas4hep.open([f"{one}:signal", f"{two}:background"], labels=[1, 0])
    assert sum(len(batch.x) for batch in dataset.stream()) == 150
    assert dataset.files == (str(one), str(two))


def test_two_trees_of_one_file_are_two_sources(tmp_path: Path) -> None:
    path = write_tree_file(tmp_path / "a.root", make_events(30, seed=1))
    assert len(find_files([f"{path}:one", f"{path}:two"])) == 2
    with pytest.raises(SourceError, match="is listed twice; its events would count twice"):
        find_files([f"{path}:one", f"{path}:one"])


def test_a_tree_behind_a_pattern_or_folder_of_files_is_that_of_each(tmp_path: Path) -> None:
    paths = [write_tree_file(tmp_path / f"{name}.root", make_events(5, seed=1)) for name in "ab"]
    assert find_files(f"{tmp_path}/*.root:Runs") == [SourceFile(str(path), "Runs") for path in paths]


def test_a_file_whose_name_holds_a_colon_is_itself(tmp_path: Path) -> None:
    path = write_tree_file(tmp_path / "a.root:b", make_events(5, seed=1))
    assert find_files(str(path)) == [SourceFile(str(path))]


@pytest.mark.parametrize("redirector", ["root://one/,root://two", ["root://one", "root://two/"]])
def test_a_logical_name_has_one_place_for_each_redirector_in_order(redirector: str | list[str]) -> None:
    (file,) = find_files("/store/data/f.root", redirector)
    assert (file.path, file.alternatives) == ("root://one//store/data/f.root", ("root://two//store/data/f.root",))
    assert expand_files("/store/data/f.root:Runs", redirector) == ["/store/data/f.root:Runs"]


@given(st.sampled_from(["/data/f.root", "root://h//f.root", "/store/f.root"]), st.sampled_from(["", ":T", ":d/T"]))
def test_the_name_of_a_source_means_the_same_source(path: str, tree: str) -> None:
    for redirector in ("root://one", "root://one,root://two"):
        (found,) = find_files(path + tree, redirector)
        (again,) = find_files(found.name, redirector)
        assert (again.path, again.tree, again.alternatives) == (found.path, found.tree, found.alternatives)


def dasgoclient(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an executable of that name on the PATH."""
    program = folder / "bin" / "dasgoclient"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_a_dataset_has_the_files_that_dasgoclient_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f'[ "$1" = "-query=file dataset={DATASET}" ] && printf "/store/mc/one.root\\n/store/mc/two.root\\n"'
    dasgoclient(tmp_path, script, monkeypatch)
    assert expand_files(f"das:{DATASET}", "root://host") == [
        "root://host//store/mc/one.root",
        "root://host//store/mc/two.root",
    ]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no proxy >&2; exit 3", "dasgoclient names no file of it: no proxy"),
        ("exit 0", "dasgoclient names no file of it: no file"),
        ("exec sleep 30", "dasgoclient gave no answer: .* timed out"),
    ],
)
def test_a_dasgoclient_that_fails_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    monkeypatch.setattr(sources, "DAS_SECONDS", 0.5)
    dasgoclient(tmp_path, script, monkeypatch)
    with pytest.raises(SourceError, match=message):
        find_files(f"das:{DATASET}")


def test_without_dasgoclient_a_dataset_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SourceError, match="dasgoclient, which knows the files of a dataset, is not on the PATH"
    ) as error:
        find_files(f"das:{DATASET}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["das:/A/B", "das:A/B/C", "das:/A/B/C; rm -rf x", "das:", "das:/A/B/*"])
def test_what_is_no_name_of_a_dataset_never_reaches_dasgoclient(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dasgoclient(tmp_path, f"touch {tmp_path}/called; echo /store/f.root", monkeypatch)
    with pytest.raises(SourceError, match="a dataset is written das:/Primary/Processed/TIER"):
        find_files([name])
    assert not (tmp_path / "called").exists()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def adler32(path: Path) -> str:
    return f"{zlib.adler32(path.read_bytes()):08x}"


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [write_tree_file(tmp_path / f"{name}.root", make_events(200, seed=i)) for i, name in enumerate("ab")]


def test_files_that_fit_their_checksums_are_read(two: list[Path], tmp_path: Path) -> None:
    listing = tmp_path / "SUMS"
    listing.write_text(f"# of both\n{sha256(two[0])} *{two[0]}\n{adler32(two[1]).upper()} elsewhere/b.root\n")
    assert mlaas4hep.open(two, checksums=listing).events == 400


@pytest.mark.parametrize("digest", [sha256, adler32])
def test_a_flipped_bit_that_the_file_does_not_show_is_caught_by_its_checksum(
    two: list[Path], tmp_path: Path, digest: object
) -> None:
    listing = tmp_path / "SUMS"
    listing.write_text("".join(f"{digest(path)}  {path.name}\n" for path in two))  # type: ignore[operator]
    data = bytearray(two[1].read_bytes())
    data[len(data) // 2] ^= 1
    two[1].write_bytes(data)
    with pytest.raises(
        SourceError, match=r"b\.root: its (sha256|adler32) is [0-9a-f]+; by .*SUMS it must be [0-9a-f]+"
    ):
        mlaas4hep.open(two, checksums=listing)
    dataset = mlaas4hep.open(two, checksums=listing, on_bad_file="skip")
    assert dataset.files == (str(two[0]),)
    assert dataset.losses.whole_files == (str(two[1]),)


def test_each_file_is_verified_once(two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = tmp_path / "SUMS"
    listing.write_text("".join(f"{sha256(path)}  {path.name}\n" for path in two))
    verified = []
    verify = Checksums.verify
    monkeypatch.setattr(
        Checksums, "verify", lambda self, path, name=None: (verified.append(path), verify(self, path, name))
    )
    list(mlaas4hep.open(two, checksums=listing).stream())
    assert verified == [str(path) for path in two]


def test_a_file_without_a_checksum_does_not_pass_for_a_verified_one(two: list[Path], tmp_path: Path) -> None:
    listing = tmp_path / "SUMS"
    listing.write_text(f"{sha256(two[0])}  a.root\n")
    with pytest.raises(SourceError, match=r"b\.root: has no checksum in .*SUMS"):
        mlaas4hep.open(two, checksums=listing)
    listing.write_text(f"{sha256(two[0])}  x/a.root\n{sha256(two[1])}  y/a.root\n")
    with pytest.raises(SourceError, match=r"a\.root: has several possible checksums, and none with its full name"):
        mlaas4hep.open(two[0], checksums=listing)


def test_a_list_of_checksums_that_is_none_is_refused_with_its_line(two: list[Path], tmp_path: Path) -> None:
    listing = tmp_path / "SUMS"
    listing.write_text(f"{sha256(two[0])}  a.root\nmd5 b.root\n")
    with pytest.raises(SettingError, match=r"lines of a sha256 or adler32 .* got 'md5 b\.root' \(.*SUMS, line 2\)"):
        Checksums.read(listing)
    listing.write_text(f"{sha256(two[0])}  a.root\n{sha256(two[1])}  a.root\n")
    with pytest.raises(SettingError, match="one checksum for each file"):
        Checksums.read(listing)
    with pytest.raises(SourceError, match="cannot be read as a list of checksums"):
        Checksums.read(tmp_path / "missing")


def test_a_class_that_lost_all_its_files_is_named(two: list[Path]) -> None:
    two[1].write_bytes(b"root")
    with pytest.raises(LabelError, match="no file with the label '0' could be opened"):
        mlaas4hep.open(two, labels=[1, 0], on_bad_file="skip")


def test_a_folder_gives_every_file_that_can_be_read_sorted(tmp_path: Path) -> None:
    for name in ("b.root", "a.parquet", "c.csv.gz", "d.JSONL", "e.h5", "notes.txt", "f.root.gz", "Makefile"):
        (tmp_path / name).touch()
    (tmp_path / "inner.root").mkdir()
    expected = ["a.parquet", "b.root", "c.csv.gz", "d.JSONL", "e.h5"]
    assert expand_files(tmp_path) == expand_files(f"{tmp_path}/") == [str(tmp_path / name) for name in expected]


def test_a_folder_without_any_file_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"the folder holds no file that can be read \(\.root, .*\); a pattern"):
        expand_files(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"\), only 1 others; a pattern takes any"):
        expand_files(tmp_path)
    assert expand_files(f"{tmp_path}/*.txt") == [f"{tmp_path}/notes.txt"]


@pytest.mark.parametrize("way", ["list", "folder", "pattern", "text file"])
def test_twenty_thousand_names_are_found_with_few_looks_at_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    paths = [str(folder / f"{index:05}.root") for index in range(20_000)]
    for path in paths:
        os.close(os.open(path, os.O_CREAT))
    (tmp_path / "names.txt").write_text("\n".join(paths))
    names = {"list": paths, "folder": folder, "pattern": f"{folder}/*.root", "text file": str(tmp_path / "names.txt")}
    looks = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda *args, **kwargs: (looks.append(args), stat(*args, **kwargs))[1])
    found = find_files(names[way])  # type: ignore[arg-type]
    monkeypatch.undo()
    assert [file.path for file in found] == paths
    assert len(looks) <= 3 * len(paths)


def test_folders_and_patterns_on_an_xrootd_server_are_listed(tmp_path: Path) -> None:
    require_xrootd()
    server = XRootDServer()
    try:
        (tmp_path / "x").write_text("x")
        for name in ("b.root", "a.root", "c.parquet", "notes.txt"):
            server.add(tmp_path / "x", name)
        url = f"{server.url}/store"
        assert expand_files(f"{url}/") == [f"{url}/a.root", f"{url}/b.root", f"{url}/c.parquet"]
        assert expand_files(f"{url}/*.root:Runs") == [f"{url}/a.root:Runs", f"{url}/b.root:Runs"]
        one, two = find_files("/store/*.root", ["root://127.0.0.1:1", server.url])
        assert (one.logical_name, two.logical_name) == ("/store/a.root", "/store/b.root")
        assert one.alternatives == (f"{url}/a.root",)
        with pytest.raises(SourceError, match=r"store/x\*\.root: no file matches this pattern"):
            expand_files(f"{url}/x*.root")
        with pytest.raises(SourceError, match=r"elsewhere/: the server refused the access: no proxy"):
            expand_files(f"{server.url}/elsewhere/")
    finally:
        server.close()


def test_a_question_mark_in_a_url_is_no_pattern() -> None:
    url = "root://127.0.0.1:1//store/f.root?authz=a*b"
    assert find_files(url) == [SourceFile(url)]
