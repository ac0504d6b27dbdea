"""Bundles as other programs take them, and what they say of themselves."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from mlaas4hep.bundle.card import escaped, model_card
from mlaas4hep.bundle.export import export_bundle
from mlaas4hep.bundle.graph import Output, complete_graph
from mlaas4hep.bundle.manifest import file_sha256
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.bundle.torch_graph import torch_module
from mlaas4hep.bundle.verify import read_examples, verify_bundle
from mlaas4hep.bundle.writer import write_bundle
from mlaas4hep.errors import BundleError, SettingError
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.training.frameworks.torch.export import to_onnx, trace

from .conftest import ENCODING, predict

MLAAS4HEP = Path(sys.executable).parent / "mlaas4hep"


@pytest.fixture
def archive(tmp_path, content, held_out):
    write_bundle(tmp_path / "higgs.tar.gz", content, held_out, predict)
    return tmp_path / "higgs.tar.gz"


@pytest.fixture
def folder(tmp_path, content, held_out):
    write_bundle(tmp_path / "higgs", content, held_out, predict)
    return tmp_path / "higgs"


def changed(folder, name, data):
    """Change a file, and its checksum too."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][name] = file_sha256(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_bundle_holds_examples_that_anyone_can_compare(folder, held_out):
    examples = json.loads((folder / "examples.json").read_text())
    raw = np.array(examples["features"], np.float32)
    np.testing.assert_array_equal(raw, held_out)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    np.testing.assert_array_equal(
        session.run(None, {"features": raw})[0], np.array(examples["probabilities"], np.float32)
    )


def test_verifying_compares_files_graphs_and_scores(archive):
    found = verify_bundle(archive)
    assert (found.name, found.graphs, found.events) == ("higgs", 1, 50)
    assert found.files == 9
    assert found.largest_difference <= 1e-6


def test_another_model_with_right_checksums_does_not_have_the_scores(folder, content):
    other = dataclasses.replace(ENCODING, features=(Feature("MET_pt", False, 1, 11.0, 0.01), ENCODING.features[1]))
    changed(folder, "model.onnx", complete_graph(content.graph, other, Output.LOGITS, 2))
    with pytest.raises(BundleError, match=r"example event \d+ has other scores than when it was written"):
        verify_bundle(folder)


def test_a_file_that_the_manifest_does_not_know_is_named(folder):
    (folder / "folds").mkdir()
    (folder / "folds" / "extra.txt").write_text("x")
    with pytest.raises(BundleError, match=r"'folds/extra\.txt' is in it, and its manifest knows nothing of it"):
        verify_bundle(folder)


@pytest.mark.parametrize("text", ["{}", "[]", '{"features": [[1]], "probabilities": [[1, 0]]}', "\xff"])
def test_damaged_examples_are_said_to_be_damaged(folder, text):
    changed(folder, "examples.json", text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"examples\.json is damaged"):
        verify_bundle(folder)


