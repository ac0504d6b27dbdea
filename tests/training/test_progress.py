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
    monkeypatch.setenv("COLUMNS", "100")
    output = Terminal()
    go_through(progress_for(output))
    shown = output.getvalue()
    assert "epoch 1/2  loss 0.5000  validation loss 0.4500  AUC 0.8100" in shown
    assert "/100" in shown
    assert "\x1b[?25h" in shown  # the cursor is back


@pytest.mark.parametrize("kind", [LineProgress, BarProgress])
def test_ending_twice_or_without_a_beginning_does_no_harm(kind):
    progress = kind(Terminal())
    progress.end()
    progress.begin(1, 10)
    progress.end()
    progress.end()
