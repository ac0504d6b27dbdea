"""What a person sees of a training, on a terminal and in a file."""

from __future__ import annotations

import io
import math

import pytest

from mlaas4hep.training.frameworks.base import EpochResult
from mlaas4hep.training.progress import BarProgress, LineProgress, progress_for

EPOCHS = [EpochResult(1, 0.5, 0.45, 0.81, 0.7, 1.25), EpochResult(2, 0.4, math.nan, math.nan, math.nan, 1.0)]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def go_through(progress):
    progress.begin(2, 100)
    for result in EPOCHS:
        for _ in range(4):
            progress.waiting(0.3)
            progress.advance(25, 0.5)
        progress.epoch(result)
    progress.end()


def test_in_a_file_each_epoch_is_one_plain_line_without_numbers_that_are_not_there():
    output = io.StringIO()
    go_through(progress_for(output))
    assert output.getvalue() == (
        "epoch 1/2  loss 0.5000  validation loss 0.4500  AUC 0.8100  accuracy 0.7000  1.2 s\n"
        "epoch 2/2  loss 0.4000  1.0 s\n"
    )


def test_on_a_terminal_the_lines_stand_above_a_bar_that_goes_away(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    output = Terminal()
    go_through(progress_for(output))
    shown = output.getvalue()
    assert "epoch 1/2  loss 0.5000  validation loss 0.4500  AUC 0.8100" in shown
    assert "\x1b[?25h" in shown  # the cursor is back


def test_the_bar_tells_loss_metric_rate_and_the_share_of_waiting(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    output = Terminal()
    progress = progress_for(output)
    progress.begin(2, 100)
    progress.epoch(EPOCHS[0])
    progress.waiting(0.3)
    progress.advance(25, 0.432)
    progress.note("the bar is drawn anew below this line")
    progress.end()
    shown = output.getvalue()
    assert "loss 0.432  AUC 0.810 30% waiting for data" in shown
    assert "events/s" in shown
    assert " 25%" in shown


@pytest.mark.parametrize("kind", [LineProgress, BarProgress])
def test_ending_twice_or_without_a_beginning_does_no_harm(kind):
    progress = kind(Terminal())
    progress.end()
    progress.begin(1, 10)
    progress.end()
    progress.end()


@pytest.mark.parametrize("output", [io.StringIO(), Terminal()])
def test_a_note_is_a_line_of_its_own_whenever_it_comes(output):
    progress = progress_for(output)
    progress.note("before [it] begins")
    progress.begin(1, 10)
    progress.note("goes on after epoch 2, batch 7")
    progress.end()
    lines = [line.strip() for line in output.getvalue().splitlines()]
    assert lines[0] == "before [it] begins"
    assert any("goes on after epoch 2, batch 7" in line for line in lines)


def test_the_share_of_the_time_that_waited_for_data_is_told_of_each_epoch():
    output = io.StringIO()
    progress = progress_for(output)
    progress.begin(1, 10)
    progress.epoch(EpochResult(1, 0.5, math.nan, math.nan, math.nan, 2.0, 0.333))
    assert output.getvalue() == "epoch 1/1  loss 0.5000  2.0 s, 33 % of it waiting for data\n"


def test_of_several_processes_only_the_first_says_something(monkeypatch):
    for rank, said in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        output = io.StringIO()
        progress_for(output).note("hello")
        assert bool(output.getvalue()) is said


def test_a_bar_that_goes_on_stands_where_the_epoch_was(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    output = Terminal()
    progress = progress_for(output)
    progress.begin(5, 100)
    progress.resume(3, 70)
    progress.end()
    assert "epoch 3/5" in output.getvalue()
    assert " 70%" in output.getvalue()
