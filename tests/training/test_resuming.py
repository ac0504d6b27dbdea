"""A training that is killed goes on, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mlaas4hep
from mlaas4hep.errors import TrainingError
from mlaas4hep.training.frameworks.base import NoProgress
from mlaas4hep.training.interruption import TrainingInterrupted
from mlaas4hep.training.workflow import train

SCRIPT = Path(__file__).parent / "killed_runs.py"


@pytest.fixture(scope="module")
def outcome(class_files, tmp_path_factory):
    """One training without a break, and the same one killed at five random moments inside its epochs."""
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", SCRIPT, folder, *class_files], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_each_of_five_processes_was_really_killed_inside_an_epoch(outcome):
    *killed, last = outcome["runs"]
    assert [run["status"] for run in killed] == [-9] * 5
    assert last["status"] == 0
    assert all(0 < run["begun"] + len(run["times"]) < outcome["batches"] for run in killed)


def test_after_five_kills_weights_losses_and_best_epoch_are_those_of_the_unbroken_training_to_the_bit(outcome):
    unbroken, broken = outcome["results"]
    assert len(unbroken["losses"]) == 3
    assert broken == unbroken


def test_no_more_batches_are_done_again_than_were_done_since_a_checkpoint_was_due(outcome):
    """A batch after which a checkpoint was due is followed by one, so what is lost began at most `every` before the last but one."""
    for run, following in zip(outcome["runs"], outcome["runs"][1:], strict=False):
        done, times = run["begun"] + len(run["times"]), run["times"]
        again = done - following["begun"]
        assert again >= 0
        if len(times) < 2:
            continue
        since_due = sum(time > times[-2] - outcome["every"] for time in times[:-1])
        assert again <= since_due + 1
    assert any(run["begun"] for run in outcome["runs"])


def test_train_goes_on_after_ctrl_c_and_refuses_other_files_with_the_reason(class_files, tmp_path):
    class Stopped(NoProgress):
        batches = 0

        def advance(self, events, loss):
            self.batches += 1
            if self.batches == 60:
                os.kill(os.getpid(), signal.SIGINT)

    choice = {"branches": ["MET_pt", "Jet_pt", "nElectron"]}
    dataset = mlaas4hep.open(class_files, labels=[0, 1], **choice)
    params = {"epochs": 3, "batch_size": 64}
    first = Stopped()
    with pytest.raises(TrainingInterrupted, match=r"stopped in epoch 2, .*--resume goes on from"):
        train(dataset, params=params, checkpoints=tmp_path / "broken", progress=first)
    resumed = train(dataset, params=params, checkpoints=tmp_path / "broken", resume=True)
    unbroken = train(dataset, params=params, checkpoints=tmp_path / "unbroken")
    for name, value in unbroken.trainer.module.state_dict().items():
        assert torch.equal(resumed.trainer.module.state_dict()[name], value)
    assert resumed.evaluation == unbroken.evaluation
    other = mlaas4hep.open(class_files[::-1], labels=[0, 1], **choice)
    with pytest.raises(
        TrainingError, match=r"is of another run: files was background\.root .* and is signal\.root .* now"
    ):
        train(other, params=params, checkpoints=tmp_path / "broken", resume=True)
    with pytest.raises(TrainingError, match="is of another run: batch_size was 64 and is 65 now"):
        train(dataset, params={**params, "batch_size": 65}, checkpoints=tmp_path / "broken", resume=True)
