"""Bundles opened again, whole and damaged."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest

from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.bundle.writer import write_bundle
from mlaas4hep.errors import ArchiveError, BundleError, FeatureError

from .conftest import ENCODING, WEIGHTS, linear_graph, predict


@pytest.fixture
def folder(tmp_path, content, held_out):
    write_bundle(tmp_path / "higgs", content, held_out, predict)
    return tmp_path / "higgs"


@pytest.mark.parametrize("target", ["higgs", "higgs.tar.gz"])
def test_predictions_from_raw_values_are_those_of_plain_numpy(tmp_path, content, held_out, target):
    write_bundle(tmp_path / target, content, held_out, predict)
    raw = np.array([[110.0, 70.0, np.nan], [10.0, np.inf, 20.0]], np.float32)
    scaled = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    second = 1 / (1 + np.exp(-(scaled @ WEIGHTS)))
    with Bundle.open(tmp_path / target) as bundle:
        got = bundle.predict(raw)
    assert got.dtype == np.float32
    assert got == pytest.approx(np.concatenate([1 - second, second], axis=1), abs=1e-6)


def test_many_rows_are_predicted_like_each_row_alone(folder):
    raw = np.random.default_rng(2).normal(30, 20, (9000, 3)).astype(np.float32)
    bundle = Bundle.open(folder)
    together = bundle.predict(raw)
    for row in (0, 4095, 4096, 8999):
        assert together[row] == pytest.approx(bundle.predict(raw[row : row + 1])[0], abs=1e-6)
    assert bundle.predict(raw[:0]).shape == (0, 2)


def test_it_knows_its_labels_features_and_specs(folder):
    bundle = Bundle.open(folder)
    assert (bundle.name, bundle.output, bundle.labels) == ("higgs", "probabilities", ("ggH", "VBF"))
    assert bundle.encoding == ENCODING
    assert bundle.specs == {"fkeys": ["MET_pt"], "jkeys": ["Jet_pt"]}
    assert bundle.params["name"] == "higgs"
    assert "higgs" in repr(bundle)


def test_closing_removes_what_was_unpacked(tmp_path, content, held_out):
    write_bundle(tmp_path / "higgs.tar.gz", content, held_out, predict)
    with Bundle.open(tmp_path / "higgs.tar.gz") as bundle:
        assert bundle.folder.is_dir()
    assert not bundle.folder.exists()
    assert (tmp_path / "higgs.tar.gz").is_file()


@pytest.mark.parametrize("shape", [(2, 4), (3,), (1, 2, 3)])
def test_values_of_another_shape_are_refused(folder, shape):
    with pytest.raises(FeatureError, match=r"takes values of shape \[n, 3\]"):
        Bundle.open(folder).predict(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "file", ["model.onnx", "labels.txt", "params.json", "encoding.json", "specs.json", "metrics.json", "roc.png"]
)
def test_a_changed_or_missing_file_is_found(folder, file):
    data = bytearray((folder / file).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / file).write_bytes(data)
    with pytest.raises(BundleError, match=f"'{file}' is not the file that was written"):
        Bundle.open(folder)
    (folder / file).unlink()
    with pytest.raises(BundleError, match=f"'{file}' is missing"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 2}, "format version is 2; this package reads 1"),
        ({"parity": 3}, "damaged"),
        ({"parity": {"events": 1}}, "damaged"),
        ({"width": float("inf")}, "damaged"),
        ({"sha256": []}, "damaged"),
        ({"name": ["higgs"]}, "'name' is list"),
        ({"metrics": None}, "'metrics' is NoneType"),
        ({"labels": ["a", "b"]}, "do not fit each other"),
        ({"width": 4}, "do not fit each other"),
        ({"sha256": {}}, "no checksum of"),
        ({"sha256": {"../../etc/passwd": "0"}}, "not inside it|no checksum"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(folder, change, said):
    manifest = json.loads((folder / "manifest.json").read_text()) | change
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=said):
        Bundle.open(folder)


def replace_file(folder, file, data):
    """Put another file into a bundle as somebody would who knows how: with its checksum."""
    (folder / file).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][file] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 3}, "must be version 1 or 2"),
        ({"features": [{"branch": "MET_pt"}]}, "damaged"),
        ({"features": 3}, "damaged"),
        (
            {"features": [{"branch": "b", "jagged": True, "width": 10**12, "shift": 0, "scale": 1}]},
            "1000000000000 places",
        ),
        ({"features": [{"branch": "b", "jagged": True, "width": -3, "shift": 0, "scale": 1}]}, "-3 places"),
    ],
)
def test_an_encoding_that_is_none_is_refused_whatever_its_checksum(folder, change, said):
    encoding = json.loads((folder / "encoding.json").read_text()) | change
    replace_file(folder, "encoding.json", json.dumps(encoding).encode())
    with pytest.raises(BundleError, match=said):
        Bundle.open(folder)


def test_a_graph_of_another_shape_is_refused_whatever_its_checksum(folder):
    replace_file(folder, "model.onnx", linear_graph())
    with pytest.raises(BundleError, match=r"'model.onnx' has the input \[\('x', .* right is 'features', float, 3 wide"):
        Bundle.open(folder).predict(np.zeros((1, 3), np.float32))


def test_labels_that_are_no_text_are_refused(folder):
    replace_file(folder, "labels.txt", b"\xff\n\xfe\n")
    with pytest.raises(BundleError, match="do not fit each other"):
        Bundle.open(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"format_version": 1}'])
def test_a_manifest_that_is_no_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(folder)


def test_a_bundle_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(BundleError, match="no such file or folder"):
        Bundle.open(tmp_path / "nowhere.tar.gz")


def test_an_archive_without_a_manifest_is_refused(tmp_path, folder):
    (folder / "manifest.json").unlink()
    shutil.make_archive(str(tmp_path / "bare"), "gztar", root_dir=tmp_path, base_dir="higgs")
    with pytest.raises(ArchiveError, match=r"manifest\.json"):
        Bundle.open(tmp_path / "bare.tar.gz")
