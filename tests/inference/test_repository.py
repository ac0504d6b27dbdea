"""The models on disk: published whole or not at all, seen by everyone, removed as a whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.inference.conftest import bundle_graph, sum_graph, write_bundle, write_plain_model

from mlaas4hep.bundle.graph import Output
from mlaas4hep.bundle.writer import BundleContent
from mlaas4hep.bundle.writer import write_bundle as write_training_bundle
from mlaas4hep.errors import BundleError, ModelNameError, ModelNotFoundError, RequestError, SettingError
from mlaas4hep.inference import staging
from mlaas4hep.inference.repository import Repository
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature

HOSTILE_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "/etc",
    ".hidden",
    "-x",
    "a\n",
    "a\0",
    "é",
    "a b",
    "a" * 129,
    "%2e%2e",
]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


def publish(repository: Repository, name: str = "higgs", *, seed: int = 1, **parameters: str) -> int:
    with repository.stage() as folder:
        return repository.publish(write_bundle(folder / name, seed=seed, **parameters), name).version


def names(repository: Repository) -> list[str]:
    return list(repository.models)


def test_a_published_model_is_there_with_all_its_files(repository: Repository) -> None:
    assert publish(repository) == 1
    version = repository.find("higgs")
    assert version.folder == repository.root / "higgs" / "1"
    assert sorted(path.name for path in version.folder.iterdir()) == [
        "encoding.json",
        "labels.txt",
        "model.onnx",
        "params.json",
    ]
    assert (version.parameters["name"], version.parameters["output_node"]) == ("higgs", "")


def test_publishing_again_makes_the_next_version_live(repository: Repository) -> None:
    assert [publish(repository), publish(repository), publish(repository, "tau"), publish(repository)] == [1, 2, 1, 3]
    assert {name: version.version for name, version in repository.models.items()} == {"higgs": 3, "tau": 1}
    assert repository.find("higgs").folder.name == "3"


def test_a_flat_folder_of_tfaas_is_version_one_and_the_next_upload_version_two(repository: Repository) -> None:
    write_plain_model(repository.root / "old", sum_graph(), inputNode="x")
    repository.refresh()
    version = repository.find("old")
    assert (version.version, version.folder, version.parameters["input_node"]) == (1, repository.root / "old", "x")
    assert publish(repository, "old") == 2
    assert repository.find("old").folder == repository.root / "old" / "2"
    assert repository.delete("old")
    assert names(repository) == []


def test_what_another_process_does_is_seen(repository: Repository) -> None:
    other = Repository(repository.root)
    publish(other)
    assert names(repository) == []
    repository.refresh()
    assert names(repository) == ["higgs"]
    other.set_default("higgs")
    repository.refresh()
    assert repository.default == "higgs"
    other.delete("higgs")
    repository.refresh()
    assert (names(repository), repository.default) == ([], None)


def test_looking_again_keeps_what_has_not_changed_and_sees_what_has(repository: Repository) -> None:
    publish(repository)
    before = repository.find("higgs")
    repository.refresh()
    assert repository.find("higgs") is before
    file = before.folder / "params.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "description": "new"}))
    repository.refresh()
    assert repository.find("higgs").parameters["description"] == "new"


def test_broken_models_are_passed_over_and_said_once(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    publish(repository)
    for name, content in {
        "json": "{",
        "list": "[]",
        "type": '{"options": 7}',
        "path": '{"model": "/etc/passwd"}',
    }.items():
        (repository.root / name).mkdir()
        (repository.root / name / "params.json").write_text(content)
    (repository.root / "empty").mkdir()
    (repository.root / "file").write_text("not a folder")
    (repository.root / "not a name").mkdir()
    repository.refresh()
    repository.refresh()
    assert names(repository) == ["higgs"]
    said = sorted(r.getMessage().split(":")[0] for r in caplog.records if r.levelname == "WARNING")
    assert said == [f"model '{name}' is passed over" for name in ("json", "list", "path", "type")]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_refused_everywhere(repository: Repository, name: str) -> None:
    publish(repository)
    with pytest.raises(ModelNameError):
        repository.find(name)
    with pytest.raises(ModelNameError):
        repository.delete(name)
    with pytest.raises(ModelNameError), repository.stage() as folder:
        repository.publish(write_bundle(folder / "x"), name)
    with pytest.raises(ModelNameError):
        repository.set_default(name)
    assert names(repository) == ["higgs"]


def test_an_unknown_model_names_the_nearest(repository: Repository) -> None:
    publish(repository)
    with pytest.raises(ModelNotFoundError, match="no model 'Higs'; nearest: 'higgs'"):
        repository.find("Higs")
    with pytest.raises(RequestError, match="no default"):
        repository.find()
    assert repository.delete("nothing") is False


def break_file(folder: Path, how: str) -> None:
    other = Encoding((Feature("x", False, 1),))
    changes = {
        "no model": (folder / "model.onnx").unlink,
        "garbage": lambda: (folder / "model.onnx").write_bytes(b"garbage"),
        "cut off": lambda: (folder / "model.onnx").write_bytes(bundle_graph(other)[:-40]),
        "other width": lambda: (folder / "encoding.json").write_text(json.dumps(other.to_dict())),
        "encoding": lambda: (folder / "encoding.json").write_text('{"version": 1, "layout": "flat"}'),
        "width 0": lambda: (folder / "encoding.json").write_text(
            json.dumps(Encoding((Feature("x", True, 0),)).to_dict())
        ),
        "labels": lambda: (folder / "labels.txt").write_text("a\nb\nc\n"),
        "no labels": (folder / "labels.txt").unlink,
        "not text": lambda: (folder / "labels.txt").write_bytes(b"\xff\xfe"),
        "params": lambda: (folder / "params.json").write_text("{"),
        "manifest": lambda: (folder / "manifest.json").write_text("{}"),
    }
    changes[how]()


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("no model", "'model.onnx', which is not there"),
        ("garbage", "not an ONNX model"),
        ("cut off", "not an ONNX model|cannot be loaded"),
        ("other width", "encoding.json has 1 places"),
        ("encoding", "encoding.json is damaged"),
        ("width 0", "encoding.json has 0 places"),
        ("labels", "3 labels and 2 values"),
        ("no labels", "'labels.txt' cannot be read"),
        ("not text", "not UTF-8"),
        ("params", "params.json is not JSON"),
        ("manifest", "^bundle higgs: its format version is None"),
    ],
)
def test_what_cannot_be_served_is_not_published(repository: Repository, how: str, match: str) -> None:
    publish(repository)
    with repository.stage() as folder:
        made = write_bundle(folder / "higgs")
        break_file(made, how)
        with pytest.raises(BundleError, match=match):
            repository.publish(made, "higgs")
    assert repository.find("higgs").version == 1
    assert [path.name for path in (repository.root / "higgs").iterdir()] == ["1"]
    assert list((repository.root / ".mlaas4hep" / "staging").iterdir()) == []


def test_a_bundle_of_the_writer_is_published_and_one_that_was_changed_is_not(repository: Repository) -> None:
    encoding = Encoding((Feature("a", False, 1), Feature("b", False, 1), Feature("c", False, 1)))
    raw = np.random.default_rng(1).normal(0, 1, (20, 3)).astype(np.float32)
    content = BundleContent(sum_graph(), Output.LOGITS, encoding, ("background", "signal"), {}, "none")

    def predict(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        signal = 1 / (1 + np.exp(-x.sum(axis=1, keepdims=True)))
        return np.concatenate([1 - signal, signal], axis=1).astype(np.float32)

    with repository.stage() as folder:
        write_training_bundle(folder / "sum", content, raw, predict)
        (folder / "sum" / "specs.json").write_text("{} ")
        with pytest.raises(BundleError, match=r"bundle sum: 'specs\.json' is not the file that was written"):
            repository.publish(folder / "sum", "sum")
    with repository.stage() as folder:
        write_training_bundle(folder / "sum", content, raw, predict)
        assert repository.publish(folder / "sum", "sum").version == 1


def test_publishing_at_the_same_time_gives_each_its_own_version(repository: Repository) -> None:
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(publish(Repository(repository.root)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [1, 2, 3, 4, 5, 6]


def test_a_model_is_never_seen_in_part_while_others_publish_and_delete(repository: Repository) -> None:
    stop = threading.Event()

    def change() -> None:
        other = Repository(repository.root)
        while not stop.is_set():
            publish(other)
            other.delete("higgs")

    thread = threading.Thread(target=change)
    thread.start()
    seen = 0
    try:
        end = time.monotonic() + 30
        while seen < 20 and time.monotonic() < end:
            repository.refresh()
            assert repository._broken == {}
            seen += "higgs" in repository.models
    finally:
        stop.set()
        thread.join()
    assert seen == 20


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from mlaas4hep.inference.repository import Repository
from tests.inference.conftest import write_bundle

def trace(frame, event, argument):
    global left
    if frame.f_code.co_filename.endswith(("repository.py", "staging.py")):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace

repository = Repository(Path(sys.argv[1]))
left = int(sys.argv[2])
sys.settrace(trace)
with repository.stage() as folder:
    repository.publish(write_bundle(folder / "higgs", seed=2), "higgs")
sys.settrace(None)
print("whole", left)
"""


