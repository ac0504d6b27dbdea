"""Two real processes learn one model, each from its share of the events."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import write_tree_file
from tests.training.conftest import class_events

SCRIPT = Path(__file__).parent / "two_processes.py"


@pytest.fixture(scope="module")
def outcome(class_files, tmp_path_factory):
    """What one process and what two ended with; and two of files that cannot be shared."""
    folder = tmp_path_factory.mktemp("processes")
    files = [
        write_tree_file(folder / f"{label}.root", class_events(1500, label, seed=label), clusters=[400, 900])
        for label in (0, 1)
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", SCRIPT, folder, *files, *class_files],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_both_end_with_the_same_weights_and_numbers(outcome):
    first, second = outcome[1]
    assert first["weights"] == second["weights"]
    assert first["epochs"] == second["epochs"]
    assert len(first["epochs"]) == 2


def test_shares_of_unequal_length_take_as_many_steps_as_the_longest_and_each_event_is_learned_from_once(outcome):
    first, second = outcome[1]
    shares = first["shares"]
    assert shares[0] != shares[1]
    assert max(first["steps"], second["steps"]) == 2 * max(shares)
    # Each process is told of the events of both, in the steps for which it had events of its own.
    longest = first if shares[0] > shares[1] else second
    assert longest["events"] == 2 * sum(first["train"].values())


def test_metrics_are_over_the_events_of_both(outcome):
    (alone,), (first, _) = outcome[:2]
    for one in (alone, first):
        assert one["epochs"][one["best"] - 1][1:] == pytest.approx(one["over_all"], rel=1e-5)
    assert alone["weights"] != first["weights"]


def test_only_the_first_process_writes(outcome):
    assert outcome[1][0]["wrote"] == ["best.ckpt", "last.ckpt"]


def test_files_that_cannot_be_shared_end_both_processes_with_the_reason(outcome):
    for ended in outcome[2]:
        assert "only 1 of 2 processes have events to learn from; start fewer" in ended["error"]


def test_two_processes_resume_what_two_began_and_one_is_refused(outcome):
    before, resumed, (alone,) = outcome[1], outcome[3], outcome[4]
    assert [one["steps"] for one in resumed] == [0, 0]
    assert [one["weights"] for one in resumed] == [one["weights"] for one in before]
    assert "is of another run: processes was 2 and is 1 now" in alone["error"]
