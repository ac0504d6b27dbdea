"""``mlaas4hep specs diff``: exit status, table and JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.conftest import make_events

import mlaas4hep
from mlaas4hep.cli.main import main


@pytest.fixture
def specs(write_tree, tmp_path):
    """Specs of 300 events, of the same without a branch and with others values, and the original's keys of the first."""
    events = make_events(300, 1)
    other = {name: values for name, values in events.items() if name != "trigger"} | {
        "MET_pt": events["MET_pt"] * np.float32(2)
    }
    mlaas4hep.open(write_tree("a.root", events)).specs.write(tmp_path / "a.json")
    mlaas4hep.open(write_tree("b.root", other)).specs.write(tmp_path / "b.json")
    known = json.loads((tmp_path / "a.json").read_text())
    original = {key: known[key] for key in ("jdim", "minv", "maxv", "fkeys", "jkeys", "nans", "events")}
    (tmp_path / "original.json").write_text(json.dumps(original))
    return tmp_path


def run(capsys, *arguments):
    status = main(["specs", "diff", *map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_equal_specs_give_status_0(specs, capsys):
    assert run(capsys, specs / "a.json", specs / "a.json") == (0, "the specs are equal\n", "")
    assert run(capsys, specs / "a.json", specs / "original.json")[0] == 0


def test_changes_are_a_table_and_status_1(specs, capsys):
    status, out, err = run(capsys, specs / "a.json", specs / "b.json")
    assert (status, err) == (1, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["branch", "trigger", "went", "flat", "–"] in lines
    assert any(line[:3] == ["branch", "MET_pt", "max"] for line in lines)
    assert not any("Jet_pt" in line for line in lines)
    assert any(line[:1] == ["file"] and "came" in line for line in lines)


def test_json_holds_each_change_with_its_numbers(specs, capsys):
    status, out, _ = run(capsys, specs / "a.json", specs / "b.json", "--json")
    changes = json.loads(out)["changes"]
    (mean,) = [one for one in changes if (one["name"], one["what"]) == ("MET_pt", "mean")]
    assert status == 1
    assert mean["after"] == pytest.approx(2 * mean["before"])
    assert {"part": "branch", "name": "trigger", "what": "there", "before": "flat", "after": None} in changes


def test_the_tolerance_is_relative(specs, capsys):
    changed = json.loads((specs / "original.json").read_text())
    changed["maxv"]["MET_pt"] *= 1.001
    (specs / "close.json").write_text(json.dumps(changed))
    assert run(capsys, specs / "original.json", specs / "close.json")[0] == 1
    assert run(capsys, specs / "original.json", specs / "close.json", "--tolerance=0.01")[0] == 0


@pytest.mark.parametrize("wrong", [["nowhere.json"], ["a.root"], ["a.json", "--tolerance=-1"]])
def test_errors_are_one_line_and_status_2(specs, capsys, wrong):
    status, out, err = run(capsys, specs / "a.json", specs / wrong[0], *wrong[1:])
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("mlaas4hep: ")
