"""Bundles as they lie on the disk."""

from __future__ import annotations

import dataclasses
import json
import resource
import tarfile

import numpy as np
import pytest

from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.bundle.writer import check_target, write_bundle
from mlaas4hep.errors import BundleError, ModelNameError
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.streaming.encoding.objects import Collection

from .conftest import WEIGHTS, linear_graph, predict

FILES = {
    "model.onnx",
    "labels.txt",
    "params.json",
    "encoding.json",
    "specs.json",
    "metrics.json",
    "manifest.json",
    "examples.json",
    "README.md",
    "roc.png",
}


def test_a_folder_holds_every_file_and_nothing_else_lies_beside_it(tmp_path, content, held_out):
    write_bundle(tmp_path / "out" / "higgs", content, held_out, predict)
    assert {file.name for file in (tmp_path / "out" / "higgs").iterdir()} == FILES
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["higgs"]
    assert (tmp_path / "out" / "higgs" / "labels.txt").read_text() == "ggH\nVBF\n"


def test_an_archive_has_one_top_folder_that_is_the_models_name(tmp_path, content, held_out):
    write_bundle(tmp_path / "higgs.tar.gz", content, held_out, predict)
    with tarfile.open(tmp_path / "higgs.tar.gz") as tar:
        files = {member.name for member in tar if member.isfile()}
    assert files == {f"higgs/{name}" for name in FILES}
    assert [entry.name for entry in tmp_path.iterdir()] == ["higgs.tar.gz"]


def test_params_have_every_key_that_tfaas_reads_under_new_and_old_names(tmp_path, content, held_out):
    write_bundle(tmp_path / "higgs", content, held_out, predict)
    params = json.loads((tmp_path / "higgs" / "params.json").read_text())
    timestamp = params.pop("timestamp")
    assert timestamp.endswith("Z")
    assert params == {
        "name": "higgs",
        "model": "model.onnx",
        "labels": "labels.txt",
        "op": "",
        "input_name": "features",
        "output_name": "probabilities",
        "img_channels": 0,
        "options": [],
        "input_node": "features",
        "output_node": "probabilities",
        "description": "a linear model",
        "inputNode": "features",
        "outputNode": "probabilities",
        "imgChannels": 0,
    }


def test_the_comparison_with_the_framework_is_in_the_manifest(tmp_path, content, held_out):
    written = write_bundle(tmp_path / "higgs", content, held_out, predict)
    with Bundle.open(tmp_path / "higgs") as bundle:
        assert bundle.manifest == written
    assert written.parity.events == 50
    assert 0 <= written.parity.largest_difference <= written.parity.tolerance == 1e-5


def test_a_graph_that_gives_other_numbers_is_not_written(tmp_path, content, held_out):
    wrong = dataclasses.replace(content, graph=linear_graph(WEIGHTS * 1.01))
    with pytest.raises(BundleError, match=r"graph and numpy differ by .*, more than 1e-05: held-out event \d+ has"):
        write_bundle(tmp_path / "higgs", wrong, held_out, predict)
    assert list(tmp_path.iterdir()) == []


def test_a_framework_that_gives_nan_is_a_difference(tmp_path, content, held_out):
    def broken(x, mask):
        result = predict(x, mask)
        result[3, 1] = np.nan
        return result

    with pytest.raises(BundleError, match="held-out event 3 has 'VBF'"):
        write_bundle(tmp_path / "higgs", content, held_out, broken)


def test_without_events_to_compare_on_no_bundle_is_written(tmp_path, content, held_out):
    with pytest.raises(BundleError, match="no held-out event"):
        write_bundle(tmp_path / "higgs", content, held_out[:0], predict)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["higgs", "higgs.tar.gz"])
def test_a_bundle_replaces_the_one_before(tmp_path, content, held_out, target):
    write_bundle(tmp_path / target, content, held_out, predict)
    write_bundle(tmp_path / target, dataclasses.replace(content, metrics={"auc": 0.9}), held_out, predict)
    assert [entry.name for entry in tmp_path.iterdir()] == [target]
    with Bundle.open(tmp_path / target) as bundle:
        assert bundle.manifest.metrics == {"auc": 0.9}


def test_what_is_no_bundle_is_not_replaced(tmp_path, content, held_out):
    (tmp_path / "higgs").mkdir()
    (tmp_path / "higgs" / "thesis.tex").write_text("years of work")
    (tmp_path / "top.tar.gz").mkdir()
    for target in ("higgs", "top.tar.gz"):
        with pytest.raises(BundleError, match="something else of that name is there"):
            write_bundle(tmp_path / target, content, held_out, predict)
    assert (tmp_path / "higgs" / "thesis.tex").read_text() == "years of work"


def test_a_write_that_fails_leaves_the_old_bundle_and_no_pieces(tmp_path, content, held_out):
    write_bundle(tmp_path / "higgs", content, held_out, predict)
    before = (tmp_path / "higgs" / "manifest.json").read_bytes()
    large = dataclasses.replace(content, files={"scores.png": bytes(200_000)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(BundleError, match="it cannot be written: File too large"):
            write_bundle(tmp_path / "higgs", large, held_out, predict)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.name for entry in tmp_path.iterdir()] == ["higgs"]
    assert (tmp_path / "higgs" / "manifest.json").read_bytes() == before


def test_a_class_name_of_two_lines_is_refused(tmp_path, content, held_out):
    with pytest.raises(BundleError, match="one line of text"):
        write_bundle(tmp_path / "h", dataclasses.replace(content, labels=("a\nb", "c")), held_out, predict)


def test_a_target_inside_a_file_is_refused_before_anything_is_done(tmp_path):
    (tmp_path / "notes").write_text("a file")
    with pytest.raises(BundleError, match=r"nothing can be written into .*notes"):
        check_target(tmp_path / "notes" / "deeper" / "higgs.tar.gz")


@pytest.mark.parametrize("name", [".tar.gz", "-higgs", "hi ggs.tar.gz", "x" * 129, "hïggs", "higgs\n"])
def test_a_name_that_no_server_accepts_is_refused(tmp_path, name):
    with pytest.raises(ModelNameError):
        check_target(tmp_path / name)


def test_a_bundle_of_objects_with_logarithms_and_clips_gives_what_the_framework_gives(tmp_path, content, held_out):
    jets = (
        Feature("Jet_pt", True, 1, 5.0, 0.05, "log", 0.7, 2.0, (-3.0, 3.0)),
        Feature("Jet_eta", True, 1, clip=(-2.5, 2.5)),
    )
    encoding = Encoding(
        (Feature("MET_pt", False, 1), *jets), "objects", (Collection("Jet", ("Jet_pt", "Jet_eta"), "Jet_pt"),)
    )
    write_bundle(tmp_path / "higgs", dataclasses.replace(content, encoding=encoding), held_out, predict)
    with Bundle.open(tmp_path / "higgs") as bundle:
        assert bundle.encoding == encoding
        np.testing.assert_allclose(bundle.predict(held_out), predict(*encoding.scale_raw(held_out)), atol=1e-6)
