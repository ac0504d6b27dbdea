"""``mlaas4hep inspect`` from its command line: tables, JSON, the page and pictures."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
import uproot
from tests.conftest import make_events

from mlaas4hep.cli.main import main


def run(capsys, *arguments):
    status = main(["inspect", *map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


def on_terminal(columns, *arguments):
    """Run the command on a terminal of some width; return its lines without colours."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "mlaas4hep.cli.main", "inspect", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=follower, stderr=subprocess.DEVNULL, env=environment)
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    assert process.wait(60) == 0
    return shown.decode(), [
        re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in shown.decode().splitlines()
    ]


def test_in_a_pipe_it_is_a_plain_table(write_tree, capsys):
    events = make_events(200, 1)
    status, out, err = run(capsys, write_tree("a.root", events), "--branches=MET_pt,Jet_pt,run")
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    rows = {
        line.split()[0]: line.split()
        for line in out.splitlines()
        if line.startswith(("branch", "MET_pt", "Jet_pt", "run"))
    }
    titles = ["branch", "type", "widest", "empty", "NaN", "min", "max", "mean", "std", "median", "mark"]
    assert rows["branch"] == titles
    assert rows["MET_pt"][:2] == ["MET_pt", "float32"]
    assert rows["MET_pt"][-3] == f"{events['MET_pt'].mean():.4g}"
    assert rows["Jet_pt"][1:3] == ["float32[]", "4"]
    assert rows["run"][-1] == "identifier"


@pytest.mark.parametrize("columns", [80, 160])
def test_on_a_terminal_the_table_fits_and_draws_the_values(columns, higgs_files):
    _, lines = on_terminal(columns, higgs_files[0], "--nevts=500", "--sort=max")
    assert max(len(line) for line in lines) <= columns
    (titles,) = [line.split() for line in lines if line.startswith("branch")]
    assert {"min", "max", "mean", "values"} <= set(titles)
    assert ("median" in titles) == (columns == 160)
    assert any(line.startswith("Jet_pt") and set(line) & set("▁▂▃▄▅▆▇█") for line in lines)
    highest = [line.split()[0] for line in lines if set(line) & set("▁▂▃▄▅▆▇█")]
    assert highest.index("event") < highest.index("MET_pt") < highest.index("Jet_eta")
    if columns == 80:
        assert "a wider terminal shows" in " ".join(lines)


def test_names_that_steer_terminals_are_shown_as_text(tmp_path, capsys):
    name = "[red]x\x1b]0;owned\x07"
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree("Events", {name: np.float32})
        file["Events"].extend({name: np.arange(3, dtype=np.float32)})
    shown, _ = on_terminal(100, tmp_path / "a.root")
    assert "\x1b]0" not in shown
    assert "[red]x" in shown
    _, out, _ = run(capsys, tmp_path / "a.root")
    assert "\x1b" not in out


def test_json_holds_everything(higgs_files, capsys):
    _, out, _ = run(capsys, *higgs_files, "--json", "--branches=nJet,genWeight")
    found = json.loads(out)
    assert found["events"] == 48_000
    assert [file["entries"] for file in found["files"]] == [24_000, 24_000]
    jets = found["branches"]["nJet"]
    assert sum(jets["histogram"]["counts"]) == 48_000
    assert [sum(file["histogram"]["counts"]) for file in jets["files"]] == [24_000, 24_000]
    assert found["branches"]["genWeight"]["mark"] == "generator level"


def test_the_page_and_the_pictures_are_written(higgs_files, tmp_path, capsys):
    page, folder = tmp_path / "report.html", tmp_path / "plots"
    status, out, _ = run(
        capsys, higgs_files[0], "--branches=MET_*", "--nevts=200", "--html", page, "--hists", folder, "--format=pdf"
    )
    assert status == 0
    assert page.read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in folder.iterdir()) == ["MET_phi.pdf", "MET_pt.pdf", "MET_sumEt.pdf"]
    assert out.splitlines()[-2:] == [str(page), str(folder)]


def test_bad_files_are_reported_below_the_table(write_tree, tmp_path, capsys):
    good = write_tree("good.root", {"x": np.arange(5.0)})
    (tmp_path / "bad.root").write_bytes(b"nothing")
    status, out, _ = run(capsys, good, tmp_path / "bad.root", "--on-bad-file=skip")
    assert status == 0
    assert "1 whole file was lost" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.root"], r"missing\.root: no such file"),
        (["a.root", "--tree=Evnts"], "no tree 'Evnts'"),
        (["a.root", "--branches=yy*"], r"no branch 'yy\*'"),
        (["a.root", "--html=no/where.html"], "setting 'html' must be a place that can be written"),
        (["a.root", "--hists=a.root"], "setting 'hists' must be a place that can be written"),
        (["a.root", "--nevts=0"], "must be an integer ≥ 1"),
        (["a.root", "a.root"], "listed twice"),
    ],
)
def test_wrong_input_is_one_line_that_says_what_would_be_right(
    write_tree, tmp_path, monkeypatch, capsys, arguments, said
):
    monkeypatch.chdir(tmp_path)
    write_tree("a.root", {"x": np.arange(5.0)})
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert err.startswith("mlaas4hep: ")
    assert err.count("\n") == 1
    assert re.search(said, err)
