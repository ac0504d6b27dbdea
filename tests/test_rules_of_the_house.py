"""The rules of docs/architecture.md: who may import whom, and that nothing heavy is loaded before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "mlaas4hep"

MAY_IMPORT = {
    "streaming": set(),
    "bundle": {"streaming"},
    "training": {"streaming", "bundle"},
    "inference": {"streaming", "bundle"},
}
ROOMS = {*MAY_IMPORT, "cli"}
HEAVY = {
    "torch",
    "lightning",
    "keras",
    "tensorflow",
    "onnx",
    "onnxruntime",
    "matplotlib",
    "mplhep",
    "numba",
    "uproot",
    "awkward",
    "pyarrow",
    "numpy",
}


def imported_modules(module: Path) -> set[str]:
    """All modules that a file names in imports, wherever they stand."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(module: Path) -> set[str]:
    """Rooms of the package that a file imports from."""
    own = {name.split(".")[1] for name in imported_modules(module) if name.startswith("mlaas4hep.") and name.count(".")}
    return own & ROOMS


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_layer_imports_only_what_stands_before_it_in_the_flow(room: str) -> None:
    modules = sorted((SOURCE / room).rglob("*.py"))
    assert modules
    for module in modules:
        assert rooms_imported(module) <= MAY_IMPORT[room] | {room}, module


def loaded_by(statement: str) -> set[str]:
    """Top-level names of all modules that a fresh interpreter has after a statement."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(result.stdout.split("\n")[-2].split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_by("import mlaas4hep") & HEAVY


@pytest.mark.parametrize(
    "module", sorted(path.stem for path in (SOURCE / "cli").glob("*.py") if path.stem != "__init__")
)
def test_a_command_module_loads_nothing_heavy(module: str) -> None:
    assert not loaded_by(f"import mlaas4hep.cli.{module}") & HEAVY


def test_the_server_needs_no_training_framework_and_no_reader() -> None:
    loaded = loaded_by("import mlaas4hep.inference.server")
    assert not loaded & {"torch", "lightning", "numba", "uproot", "awkward", "matplotlib"}


def test_the_public_names_are_there() -> None:
    import mlaas4hep

    for name in mlaas4hep.__all__:
        assert getattr(mlaas4hep, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = mlaas4hep.nothing