def test_a_bundle_from_before_there_were_examples_can_be_verified(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("examples.json", "README.md"):
        del manifest["sha256"][name]
        (folder / name).unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert verify_bundle(folder).events == 0
    with Bundle.open(folder) as bundle:
        assert read_examples(bundle) is None


def test_the_card_says_what_the_model_is_and_takes_no_name_for_markup(tmp_path, content, held_out):
    hostile = dataclasses.replace(
        content,
        labels=("<script>alert(1)</script>", "a|b"),
        description="# a\n\n[link](http://x) `code` ![](i.png)",
        metrics={"test": {"auc": 0.875, "auc_error": 0.0036, "class_auc": {"*x*": {"auc": 0.5}}}},
        data={"files": [{"name": "|a|.root\n# x", "uuid": "u-1", "entries": 3}], "tree": "Events"},
    )
    write_bundle(tmp_path / "higgs", hostile, held_out, predict)
    card = (tmp_path / "higgs" / "README.md").read_text()
    assert "| auc | 0.875 ± 0.0036 |" in card
    assert "u-1" in card
    assert "| MET\\_pt | one value | 0 |" in card
    assert "Units are those of the training's files" in card
    assert "largest difference" in card
    for sign in ("<script", "[link](", "\n# a\n", "|a|.root", "\n# x", "`code`"):
        assert sign not in card
    with Bundle.open(tmp_path / "higgs") as bundle:
        assert model_card(bundle.manifest, bundle.encoding, hostile.description) == card


def test_the_python_of_a_card_runs_as_it_stands(folder, monkeypatch):
    card = (folder / "README.md").read_text()
    program = card.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(folder)
    result = {}
    exec(program, result)
    assert result["scores"].shape == (1, 2)


def test_signs_without_a_meaning_stay_as_they_are():
    assert escaped("Jet pt / GeV, 50 %") == "Jet pt / GeV, 50 %"
    assert len(escaped("x" * 1000)) == 300


def test_a_triton_repository_says_the_shapes_of_the_graph(archive, tmp_path):
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    out = tmp_path / "repository"
    assert export_bundle(archive, "triton", out) == out / "higgs" / "1"
    config = text_format.Parse((out / "higgs" / "config.pbtxt").read_text(), model_config.ModelConfig())
    session = onnxruntime.InferenceSession(out / "higgs" / "1" / "model.onnx")
    assert config.name == "higgs"
    assert config.backend == "onnxruntime"
    assert config.max_batch_size > 1
    assert config.HasField("dynamic_batching")
    for found, real in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [(one.name, list(one.dims)) for one in found] == [(one.name, one.shape[1:]) for one in real]
        assert {one.data_type for one in found} == {model_config.TYPE_FP32}
    assert (out / "higgs" / config.output[0].label_filename).read_text() == "ggH\nVBF\n"
    assert sorted(path.name for path in out.iterdir()) == ["higgs"]


def test_another_export_is_the_next_version_and_another_model_is_refused(archive, tmp_path, content, held_out):
    out = tmp_path / "repository"
    export_bundle(archive, "triton", out)
    assert export_bundle(archive, "triton", out) == out / "higgs" / "2"
    (out / "higgs" / "7").mkdir()
    assert export_bundle(archive, "triton", out) == out / "higgs" / "8"
    write_bundle(archive, dataclasses.replace(content, labels=("x", "y")), held_out, predict)
    with pytest.raises(BundleError, match=r"its labels\.txt is another"):
        export_bundle(archive, "triton", out)
    assert sorted(path.name for path in (out / "higgs").iterdir()) == ["1", "2", "7", "8", "config.pbtxt", "labels.txt"]


def test_a_torch_program_gives_the_scores_of_the_bundle_for_any_number_of_events(archive, tmp_path, held_out):
    written = export_bundle(archive, "torch", tmp_path / "higgs.pt2")
    program = torch.export.load(written).module()
    with Bundle.open(archive) as bundle:
        for events in (1, 7, 50):
            got = program(torch.from_numpy(held_out[:events])).detach().numpy()
            np.testing.assert_allclose(got, bundle.predict(held_out[:events]), atol=1e-6)


MODULES = {
    "many layers": lambda: torch.nn.Sequential(
        torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 8),
        torch.nn.SiLU(), torch.nn.Linear(8, 8), torch.nn.ELU(), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3),
    ),
    "softmax": lambda: torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.LeakyReLU(), torch.nn.Linear(4, 3), torch.nn.Softmax(1)),
    "reshaped": lambda: torch.nn.Sequential(
        torch.nn.Unflatten(1, (2, 3)), torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(8, 3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_the_graphs_of_usual_modules_have_a_counterpart_in_pytorch(name):
    import onnx

    torch.manual_seed(3)
    module = MODULES[name]().eval()
    features = (Feature("a", True, 2, 1.0, 0.5, "log", 0.3, 2.0, (-2.0, 2.0)), Feature("b", True, 4, 10.0, 0.05))
    kind = Output.PROBABILITIES if name == "softmax" else Output.LOGITS
    graph = complete_graph(to_onnx(trace(module, 6, "test"), "test"), Encoding(features), kind, 3)
    raw = np.random.default_rng(2).normal(10, 30, (64, 6)).astype(np.float32)
    raw[::3, 1] = np.nan
    raw[::5, 4] = np.inf
    expected = onnxruntime.InferenceSession(graph).run(None, {"features": raw})[0]
    with torch.no_grad():
        got = torch_module(onnx.load_model_from_string(graph))(torch.from_numpy(raw)).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_what_cannot_be_exported_is_said_in_one_line(archive, tmp_path):
    with pytest.raises(SettingError, match="SavedModel"):
        export_bundle(archive, "tensorflow", tmp_path / "x")
    with pytest.raises(SettingError, match="one of triton, torch"):
        export_bundle(archive, "tflite", tmp_path / "x")
    with pytest.raises(SettingError, match=r"ends in \.pt2"):
        export_bundle(archive, "torch", tmp_path / "x.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["higgs.tar.gz"]


def command(*arguments):
    return subprocess.run([MLAAS4HEP, "bundle", *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_the_commands_show_verify_and_export(archive, tmp_path):
    shown = command("show", archive)
    assert shown.returncode == 0, shown.stderr
    for text in ("a linear model", "features, float32 [batch, 3]", "ggH, VBF", "Jet_pt"):
        assert text in shown.stdout
    assert json.loads(command("show", archive, "--json").stdout)["name"] == "higgs"
    assert command("show", archive, "--card").stdout.startswith("# higgs\n")
    assert json.loads(command("verify", archive, "--json").stdout)["events"] == 50
    exported = command("export", archive, "--format", "triton", "--out", tmp_path / "r")
    assert exported.stdout == f"{tmp_path / 'r' / 'higgs' / '1'} written\n"


def test_a_damaged_bundle_is_one_line_and_exit_status_2(archive, folder):
    archive.write_bytes(archive.read_bytes()[:-20])
    (folder / "model.onnx").write_bytes(b"")
    for bundle in (archive, folder):
        result = command("verify", bundle)
        assert result.returncode == 2
        assert result.stderr.startswith("mlaas4hep: ")
        assert result.stderr.count("\n") == 1


def test_a_branch_that_was_empty_in_all_training_events_has_no_place_and_no_harm(tmp_path, content, held_out):
    wide = dataclasses.replace(ENCODING, features=(*ENCODING.features, Feature("Tau_pt", True, 0)))
    write_bundle(tmp_path / "higgs", dataclasses.replace(content, encoding=wide), held_out, predict)
    assert verify_bundle(tmp_path / "higgs").events == 50
    assert "| Tau\\_pt | list, the first 0 of each event | none |" in (tmp_path / "higgs" / "README.md").read_text()
