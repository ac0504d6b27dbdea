"""How far a pass is: a bar on a terminal, a line now and then in a log, nothing for what is quick."""

from __future__ import annotations

import io
import subprocess
import sys

from mlaas4hep import progress_bar
from mlaas4hep.progress_bar import event_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_quick_pass_says_nothing_in_a_log():
    output = io.StringIO()
    with event_progress("Reading", output) as advance:
        for done in range(0, 1001, 100):
            advance(done, 1000, done * 8)
    assert output.getvalue() == ""


def test_a_long_pass_writes_a_line_now_and_then(monkeypatch):
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0.0)
    output = io.StringIO()
    with event_progress("Drawing", output, unit="branches") as advance:
        advance(250, 1000)
    assert output.getvalue().startswith("Drawing: 250 of 1,000 branches (25 %), ")
    assert output.getvalue().endswith(" s left\n")


def test_a_terminal_gets_a_bar_with_rates_that_goes_away(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    output = Terminal()
    with event_progress("Reading", output) as advance:
        advance(0, 1000)
        advance(1000, 1000, 8_000_000)
    shown = output.getvalue()
    assert "Reading" in shown
    assert "events/s" in shown
    assert "MB/s" in shown
    assert shown.rstrip().endswith("\x1b[2K")  # the line is empty again


def test_importing_it_loads_no_rich():
    code = "import sys, mlaas4hep.progress_bar; print('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
