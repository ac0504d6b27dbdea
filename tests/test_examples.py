"""The notebooks of examples/ run from their first cell to the last, in a copy of that folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"

# Jupyter's own: a notice about the folder of its configuration.
pytestmark = pytest.mark.filterwarnings("ignore:Jupyter is migrating:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return copy


@contextmanager
def executed(notebook: Path) -> Iterator[tuple[NotebookClient, Any]]:
    """Run all cells; then expressions can be evaluated where they ended."""
    cells = nbformat.read(notebook, as_version=4)
    client = NotebookClient(
        cells, timeout=240, kernel_name="python3", resources={"metadata": {"path": notebook.parent}}
    )
    with client.setup_kernel():
        for index, cell in enumerate(cells.cells):
            client.execute_cell(cell, index)
        yield client, cells


def value(client: NotebookClient, cells: Any, expression: str) -> str:
    """Evaluate an expression where the notebook ended."""
    cells.cells.append(nbformat.v4.new_code_cell(f"print({expression})"))
    client.execute_cell(cells.cells[-1], len(cells.cells) - 1)
    return str(cells.cells[-1].outputs[0].text)


def test_the_loader_with_a_hand_written_loop_learns_to_tell_the_classes_apart(folder: Path) -> None:
    with executed(folder / "loader.ipynb") as (client, cells):
        assert 0.83 < float(value(client, cells, "auc")) < 0.92  # above 0.93 an identifier has leaked
        losses = [float(loss) for loss in value(client, cells, "*losses").split()]
        assert losses[2] < losses[1] < losses[0]
        assert int(value(client, cells, "int(events)")) == int(value(client, cells, "dataset.specs.train.events"))


def test_notebooks_are_stored_without_outputs() -> None:
    notebooks = sorted(EXAMPLES.glob("*.ipynb"))
    assert notebooks
    for notebook in notebooks:
        cells = nbformat.read(notebook, as_version=4).cells
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), notebook.name
