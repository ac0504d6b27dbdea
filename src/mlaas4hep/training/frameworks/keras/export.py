"""A Keras model as ONNX, on the way that its backend has."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mlaas4hep.errors import MissingExtraError, ModelFileError
from mlaas4hep.training.frameworks.keras.library import keras
from mlaas4hep.training.frameworks.torch.export import quiet

__all__ = ["to_onnx"]


def to_onnx(model: Any, width: int, *, masks: bool, source: str) -> bytes:
    """Convert a model to ONNX.

    On PyTorch the model is a module, and goes the way of all modules. Elsewhere Keras' own export does it.

    Parameters
    ----------
    model : keras.Model
    width : int
        Number of places of the feature vector.
    masks : bool
        Whether its inputs are ``x`` and ``mask``.
    source : str
        Where the model comes from, for messages.

    Raises
    ------
    ModelFileError
        If a part of it has no counterpart in ONNX.
    MissingExtraError
        If the backend is TensorFlow and tf2onnx is not installed.
    """
    if keras.backend.backend() == "torch":
        return _through_torch(model, width, masks=masks, source=source)
    shapes = {"x": "float32", "mask": _mask_type(model)} if masks else {"x": "float32"}
    signature: Any = {
        name: keras.InputSpec(shape=(None, width), dtype=dtype, name=name) for name, dtype in shapes.items()
    }
    with tempfile.TemporaryDirectory(prefix="mlaas4hep-onnx-") as folder, quiet():
        file = Path(folder) / "model.onnx"
        try:
            model.export(
                str(file), format="onnx", verbose=False, input_signature=[signature if masks else signature["x"]]
            )
            return file.read_bytes()
        except ModuleNotFoundError as error:
            raise MissingExtraError(str(error.name), "tensorflow") from error
        except Exception as error:  # tf2onnx has no base class of its own errors
            raise ModelFileError(source, f"the model cannot be converted to ONNX: {_line(error)}") from error


def _through_torch(model: Any, width: int, *, masks: bool, source: str) -> bytes:
    import torch

    from mlaas4hep.training.frameworks.torch import export

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> Any:
            return self.model(x, training=False)

    class MaskedModule(Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:  # type: ignore[override]
            return self.model({"x": x, "mask": mask}, training=False)

    module = MaskedModule() if masks else Module()
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    try:
        with keras.device("cpu"):
            return export.to_onnx(export.trace(module.cpu(), width, source), source)
    finally:
        module.to(device)


def _mask_type(model: Any) -> str:
    return next(str(tensor.dtype) for tensor in model.inputs if tensor.name == "mask")


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
