"""``mlaas4hep cache`` shows what a cache holds and makes it smaller."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from tests.conftest import WriteTree, make_events

import mlaas4hep
from mlaas4hep.cli.main import main


@pytest.fixture
def cache(write_tree: WriteTree, tmp_path: Path) -> Path:
    """The train fold of 300 events in 3 shards, and the test fold, which was used 40 days ago."""
    file = write_tree("events.root", make_events(300, seed=1), clusters=[100, 200])
    dataset = mlaas4hep.open(file)
    for fold in ("test", "train"):
        for _ in dataset.stream(fold, run_bytes=1, cache=tmp_path / "cache"):
            pass
        if fold == "test":
            for shard in (tmp_path / "cache").glob("*/*.arrow"):
                os.utime(shard, (time.time() - 40 * 86400,) * 2)
    return tmp_path / "cache"


def test_the_list_tells_dataset_fold_events_size_and_times(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "list", str(cache)]) == 0
    heading, train, test, total = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["dataset", "fold", "events", "MB"]
    today = time.strftime("%Y-%m-%d")
    assert train.split()[:2] == ["events.root", "train"]
    assert test.split()[:2] == ["events.root", "test"]
    assert train.count(today) == 2
    assert test.count(today) == 1
    assert total.endswith(f"MB in {cache}")


def test_the_list_as_json_holds_the_same(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "list", str(cache), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(found["fold"], found["shards"]) for found in listed["datasets"]] == [("train", 3), ("test", 3)]
    assert sum(found["bytes"] for found in listed["datasets"]) == sum(
        shard.stat().st_size for shard in cache.glob("*/*.arrow")
    )
    assert sum(found["events"] for found in listed["datasets"]) < 300


def test_the_folder_may_be_named_by_the_environment(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLAAS4HEP_CACHE", str(cache))
    assert main(["cache", "list"]) == 0
    assert str(cache) in capsys.readouterr().out


def test_pruning_says_what_it_removes_and_what_is_left(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "prune", str(cache), "--older-than", "30d", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("would remove 3 shards, ")
    assert len(list(cache.glob("*/*.arrow"))) == 6
    assert main(["cache", "prune", str(cache), "--older-than", "30d"]) == 0
    assert capsys.readouterr().out.startswith("removed 3 shards, ")
    assert main(["cache", "prune", str(cache), "--max-size", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shards"] == 3
    assert main(["cache", "prune", str(cache), "--all"]) == 0
    assert main(["cache", "list", str(cache)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{cache} holds nothing"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list"], "MLAAS4HEP_CACHE"),
        (["list", "."], "no CACHEDIR.TAG of mlaas4hep"),
        (["prune", ".", "--all"], "no CACHEDIR.TAG of mlaas4hep"),
        (["prune", "nowhere", "--all"], "there is no such folder"),
        (["prune", "cache"], "--older-than, --max-size or --all"),
        (["prune", "cache", "--max-size", "plenty"], "20GB"),
        (["prune", "cache", "--older-than", "long"], "30d"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str],
    message: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(cache.parent)
    monkeypatch.delenv("MLAAS4HEP_CACHE", raising=False)
    before = sorted(cache.rglob("*"))
    assert main(["cache", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mlaas4hep: setting ")
    assert message in line
    assert sorted(cache.rglob("*")) == before
