"""``reader.py`` from its command line: the original's lines, the seed's commands, and what is ours."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.conftest import make_events, write_tree_file

from mlaas4hep.cli.reader import main
from mlaas4hep.streaming.statistics.specs import Specs

DATA = Path(__file__).parent.parent / "data"
NANO = DATA / "nanoAOD_2015_CMS_Open_Data_ttbar.root"


@pytest.fixture
def tau(tmp_path, monkeypatch):
    """A small file in the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_tree_file(tmp_path / "Tau.root", make_events(300, 1), clusters=(100, 200))


def run(capsys, *arguments):
    status = main([str(one) for one in arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_seeds_command_prints_the_originals_lines(capsys):
    status, out, err = run(capsys, f"--fin={NANO}", "--info", "--verbose=1", "--nevts=2000")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    number = r"\d+(\.\d+)?(e[+-]\d+)?"
    assert re.fullmatch(
        rf"First pass: 200 events, {number} sec, shape \(2466,\) 600 branches: flat 344 jagged", lines[0]
    )
    assert re.fullmatch(rf"VMEM used: {number} \(MB\) SWAP used: {number} \(MB\)", lines[1])
    assert lines[2:4] == ["Number of events  : 200", "# flat branches   : 600"]
    assert lines[604] == "# jagged branches : 344"
    assert any(re.fullmatch(r"Electron_mass values in \[.*, .*\] range, dim=3", line) for line in lines[605:])
    assert len(lines) == 605 + 344
    one = r"\S+ values in \[(-?\d\S*|N/A), (-?\d\S*|N/A)\] range, dim=(\d+|N/A)"
    assert all(re.fullmatch(one, line) for line in [*lines[4:604], *lines[605:]])
    assert all(line.endswith("dim=N/A") for line in lines[4:604])


def test_without_verbose_there_are_no_lines_of_branches(tau, capsys):
    _, out, _ = run(capsys, "--fin=Tau.root", "--info")
    assert out.splitlines()[2:] == ["Number of events  : 300", "# flat branches   : 4", "# jagged branches : 2"]
    assert out.startswith("First pass: 5 events, ")


def test_ranges_and_widths_are_of_the_events_that_were_read(tau, capsys):
    events = make_events(300, 1)
    _, out, _ = run(capsys, "--fin=Tau.root", "--info", "--verbose=1", "--nevts=50")
    low, high = events["MET_pt"][:50].min(), events["MET_pt"][:50].max()
    assert f"MET_pt values in [{float(low)}, {float(high)}] range, dim=N/A" in out
    widest = max(len(jets) for jets in events["Jet_pt"][:50])
    assert f" range, dim={widest}\n" in out.partition("Jet_pt values")[2]


def test_it_reads_events_and_says_the_rate(tau, capsys):
    status, out, err = run(capsys, "--fin=Tau.root")
    assert (status, err) == (0, "")
    assert re.fullmatch(r"Read 5 evts, \d+\.\d+ Hz, total time \d+\.\d+(e-\d+)?\n", out)
    assert run(capsys, "--fin=Tau.root", "--nevts=-1", "--chunk-size=7")[1].startswith("Read 300 evts, ")
    assert json.loads(run(capsys, "--fin=Tau.root", "--nevts=123", "--json")[1])["events"] == 123


def test_specs_are_written_and_read_back_in_place_of_a_first_pass(tau, capsys):
    assert run(capsys, "--fin=Tau.root", "--nevts=-1", "--fout=specs.json")[0] == 0
    specs = Specs.read("specs.json")
    assert specs.ranges.events == 300
    assert specs.flat == ("MET_pt", "nJet_charge", "nJet_pt", "trigger")
    _, out, _ = run(capsys, "--fin=Tau.root", "--specs=specs.json", "--info", "--verbose=1")
    assert out.splitlines()[0] == "Specs of 300 events from specs.json"
    assert (
        f"MET_pt values in [{specs.ranges.minimum['MET_pt']}, {specs.ranges.maximum['MET_pt']}] range, dim=N/A" in out
    )
    # A file of the original knows neither training events nor sources, and may be of another file.
    original = {
        key: json.loads(Path("specs.json").read_text())[key]
        for key in ("jdim", "minv", "maxv", "fkeys", "jkeys", "nans")
    }
    original["jdim"]["Jet_pt"] = 1
    Path("original.json").write_text(json.dumps(original))
    status, out, err = run(capsys, "--fin=Tau.root", "--specs=original.json", "--nevts=-1")
    assert (status, out.startswith("Read 300 evts")) == (0, True)
    assert re.search(r"\d+ values did not fit into the widths of the specs", err)


def test_events_are_shown_with_what_nan_says_in_empty_places(tau, capsys):
    _, out, _ = run(capsys, "--fin=Tau.root", "--verbose=2", "--nevts=20")
    shown = [json.loads(line.partition(") ")[2]) for line in out.splitlines() if line.startswith("# idx=")]
    assert len(shown) == 3
    assert None in shown[0] + shown[1] + shown[2]
    _, out, _ = run(capsys, "--fin=Tau.root", "--verbose=2", "--nevts=20", "--nan=-9")
    filled = [json.loads(line.partition(") ")[2]) for line in out.splitlines() if line.startswith("# idx=")]
    assert filled == [[-9.0 if value is None else value for value in row] for row in shown]


def test_csv_is_printed_as_columns_and_rows(tmp_path, capsys):
    (tmp_path / "e.csv").write_text("y,x,name\n1,2.5,a\n2,,b\n3,4.5,c\n")
    status, out, err = run(capsys, f"--fin={tmp_path}/e.csv", "--nevts=2")
    assert status == 0
    lines = out.splitlines()
    assert [json.loads(line) for line in lines[:3]] == [["x", "y"], [2.5, 1], [None, 2]]
    assert re.fullmatch(r"Read 2 evts, \d+\.\d+ Hz, total time \d+\.\d+(e-\d+)?", lines[3])
    assert "column 'name' is left out: it holds text" in err


def test_json_and_other_files_of_rows_are_printed_too(tmp_path, capsys):
    (tmp_path / "e.json").write_text('{"b": 1, "a": [1.5, 2]}\n{"b": 2, "a": []}\n')
    _, out, _ = run(capsys, f"--fin={tmp_path}/e.json", "--nevts=-1")
    assert [json.loads(line) for line in out.splitlines()[:3]] == [["a", "b"], [[1.5, 2.0], 1], [[], 2]]
    pa.parquet.write_table(pa.table({"x": np.arange(9)}), tmp_path / "e.of_mine")
    _, out, _ = run(capsys, f"--fin={tmp_path}/e.of_mine", "--dtype=parquet")
    assert out.splitlines()[:6] == ['["x"]', "[0]", "[1]", "[2]", "[3]", "[4]"]


def test_a_users_function_changes_the_columns_that_are_read(tmp_path, capsys):
    (tmp_path / "p.py").write_text('def preprocessing(rec):\n    rec["HT"] = 2 * rec["x"]\n    return rec\n')
    (tmp_path / "e.csv").write_text("x\n1.5\n2\n")
    _, out, _ = run(capsys, f"--fin={tmp_path}/e.csv", f"--preproc={tmp_path}/p.py")
    assert out.splitlines()[:3] == ['["HT", "x"]', "[3.0, 1.5]", "[4.0, 2.0]"]
    status, out, _ = run(capsys, f"--fin={tmp_path}/e.csv", f"--preproc={tmp_path}/p.py", "--info", "--verbose=1")
    assert (status, "HT values in [" in out) == (0, True)


def test_branches_are_chosen_by_pattern_list_and_file(tau, capsys):
    Path("leave-out.txt").write_text("# none of these\nJet_charge\n")
    _, out, _ = run(
        capsys, "--fin=Tau.root", "--info", "--verbose=1", "--branches=Jet_*", "--exclude-branches=leave-out.txt"
    )
    assert [line.split()[0] for line in out.splitlines() if " values in " in line] == ["Jet_pt"]
    _, out, _ = run(capsys, "--fin=Tau.root", "--info", "--verbose=1", "--identifier=event,MET_pt")
    assert "MET_pt" not in out
    assert "run values in" in out


def test_another_tree_is_read(capsys):
    for option in ("--branch", "--tree"):
        _, out, _ = run(capsys, f"--fin={DATA}/uproot-HZZ.root", f"{option}=events", "--info")
        assert "Number of events  : 2421" in out


def test_histograms_are_drawn_into_the_originals_folder(tau, capsys):
    status, out, _ = run(capsys, "--fin=Tau.root", "--nevts=-1", "--hists", "--branches=MET_pt,Jet_pt")
    assert (status, out.count("\n")) == (0, 1)
    assert sorted(path.name for path in Path("pdfs").iterdir()) == ["Jet_pt_orig.pdf", "MET_pt_orig.pdf"]


def test_the_information_is_json_when_asked_for(tau, capsys):
    _, out, _ = run(capsys, "--fin=Tau.root", "--info", "--json", "--nevts=-1")
    found = json.loads(out)
    assert found["events"] == 300
    assert found["branches"]["event"]["mark"] == "identifier"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fin=missing.root"], r"missing\.root: no such file"),
        (["--fin=missing.root", "--info"], r"missing\.root: no such file"),
        (["--fin=Tau.root", "--branch=Evnts"], "no tree 'Evnts' in .*it holds 'Events'"),
        (["--fin=Tau.root", "--branches=MET_p", "--info"], "no branch 'MET_p' .*nearest: 'MET_pt'"),
        (["--fin=Tau.root", "--nevts=0"], r"setting 'nevts' must be an integer ≥ 1, or -1 for all; got 0"),
        (["--fin=Tau.root", "--chunk-size=0"], "setting 'chunk-size' must be an integer ≥ 1; got 0"),
        (["--fin=Tau.root", "--specs=nowhere.json"], r"nowhere\.json: no such file"),
        (["--fin=Tau.root", "--fout=no/where.json"], "setting 'fout' must be a place that can be written"),
        (["--fin=Tau.root", "--dtype=xls"], "setting 'dtype' must be one of"),
    ],
)
def test_wrong_input_is_one_line_that_says_what_would_be_right(tau, capsys, arguments, said):
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert err.startswith("reader.py: ")
    assert err.count("\n") == 1
    assert re.search(said, err)


def test_ctrl_c_is_one_line(tmp_path):
    # The rows fill the pipe, which nobody empties, so that the signal meets a command that is at work.
    (tmp_path / "long.csv").write_text("x\n" + "1\n" * 50_000)
    command = [sys.executable, "-m", "mlaas4hep.cli.reader", f"--fin={tmp_path}/long.csv", "--nevts=-1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == '["x"]\n'
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "reader.py: stopped by the user\n")


def test_help_needs_no_heavy_package():
    code = "import sys; from mlaas4hep.cli.reader import _parser; _parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "matplotlib", "awkward", "rich", "numba"} & set(loaded)
