"""What executes models: one module for each kind of file, imported when the first such model is loaded.

A module has a function ``load(file: Path) -> Runtime``, which raises ``ValueError`` with the reason if the file must not or cannot be executed.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from mlaas4hep.inference.runtimes.base import Runtime, RuntimeFailure, Tensor

__all__ = ["RUNTIMES", "Runtime", "RuntimeFailure", "Tensor", "load"]

RUNTIMES = {
    ".onnx": "mlaas4hep.inference.runtimes.onnx",
}


def load(file: Path) -> Runtime:
    """Load a model by the ending of its file's name.

    Raises
    ------
    ValueError
        If no runtime takes such a file, or the runtime refuses it.
    """
    module = RUNTIMES.get(file.suffix.lower())
    if module is None:
        raise ValueError(
            f"model file '{file.name}' is of a kind that is not served; served are: {', '.join(sorted(RUNTIMES))}"
        )
    runtime: Runtime = import_module(module).load(file)
    return runtime
