"""What goes wrong in a training, as a person sees it: one line, status 2, and nothing half-written."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from tests.conftest import write_tree_file
from tests.training.conftest import class_events

from mlaas4hep.cli.main import main

QUICK = ["training.epochs=2", "training.batch_size=64", "training.patience=9", "model.hidden=[8]"]
MODEL = """
import torch
from torch import nn

def model(idim):
    return nn.Linear(idim, 1), {loss}, lambda parameters: torch.optim.SGD(parameters, lr={rate})
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two small files; more columns than elsewhere: a constant, weights that are all zero, and weights with a negative sum."""
    monkeypatch.chdir(tmp_path)
    for label, name in enumerate(("background", "signal")):
        events = class_events(600, label, seed=label)
        del events["genWeight"], events["isSignal"]
        events["year"] = np.full(600, 2018, np.int32)
        events["empty"] = np.full(600, np.nan, np.float32)
        events["genZero"] = np.zeros(600, np.float32)
        events["genNegative"] = np.full(600, -1, np.float32)
        write_tree_file(tmp_path / f"{name}.root", events)
    return ["data.files=[background.root, signal.root]", "data.labels=[background, signal]"]


def fails(capsys, *arguments):
    """Run it, and return the one line that it says on standard error."""
    assert main(["train", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@contextlib.contextmanager
def files_of_at_most(size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def own_model(tmp_path, loss="None", rate="0.1"):
    (tmp_path / "own.py").write_text(MODEL.format(loss=loss, rate=rate))
    return "model=own.py"


def test_a_loss_that_turns_nan_names_epoch_batch_learning_rate_and_largest_feature(files, tmp_path, capsys):
    model = own_model(tmp_path, loss="lambda given, target: given.mean() * 1e30", rate="1e30")
    line = fails(capsys, *files, *QUICK[:3], model)
    assert line.startswith("mlaas4hep: the loss is ")
    assert "in epoch 1, batch 2, at a learning rate of 1e+30; the largest scaled value of that batch is" in line
    assert "a smaller learning rate" in line
    assert not (tmp_path / "trained" / "model.tar.gz").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["weights.branch=genZero"], "the weights of the 428 training events of class 'background' add up to 0;"),
        (["weights.branch=genNegative"], "of class 'background' add up to -428; it must be more than 0"),
        (["data.labels=[1, 1]"], "all files have the label '1'; a classification needs at least two classes"),
        (["data.labels=[1, 0, 2]"], "3 labels for 2 files; there must be one label for each input file"),
        (["data.labels=[1]"], "1 labels for 2 files"),
    ],
)
def test_weights_and_labels_that_cannot_be_learned_from_are_refused_in_one_line(
    files, tmp_path, capsys, arguments, said
):
    line = fails(capsys, *files, *QUICK, *arguments)
    assert said in line
    assert not (tmp_path / "trained" / "model.tar.gz").exists()


def test_constant_and_empty_features_are_named(files, capsys):
    assert main(["train", *files, *QUICK, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "nothing can be learned from 'empty', 'year': one value, or none, in all training events" in shown


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint_and_no_piece_of_a_bundle(files, tmp_path, capsys):
    trained = tmp_path / "trained"
    last, bundle = trained / "checkpoints" / "last.ckpt", trained / "model.tar.gz"
    with files_of_at_most(60_000):
        line = fails(capsys, *files, *QUICK)
    assert "model.tar.gz" in line
    assert "File too large" in line
    assert [path.name for path in trained.iterdir()] == ["checkpoints"]
    whole = last.read_bytes()
    with files_of_at_most(len(whole) // 2):
        line = fails(capsys, *files, *QUICK, "training.epochs=4", "training.checkpoint_every=0", "--resume")
    assert "last.ckpt: File too large; the one before is whole, --resume goes on from it" in line
    assert last.read_bytes() == whole
    assert main(["train", *files, *QUICK, "--resume"]) == 0
    assert "goes on after epoch 3, batch 0" in capsys.readouterr().out
    assert bundle.exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_command_ends_it_with_its_status_and_the_line_how_to_go_on(files, number, status):
    arguments = [*files, *QUICK, "training.epochs=100000", "training.patience=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlaas4hep.cli.main", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    last = said.strip().splitlines()[-1]
    assert "stopped in epoch" in last
    assert "--resume goes on from trained/checkpoints/last.ckpt" in last
