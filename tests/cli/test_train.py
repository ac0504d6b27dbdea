"""``mlaas4hep train`` as a person runs it, on small files."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from tests.training.conftest import class_files  # noqa: F401 - a fixture

from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.cli.main import main

QUICK = ["training.epochs=2", "training.batch_size=64", "model.hidden=[8]"]


@pytest.fixture
def work(class_files, tmp_path, monkeypatch):  # noqa: F811
    """Work in an empty folder; return what names the files."""
    monkeypatch.chdir(tmp_path)
    return [f"data.files=[{', '.join(class_files)}]", "data.labels=[background, signal]"]


def test_the_example_trains(work, tmp_path, capsys):
    assert main(["train", "--init", "config.yaml"]) == 0
    assert main(["train", "config.yaml", *work, *QUICK]) == 0
    shown = capsys.readouterr().out
    assert "left out, since only simulation has them: genWeight" in shown
    assert re.search(r"train: [\d,]+ events \(background: [\d,]+, signal: [\d,]+\)", shown)
    assert re.search(r"epoch \d of 2: AUC 0\.\d+ ± ", shown)
    trained = tmp_path / "trained"
    assert {"model.tar.gz", "metrics.json", "config.resolved.yaml", "report.html", "plots", "checkpoints"} == {
        path.name for path in trained.iterdir()
    }
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["test"]["auc"] > 0.7
    with Bundle.open(trained / "model.tar.gz") as bundle:
        assert bundle.labels == ("background", "signal")
        assert "genWeight" not in bundle.encoding.branches
        recorded = bundle.manifest.training
    assert recorded["settings"]["training"]["epochs"] == recorded["epochs"] == 2
    assert recorded["settings"]["data"]["files"] == ["background.root", "signal.root"]
    assert recorded["model_settings"]["hidden"] == [8]


def test_the_resolved_settings_train_the_same_again(work, tmp_path):
    assert main(["train", *work, *QUICK, "output.folder=first"]) == 0
    assert main(["train", "first/config.resolved.yaml", "--set", "output.folder=second"]) == 0
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("first", "second"))
    assert first["test"] == second["test"]
    resolved = [yaml.safe_load((tmp_path / name / "config.resolved.yaml").read_text()) for name in ("first", "second")]
    assert resolved[0]["output"].pop("folder") == "first"
    assert resolved[1]["output"].pop("folder") == "second"
    assert resolved[0] == resolved[1]


def test_a_dry_run_shows_settings_and_dataset_and_writes_nothing(work, tmp_path, capsys):
    assert main(["train", *work, "training.seed=7", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert yaml.safe_load(shown.partition("\n\n")[0])["training"]["seed"] == 7
    assert "Dataset of 2 files, 3000 events" in shown
    assert list(tmp_path.iterdir()) == []


def test_a_feature_that_separates_alone_is_named(work, capsys):
    assert main(["train", *work, "data.identifiers=[event]", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "warning: feature 'run' alone separates class 'signal'" in shown
    assert "warning: feature 'isSignal' alone" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["training.epochs=ten"],
            r"setting 'training.epochs' must be an integer ≥ 1; got 'ten' \(on the command line\)",
        ),
        (["training.epoch=1"], "no setting 'training.epoch'; nearest: 'training.epochs'"),
        (["model.file=nowhere.py"], "nowhere.py: there is no such file"),
        (
            ["model=transformer", "vector.layout=flat"],
            "setting 'vector.layout' must be 'objects' for the model 'transformer'",
        ),
        (["output.name=a b"], "'a b' is not accepted"),
        (["output.folder=taken"], r"'output.folder' must be a new folder, or one of a training; it holds 'thesis.tex'"),
        (["data.files=[nowhere.root, b.root]"], "nowhere.root"),
        (
            ["output.checkpoints=false", "--resume"],
            "'output.checkpoints' must be true where a training is to be resumed",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(work, tmp_path, capsys, arguments, said):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("no model")
    assert main(["train", *work, *QUICK, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mlaas4hep: ")
    assert error.count("\n") == 1
    assert re.search(said, error), error
    assert {path.name for path in tmp_path.iterdir()} <= {"taken", "trained"}


def test_an_example_is_not_written_over_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("precious")
    assert main(["train", "--init", "config.yaml"]) == 2
    assert "must be the name of a new file" in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_text() == "precious"


def test_an_example_can_be_of_any_built_in_model_and_go_to_the_terminal(capsys):
    assert main(["train", "--init", "transformer"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["model"]["name"] == "transformer"
    assert shown["model"]["heads"] == 4


def test_an_own_model_gets_its_settings(work, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n"
        "def model(idim, outputs, width=4):\n"
        "    assert width == 6\n"
        "    return nn.Sequential(nn.Linear(idim, width), nn.ReLU(), nn.Linear(width, outputs))\n"
    )
    quick = ["training.epochs=1", "output.checkpoints=false"]
    assert main(["train", *work, *quick, "model=mine.py", "model.width=6"]) == 0
    assert not (tmp_path / "trained" / "checkpoints").exists()
    assert main(["train", *work, *quick, "model=mine.py", "model.widht=6"]) == 2
    assert "no setting 'model.widht'; nearest: 'model.width'" in capsys.readouterr().err


def test_a_k_fold_makes_one_bundle_of_k_models(work, tmp_path, capsys):
    assert main(["train", *work, *QUICK, "training.epochs=1", "split.folds=2", "output.folder=folds"]) == 0
    assert re.search(r"2 folds: AUC 0\.\d+ ± .* on [\d,]+ events", capsys.readouterr().out)
    metrics = json.loads((tmp_path / "folds" / "metrics.json").read_text())
    assert metrics["test"]["events"] == 3000
    assert (tmp_path / "folds" / "model.tar.gz").is_file()
