"""The main job, as a newcomer runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MLAAS4HEP = Path(sys.executable).parent / "mlaas4hep"


NOT_BASIC = ("scipy", "sklearn", "xgboost", "keras", "skl2onnx", "torchdata", "moto", "nbclient")
"""Packages that the tests have and a user who installs the basic package has not."""


def test_the_demo_runs_from_root_files_to_a_served_prediction(tmp_path: Path) -> None:
    for package in NOT_BASIC:
        (tmp_path / "not_there" / package).mkdir(parents=True)
        (tmp_path / "not_there" / package / "__init__.py").write_text(f"raise ImportError('no {package}')\n")
    result = subprocess.run(
        [MLAAS4HEP, "demo", "--out", tmp_path / "out", "--epochs", "6"],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "not_there")},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    for said in (
        "48,000 events read",
        "left out, generator level: genWeight",
        "AUC 0.8",
        "All comparisons held",
        "serves higgs",
        "holds 0 models",
    ):
        assert said in result.stdout, said
    assert max(len(line) for line in result.stdout.splitlines()) <= 100 + len(str(tmp_path))
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "higgs.tar.gz",
        "roc.png",
        "scores.png",
        "scores.parquet",
    }
    for plot in ("roc.png", "scores.png"):
        assert (tmp_path / "out" / plot).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["demo", "--data", "nowhere"],
            "the example files VBF_HToTauTau.root and GluGluToHToTauTau.root are not there",
        ),
        (["predict", "--model", "none.tar.gz", "--files", "f.root", "--out", "s.root"], "none.tar.gz"),
        (
            ["predict", "--model", "none.tar.gz", "--files", "*.nothing", "--out", "s.root"],
            "no file matches this pattern",
        ),
        (["serve", "--models", "models", "--host", "0.0.0.0"], "loopback"),
    ],
)
def test_a_wrong_argument_gets_one_clear_line_and_exit_status_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = subprocess.run([MLAAS4HEP, *arguments], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("mlaas4hep: ")
    assert result.stderr.count("\n") == 1


def test_verbose_2_shows_the_traceback(tmp_path: Path) -> None:
    command = [MLAAS4HEP, "predict", "--model", "none", "--files", "x.root", "--out", "s.root", "--verbose", "2"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert "Traceback" in result.stderr
    assert result.returncode != 0


def test_help_names_every_command(tmp_path: Path) -> None:
    result = subprocess.run([MLAAS4HEP, "--help"], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=True)
    for command in ("demo", "predict", "serve", "workflow.py", "tfaas_client.py"):
        assert command in result.stdout