def test_a_publish_killed_at_any_line_leaves_the_old_version_or_the_whole_new_one(tmp_path: Path) -> None:
    root, project = tmp_path / "models", Path(__file__).parents[2]
    publish(Repository(root))
    line, step, outcomes = 1, 9, set()
    while True:
        run = subprocess.run(
            [sys.executable, "-c", KILLED, str(root), str(line), str(project)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        repository = Repository(root)
        version = repository.find("higgs")
        assert {path.name for path in version.folder.iterdir()} == {
            "encoding.json",
            "labels.txt",
            "model.onnx",
            "params.json",
        }
        assert repository._broken == {}
        outcomes.add((run.returncode, version.version > 1))
        if run.returncode != -signal.SIGKILL:
            assert "whole" in run.stdout, run.stderr
            break
        for leftover in (root / "higgs").iterdir():
            if leftover.name != "1":
                shutil.rmtree(leftover)
        line += step
    assert {(-signal.SIGKILL, False), (0, True)} <= outcomes


def test_leftovers_of_a_killed_process_are_removed_and_those_of_a_living_one_are_not(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = repository.root / ".mlaas4hep" / "staging"
    dead = work / "dead"
    (dead / "files").mkdir(parents=True)
    (repository.root / ".mlaas4hep" / "trash" / "higgs-1").mkdir()
    with repository.stage() as living:
        old = time.time() - 2 * staging.FRESH_SECONDS
        os.utime(living.parent, (old, old))
        Repository(repository.root)
        assert dead.exists()  # too young: its process may be about to take its lock
        os.utime(dead, (old, old))
        Repository(repository.root)
        assert not dead.exists()
        assert living.exists()
        assert list((repository.root / ".mlaas4hep" / "trash").iterdir()) == []


def test_the_default_model_is_one_for_all_and_survives(repository: Repository) -> None:
    publish(repository)
    with pytest.raises(ModelNotFoundError):
        repository.set_default("tau")
    repository.set_default("higgs")
    assert Repository(repository.root).find().name == "higgs"
    (repository.root / ".mlaas4hep" / "default.json").write_text('{"name": "../x"}')
    assert Repository(repository.root).default is None


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="setting 'models' must be a folder that can be written"):
        Repository(tmp_path / "file")
