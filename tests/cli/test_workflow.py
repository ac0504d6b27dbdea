"""``workflow.py`` from its command line: files that it reads and writes, and what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from tests.conftest import make_events, write_tree_file

from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.cli.workflow import main
from mlaas4hep.errors import SettingError

QUICK = {"epochs": 1, "batch_size": 64}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two files in one folder, of 400 and 300 events."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, events, seed in (("signal", 400, 1), ("background", 300, 2)):
        columns = make_events(events, seed, run=seed)
        write_tree_file(folder / f"{name}.root", columns | {"genWeight": np.ones(events, np.float32)})
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch, inputs):
    """A working folder with the lists that a user of the original has."""
    monkeypatch.chdir(tmp_path)
    Path("files.txt").write_text(f"# two files\n{inputs}/signal.root\n\n{inputs}/background.root\n")
    Path("labels.txt").write_text("# one a file\n1\n0\n")
    Path("params.json").write_text(json.dumps(QUICK))
    return tmp_path


def run(capsys, *arguments):
    status = main(arguments)
    said = capsys.readouterr()
    return status, said.out, said.err


def test_files_of_other_formats_are_read_by_their_extension_or_as_they_are_said_to_be(work, capsys):
    table = pa.table({"x": np.arange(50.0), "event": np.arange(50)})
    pa.parquet.write_table(table, work / "one.parquet")
    pa.csv.write_csv(table, work / "two.of_mine")
    status, _, err = run(capsys, "--files=one.parquet")
    assert (status, err) == (0, "")
    status, _, err = run(capsys, "--files=two.of_mine", "--dtype=csv")
    assert (status, err) == (0, "")
    found = [json.loads((work / f"specs-{name}.json").read_text()) for name in ("one", "two.of_mine")]
    assert [specs["maxv"]["x"] for specs in found] == [49, 49]


def test_without_a_model_it_writes_the_specs_and_says_the_reading_rates(work, capsys):
    status, out, err = run(capsys, "--files=files.txt")
    assert (status, err) == (0, "")
    assert {path.name for path in work.glob("*specs*.json")} == {
        "specs-signal.json",
        "specs-background.json",
        "global-specs.json",
    }
    parts = [json.loads((work / f"specs-{name}.json").read_text()) for name in ("signal", "background")]
    whole = json.loads((work / "global-specs.json").read_text())
    assert whole["events"]["total"] == 700
    assert whole["fkeys"] == ["MET_pt", "genWeight", "nJet_charge", "nJet_pt", "trigger"]
    assert whole["jkeys"] == ["Jet_charge", "Jet_pt"]
    for branch in (*whole["fkeys"], *whole["jkeys"]):
        assert whole["maxv"][branch] == max(part["maxv"][branch] for part in parts)
        assert whole["minv"][branch] == min(part["minv"][branch] for part in parts)
    assert re.search(r"signal\.root: 400 events, \(5-flat, 2-jagged\) branches, \d+\.\d+ sec, \d+\.\d kHz", out)
    assert "no --model and no --test: the specs are all there is to do" in out


def test_specs_in_the_working_folder_are_read_back_if_they_fit_and_made_anew_if_not(work, capsys, inputs):
    run(capsys, "--files=files.txt")
    written = Path("global-specs.json").stat().st_mtime_ns
    assert "loaded specs from global-specs.json" in run(capsys, "--files=files.txt")[1]
    assert Path("global-specs.json").stat().st_mtime_ns == written
    status, out, _ = run(capsys, f"--files={inputs}/signal.root")
    assert status == 0
    assert "global-specs.json does not fit (its files or their numbers of events are others: 2 files, here 1)" in out
    assert json.loads(Path("global-specs.json").read_text())["events"]["total"] == 400


def test_specs_of_the_original_are_accepted_with_a_warning(work, capsys):
    run(capsys, "--files=files.txt")
    specs = json.loads(Path("global-specs.json").read_text())
    original = {key: specs[key] for key in ("jdim", "minv", "maxv", "fkeys", "jkeys", "nans", "events")}
    Path("old.json").write_text(json.dumps(original))
    status, out, _ = run(capsys, "--files=files.txt", "--specs=old.json")
    assert status == 0
    assert "loaded specs from old.json" in out
    assert "its ranges are over all events" in out


def test_two_files_of_the_same_name_have_a_specs_file_each(work, capsys, inputs):
    other = work / "other"
    other.mkdir()
    write_tree_file(other / "signal.root", make_events(50, 9) | {"genWeight": np.ones(50, np.float32)})
    assert run(capsys, f"--files={inputs}/signal.root,{other}/signal.root")[0] == 0
    assert [json.loads(Path(f"specs-signal{n}.json").read_text())["events"]["total"] for n in ("", "-2")] == [400, 50]


def test_the_example_is_trained_and_its_bundle_written(work, capsys):
    status, out, err = run(
        capsys, "--files=files.txt", "--labels=labels.txt", "--test=pytorch", "--fout=out/higgs.tar.gz"
    )
    assert (status, err) == (0, "")
    assert "warning: generator-level branches are among the features: 'genWeight'" in out
    assert re.search(r"^epoch 1/1  loss \d\.\d{4}  validation loss \d\.\d{4}  AUC", out, re.MULTILINE)
    assert re.search(r"^epoch 1 of 1: AUC \d\.\d{4} ± \d\.\d{4}, accuracy", out, re.MULTILINE)
    assert "wrote out/higgs.tar.gz" in out
    with Bundle.open("out/higgs.tar.gz") as bundle:
        assert bundle.labels == ("0", "1")
        assert "genWeight" in bundle.encoding.branches  # as the original keeps it


def test_a_users_model_and_parameters_are_used(work, capsys, inputs):
    Path("my_model.py").write_text(
        "import torch\n\ndef model(idim):\n    print('features', idim)\n    return torch.nn.Linear(idim, 1)\n"
    )
    Path("mine.json").write_text(
        json.dumps(
            {
                "nevts": 350,
                "shuffle": False,
                "chunk_size": 10000,
                "epochs": 2,
                "batch_size": 100,
                "identifier": "",
                "branch": "Events",
                "selected_branches": "",
                "exclude_branches": ["run", "event", "luminosityBlock", "genWeight"],
                "hist": "pdfs",
                "redirector": "",
                "nan": "",
                "split": 0.5,
                "verbose": 1,
            }
        )
    )
    files = f"--files={inputs}/signal.root,{inputs}/background.root"
    status, out, err = run(capsys, files, "--labels=1,0", "--model=my_model.py", "--params=mine.json", "--fout=mine")
    assert (status, err) == (0, "")
    assert "warning" not in out
    assert "epoch 2/2" in out
    with Bundle.open("mine") as bundle:
        assert f"features {bundle.encoding.width}" in out
        assert bundle.encoding.branches == ("MET_pt", "nJet_charge", "nJet_pt", "trigger", "Jet_charge", "Jet_pt")
        assert bundle.manifest.data["split"]["test"] == 0.5
        assert sum(bundle.manifest.data["events"].values()) == 350


def test_without_labels_an_autoencoder_is_trained_and_that_is_said(work, capsys):
    status, out, _ = run(capsys, "--files=files.txt", "--test=pytorch", "--fout=unusual")
    assert status == 0
    assert "no labels: an autoencoder learns" in out
    with Bundle.open("unusual") as bundle:
        assert bundle.labels == ("reconstruction_error",)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--files=missing.root"], r"missing\.root: "),
        (["--files=files.txt", "--labels=1,0,1", "--test=pytorch"], "3 labels for 2 files"),
        (["--files=files.txt", "--labels=1,1", "--test=pytorch"], "all files have the label '1'"),
        (["--files=files.txt", "--labels=isSignl", "--test=pytorch"], "no branch 'isSignl'"),
        (["--files=files.txt", "--params=nowhere.json"], r"nowhere\.json: cannot be read: No such file"),
        (
            ["--files=files.txt", "--params=wrong.json"],
            r"no setting 'epoch'; nearest: 'epochs' \(wrong\.json, line 2\)",
        ),
        (["--files=files.txt", "--params=tree.json"], "no tree 'Evnts' in .*it holds 'Events'"),
        (["--files=files.txt", "--params=nan.json"], "setting 'nan' must be NaN or 0 .*; got -1"),
        (["--files=files.txt", "--model=nowhere.py"], r"model file nowhere\.py: there is no such file"),
        (["--files=files.txt", "--model=broken.py"], r"model file broken\.py: line 1: "),
        (["--files=files.txt", "--labels=1,0", "--test=caffe"], "'--test' must be 'pytorch' or 'keras'; got 'caffe'"),
        (["--files=files.txt", "--dtype=csv"], r"\.root: line \d+: "),
        (["--files=files.txt", "--dtype=xls"], "setting 'dtype' must be one of 'root', 'parquet', .*; got 'xls'"),
        (["--files=files.txt", "--preproc=p.py"], "p.py: there is no such file"),
        (["--files=files.txt", "--specs=nowhere.json"], r"nowhere\.json: no such file"),
        (["--files=files.txt", "--fout=x"], "--fout' must be given together with --model or --test"),
        (["--files=files.txt", "--model=m.py", "--test=pytorch"], "--test' must be left out"),
    ],
)
def test_wrong_input_is_one_line_that_says_what_would_be_right(work, capsys, arguments, said):
    Path("wrong.json").write_text('{\n  "epoch": 3\n}')
    Path("tree.json").write_text('{"branch": "Evnts"}')
    Path("nan.json").write_text('{"nan": -1}')
    Path("broken.py").write_text("def model(idim:\n")
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert err.startswith("workflow.py: ")
    assert err.count("\n") == 1
    assert re.search(said, err)


@pytest.mark.parametrize("asked", [["--verbose=2"], ["--params=loud.json"]])
def test_the_traceback_is_there_when_it_is_asked_for(work, asked):
    Path("loud.json").write_text('{"verbose": 2}')
    with pytest.raises(SettingError, match="'pytorch' or 'keras'"):
        main(["--files=files.txt", "--test=caffe", *asked])


@pytest.mark.slow
def test_logical_file_names_get_the_redirector(work, capsys):
    Path("params.json").write_text('{"redirector": "root://127.0.0.1:1"}')
    status, _, err = run(capsys, "--files=/store/data/no_such_file.root")
    assert status == 2
    assert err.startswith("workflow.py: root://127.0.0.1:1//store/data/no_such_file.root: ")


def test_help_needs_no_heavy_package():
    code = "import sys; from mlaas4hep.cli.workflow import _parser; _parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "lightning", "onnx", "matplotlib", "awkward", "rich"} & set(loaded)
