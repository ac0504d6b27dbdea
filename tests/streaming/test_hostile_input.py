"""What must not get in, clause by clause, as a person meets it: one clear line, exit status 2, no traceback, nothing written.

Beside these: flipped bytes and files that are cut off in test_flipped_bytes; pipes, names and files that change in test_odd_files; the other
formats in formats/test_hostile_files; servers that fail in test_faults and test_remote; expressions that are none in expressions/test_grammar.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from onnx import TensorProto, helper, numpy_helper
from tests.conftest import make_events, write_tree_file

import mlaas4hep
from mlaas4hep.bundle.graph import Output
from mlaas4hep.bundle.writer import BundleContent, write_bundle
from mlaas4hep.cli import main, workflow
from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.streaming.formats import open_reader

DATA = Path(__file__).parent.parent / "data"
ENCODING = Encoding((Feature("MET_pt", False, 1, scale=0.01), Feature("Jet_pt", True, 2, scale=0.01)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of one layer on MET_pt and two places of Jet_pt."""
    weights = np.array([[1.0], [-2.0], [0.5]], np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["logit"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()

    def predict(x: Any, mask: Any) -> Any:
        second = 1 / (1 + np.exp(-(x @ weights)))
        return np.concatenate([1 - second, second], axis=1).astype(np.float32)

    target = tmp_path_factory.mktemp("bundle") / "linear"
    content = BundleContent(
        graph=model, output=Output.LOGITS, encoding=ENCODING, labels=("a", "b"), specs={}, framework="numpy"
    )
    write_bundle(target, content, np.ones((4, 3), np.float32), predict)
    return str(target)


def tree(path: Path, **changes: Any) -> Path:
    return write_tree_file(path, make_events(40, seed=1) | changes)


def ntuple(path: Path, columns: dict[str, Any]) -> Path:
    with uproot.recreate(path) as file:
        file.mkrntuple("Events", ak.Array(columns))
    return path


def cut_in_half(path: Path) -> Path:
    tree(path)
    os.truncate(path, path.stat().st_size // 2)
    return path


def content(data: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(data)
        return path

    return write


def without(*names: str) -> Callable[[Path], Path]:
    columns = {name: values for name, values in make_events(40, seed=1).items() if name not in names}
    return lambda path: write_tree_file(path, columns)


def counter_that_disagrees(path: Path) -> Path:
    """The lengths of a basket's lists no longer fit its values."""
    columns = make_events(40, seed=1)
    with uproot.recreate(path, compression=None) as file:
        file.mktree("Events", {name: ak.type(ak.Array(values)).content for name, values in columns.items()})
        file["Events"].extend(columns)
    branch = uproot.open(path)["Events"]["Jet_pt"]
    begin = int(branch.member("fBasketSeek")[0])
    end = begin + int(branch.member("fBasketBytes")[0])
    data = bytearray(path.read_bytes())
    data[end - 60 : end - 56] = b"\x00\x00\x7f\x00"
    path.write_bytes(data)
    return path


BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda path: path, "bad.root: no such file"),
    "empty": (content(b""), "bad.root: the file is empty"),
    "not ROOT": (content(b"<html>not found</html>"), "bad.root: is not a ROOT file: it begins with b'<htm'"),
    "cut off": (cut_in_half, r"bad.root: is cut off: it has \d+ of \d+ bytes"),
    "no such tree": (
        lambda path: write_tree_file(path, make_events(9, seed=1), tree="Delphes"),
        "no tree 'Events' in .*bad.root; it holds 'Delphes'",
    ),
    "no such branch": (without("Jet_pt"), "no branch 'Jet_pt' in tree 'Events' of .*bad.root"),
    "no event": (
        lambda path: write_tree_file(path, {k: v[:0] for k, v in make_events(9, seed=1).items()}),
        "bad.root: tree 'Events' holds no event",
    ),
    "a list where a number should be": (
        lambda path: tree(path, MET_pt=make_events(40, seed=1)["Jet_pt"]),
        "branch 'MET_pt' of .*bad.root cannot be used: model 'linear' takes one value an event, the file holds a list",
    ),
    "strings": (
        lambda path: ntuple(path, make_events(9, seed=1) | {"MET_pt": ak.Array(["a"] * 9)}),
        "branch 'MET_pt' of .*bad.root cannot be used: holds strings or objects, not numbers",
    ),
    "lists of lists": (
        lambda path: ntuple(path, make_events(9, seed=1) | {"Jet_pt": ak.Array([[[1.0], [2.0]]] * 9)}),
        "branch 'Jet_pt' of .*bad.root cannot be used: holds lists of lists",
    ),
    "objects": (
        lambda path: ntuple(path, make_events(9, seed=1) | {"Jet_pt": ak.Array([{"x": 1.0, "y": 2.0}] * 9)}),
        "branch 'Jet_pt' of .*bad.root cannot be used: holds objects with 2 members, not numbers",
    ),
    "lists that do not fit their values": (
        counter_that_disagrees,
        "bad.root: entries 0–39 cannot be read: branch 'Jet_pt': the bounds of a basket's events are damaged",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_line_and_nothing_is_written(
    bundle: str, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = BAD_FILES[kind]
    bad, out = make(tmp_path / "bad.root"), tmp_path / "scores.root"
    status = main.main(["predict", "--model", bundle, "--files", str(bad), "--out", str(out)])
    said = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert status == 2
    assert re.fullmatch(f"mlaas4hep: .*{message}.*", said[-1])
    assert "Traceback" not in "".join(said)
    assert {path.name for path in tmp_path.iterdir()} <= {"bad.root"}


@pytest.mark.parametrize("kind", ["empty", "not ROOT", "cut off", "no such tree"])
def test_a_bad_file_in_a_training_is_one_line_and_nothing_is_written(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, message = BAD_FILES[kind]
    monkeypatch.chdir(tmp_path)
    files = [make(tmp_path / "bad.root"), tree(tmp_path / "good.root")]
    (tmp_path / "model.py").write_text("def model(idim):\n    raise AssertionError('not reached')\n")
    arguments = ["--files", ",".join(map(str, files)), "--labels", "0,1", "--model", "model.py"]
    before = {path.name for path in tmp_path.iterdir()}
    assert workflow.main(arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert re.search(message, said[-1])
    assert "Traceback" not in "".join(said)
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MET_pt": np.arange(40)}, r"branch 'MET_pt' holds int64 there and float32 in the first"),
        ({"MET_pt": make_events(40, seed=1)["Jet_pt"]}, r"branch 'MET_pt' holds float32\[\] there and float32"),
    ],
)
def test_files_whose_branches_differ_are_named_with_the_branch(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    files = [tree(tmp_path / "one.root"), tree(tmp_path / "two.root", **changes)]
    with pytest.raises(mlaas4hep.errors.BranchesDifferError, match=rf"two\.root does not match .*one\.root: {message}"):
        mlaas4hep.open(files)
    files[1] = without("trigger")(tmp_path / "two.root")
    with pytest.raises(mlaas4hep.errors.BranchesDifferError, match=r"two\.root .*: it has no branch 'trigger'"):
        mlaas4hep.open(files)


def test_one_event_is_scored(bundle: str, tmp_path: Path) -> None:
    path = write_tree_file(tmp_path / "f.root", {name: values[:1] for name, values in make_events(9, seed=1).items()})
    out = tmp_path / "scores.root"
    assert main.main(["predict", "--model", bundle, "--files", str(path), "--out", str(out)]) == 0
    assert uproot.open(out)["Events"].num_entries == 1


def test_a_jagged_branch_without_a_value_in_any_event_is_scored_as_absent(bundle: str, tmp_path: Path) -> None:
    nothing = ak.values_astype(ak.Array([[]] * 40), np.float32)
    path = tree(tmp_path / "f.root", Jet_pt=nothing, Jet_charge=nothing)
    out = tmp_path / "scores.root"
    assert main.main(["predict", "--model", bundle, "--files", str(path), "--out", str(out)]) == 0
    scores = uproot.open(out)["Events"]["probability_b"].array().to_numpy()
    expected = 1 / (1 + np.exp(-0.01 * make_events(40, seed=1)["MET_pt"]))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    dataset = mlaas4hep.open(path, branches=["MET_pt", "Jet_pt"])
    assert all(batch.x.shape[1] == dataset.encoding.width for batch in dataset.stream())


def test_what_is_not_finite_is_absent_and_bool_is_a_number(tmp_path: Path) -> None:
    values = np.array([1, np.nan, np.inf, -np.inf] * 10, np.float32)
    dataset = mlaas4hep.open(tree(tmp_path / "f.root", MET_pt=values), branches=["MET_pt", "trigger"])
    for batch in dataset.stream(batch_size=40):
        assert (batch.mask[:, 0] == ~np.isfinite(values[batch.id["entry"]])).all()
        assert np.isfinite(batch.x).all()
        assert set(np.unique(batch.x[:, 1])) <= {0.0, 1.0}


def test_identifiers_above_two_to_the_53_are_kept_to_the_last_digit(tmp_path: Path) -> None:
    event = np.arange(40, dtype=np.uint64) + np.uint64(2**64 - 50)
    dataset = mlaas4hep.open(tree(tmp_path / "f.root", event=event), identifiers=["event"])
    found = np.concatenate([batch.id["event"] for batch in dataset.stream()])
    assert sorted(found.tolist()) == event.tolist()


@pytest.mark.parametrize("file", ["root-ntuple-zstd.root", "root-ntuple-plain.root", "root-tree-types.root"])
def test_every_kind_of_number_that_root_writes_reaches_the_batches(file: str) -> None:
    dataset = mlaas4hep.open(DATA / file)
    with closing(open_reader(str(DATA / file), "Events")) as reader:
        assert set(dataset.features) | set(dataset.excluded) == set(reader.columns) | set(reader.skipped)
    batches = list(dataset.stream(batch_size=32))
    assert sum(len(batch.x) for batch in batches) == dataset.events
    assert all(np.isfinite(batch.x).all() for batch in batches)


@pytest.mark.parametrize(
    "text", ["__import__('os').system('true')", "open('/etc/passwd')", "MET_pt.__class__", "lambda: 1"]
)
def test_a_selection_is_never_evaluated_as_python(text: str) -> None:
    from mlaas4hep.streaming.expressions.grammar import parse

    with pytest.raises(mlaas4hep.errors.ExpressionError):
        parse(text, "selection")


def written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_a_prediction_that_is_interrupted_leaves_nothing_behind(bundle: str, tmp_path: Path) -> None:
    source = write_tree_file(tmp_path / "big.root", make_events(2000, seed=1))
    links = tmp_path / "links"
    links.mkdir()
    for number in range(400):
        (links / f"{number:03}.root").symlink_to(source)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "mlaas4hep.cli.main", "predict", "--model", bundle]
    with subprocess.Popen(
        [*command, "--files", str(links), "--out", str(out / "scores.root")], stderr=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + 120
        while written(out) < 100_000 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1] == "mlaas4hep: stopped by the user"
    assert "Traceback" not in said
    assert not any(out.iterdir())


def test_a_file_that_is_not_the_one_of_the_scan_is_refused(tmp_path: Path) -> None:
    dataset = mlaas4hep.open(tree(tmp_path / "f.root"))
    _ = dataset.specs
    tree(tmp_path / "f.root", MET_pt=np.zeros(40, np.float32))
    with pytest.raises(SourceError, match="has changed since it was catalogued"):
        list(dataset.stream())
