"""Files of scores are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import uproot

from mlaas4hep.errors import SettingError
from mlaas4hep.inference import score_files
from mlaas4hep.inference.score_files import open_score_file, read_about, remove_leftovers, sidecar
from mlaas4hep.inference.score_targets import targets_in

TYPES = {"entry": np.dtype(np.int64), "selected": np.dtype(np.bool_), "score": np.dtype(np.float32)}
ABOUT = {"inputs": [{"name": "a.root", "uuid": "u", "entries": 3}], "losses": []}
EXTENSIONS = (".root", ".parquet", ".csv")


def columns(rows):
    return {
        "entry": np.arange(rows),
        "selected": np.ones(rows, np.bool_),
        "score": np.linspace(0, 1, rows, dtype=np.float32),
    }


def write(path, rows=3):
    with open_score_file(path, TYPES, lambda: ABOUT) as scores:
        scores.write(columns(rows))


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("rows", [0, 3, 150_000])
def test_what_a_file_is_stands_in_it_when_it_is_whole(tmp_path, extension, rows):
    write(tmp_path / f"s{extension}", rows)
    about = read_about(tmp_path / f"s{extension}")
    assert about is not None
    assert about["rows"] == rows
    assert about["inputs"] == ABOUT["inputs"]
    expected = {f"s{extension}"} | ({"s.csv.json"} if extension == ".csv" else set())
    assert {path.name for path in tmp_path.iterdir()} == expected


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_file_that_was_cut_off_does_not_pass_for_whole(tmp_path, extension, share):
    path = tmp_path / f"s{extension}"
    write(path, 2000)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert read_about(path) is None


def test_a_csv_file_without_its_description_does_not_pass_for_whole(tmp_path):
    write(tmp_path / "s.csv")
    sidecar(tmp_path / "s.csv").unlink()
    assert read_about(tmp_path / "s.csv") is None


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # what interrupts a generator's end goes nowhere
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_an_interruption_at_any_line_leaves_a_whole_file_or_nothing(tmp_path, extension):
    """Ctrl-C is simulated at every line of the module, one after the other, until the file is written undisturbed."""
    path = tmp_path / f"s{extension}"
    source = score_files.__file__
    interrupted = 0
    for chosen in range(1000):
        seen = 0

        def at_line(frame, event, _, chosen=chosen):
            nonlocal seen
            if event == "line" and frame.f_code.co_filename == source and frame.f_code.co_name != "<lambda>":
                seen += 1
                if seen == chosen + 1:
                    raise KeyboardInterrupt
            return at_line

        def only_here(frame, event, argument, at_line=at_line):
            return at_line if frame.f_code.co_filename == source else None

        sys.settrace(only_here)
        try:
            write(path)
            break
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(None)
        left = {entry.name for entry in tmp_path.iterdir()} - {sidecar(path).name}
        assert left <= {path.name}, chosen
        assert not path.exists() or read_about(path) is not None or extension == ".csv"
        for entry in tmp_path.iterdir():
            entry.unlink()
    else:
        pytest.fail("it never ended")
    assert interrupted > 20
    assert read_about(path) is not None


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path):
    program = (
        "import sys, time, pathlib, numpy as np\n"
        "from mlaas4hep.inference.score_files import open_score_file\n"
        "with open_score_file(pathlib.Path(sys.argv[1]), {'entry': np.dtype(np.int64)}, dict) as scores:\n"
        "    print('open', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "s.root")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    (leftover,) = tmp_path.iterdir()
    remove_leftovers(tmp_path / "s.root")
    assert leftover.exists()
    process.kill()
    process.wait()
    process.stdout.close()
    remove_leftovers(tmp_path / "other.root")
    assert leftover.exists()
    remove_leftovers(tmp_path / "s.root")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(tmp_path, extension):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        with pytest.raises(SettingError, match="a place that can be written"):
            write(tmp_path / f"s{extension}", 500_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "plain").touch()
    write(tmp_path / "s.root")
    assert (tmp_path / "s.root").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"No such file.*none/s\.root"):
        write(tmp_path / "none" / "s.root")


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path):
    write(tmp_path / "s.root", 5)
    with pytest.raises(ZeroDivisionError), open_score_file(tmp_path / "s.root", TYPES, lambda: ABOUT) as scores:  # noqa: PT012
        scores.write(columns(9))
        raise ZeroDivisionError
    with uproot.open(tmp_path / "s.root") as file:
        assert file["Events"].num_entries == 5
    assert len(list(tmp_path.iterdir())) == 1


def test_inputs_of_one_name_keep_their_folders_and_others_do_not():
    inputs = [
        "root://host//store/run1/0000/n.root",
        "root://host//store/run1/0001/n.root",
        "root://host//store/run2/m.root",
    ]
    names = [str(target.path) for target in targets_in(Path("o"), inputs, ".s", ".root")]
    assert names == ["o/run1/0000/n.s.root", "o/run1/0001/n.s.root", "o/run2/m.s.root"]
    assert [str(t.path) for t in targets_in(Path("o"), ["/a/x.csv.gz", "/b/y.tar.root"], ".s", ".csv")] == [
        "o/x.s.csv",
        "o/y.tar.s.csv",
    ]
    with pytest.raises(SettingError, match=r"'/a/x.root' and '/a/x.parquet' would both be 'x.s.root'"):
        targets_in(Path("o"), ["/a/x.root", "/a/x.parquet"], ".s", ".root")
