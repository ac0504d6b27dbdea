"""Give a bundle away: to Triton, or as a program of PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlaas4hep.atomic import atomic_file
from mlaas4hep.bundle.graph import FEATURES
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.bundle.torch_graph import torch_module
from mlaas4hep.bundle.triton import export_triton
from mlaas4hep.bundle.verify import TOLERANCE, read_examples
from mlaas4hep.errors import BundleError, SettingError

__all__ = ["EXPORTS", "export_bundle"]


def export_bundle(bundle: Bundle | str | Path, form: str, out: str | Path) -> Path:
    """Export a bundle.

    Parameters
    ----------
    bundle : Bundle, str or Path
        Of a k-fold, what is exported gives the mean of all models.
    form : {"triton", "torch"}
        ``triton``: ``out`` is a model repository, and gets the next version of the model. ``torch``: ``out`` is a file, ``.pt2``, that
        ``torch.export.load`` reads; it takes and gives what the graph does.
    out : str or Path

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    SettingError
        If there is no such form.
    BundleError
        If the model cannot be had in that form, or gives other scores there, or cannot be written.
    """
    if form == "tensorflow":
        raise SettingError(
            "format",
            "triton or torch: nothing that makes a SavedModel of ONNX works with this package's versions; Triton serves the ONNX file itself",
            form,
        )
    if form not in EXPORTS:
        raise SettingError("format", f"one of {', '.join(EXPORTS)}", form)
    if not isinstance(bundle, Bundle):
        with Bundle.open(bundle) as opened:
            return EXPORTS[form](opened, Path(out))
    return EXPORTS[form](bundle, Path(out))


def _export_torch(bundle: Bundle, out: Path) -> Path:
    """Write a program for ``torch.export.load``."""
    import onnx
    import torch

    if out.suffix != ".pt2":
        raise SettingError("out", "a file name that ends in .pt2, as torch.export.load wants it", str(out))
    module = torch_module(onnx.load(bundle.folder / "model.onnx"))
    examples = read_examples(bundle)
    width = bundle.encoding.width
    raw = np.full((3, width), np.nan, np.float32) if examples is None else examples[0]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        try:
            program = torch.export.export(
                module, (torch.zeros(3, width),), dynamic_shapes={FEATURES: {0: torch.export.Dim.DYNAMIC}}
            )
            got = program.module()(torch.from_numpy(raw)).numpy()
        except BundleError:
            raise
        except Exception as error:  # torch.export has no base class of its own errors
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BundleError(str(bundle.source), f"PyTorch cannot make a program of its graph: {first}") from error
    expected = bundle.predict(raw)
    difference = float(np.max(np.abs(got - expected) / np.maximum(1, np.abs(expected))))
    if not difference <= TOLERANCE:
        raise BundleError(
            str(bundle.source), f"as a PyTorch program it gives other scores: they differ by {difference:.2g}"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(out) as file:
            torch.export.save(program, file)
    except OSError as error:
        raise BundleError(str(out), f"it cannot be written: {error.strerror or error}") from error
    return out


EXPORTS: dict[str, Callable[[Bundle, Path], Path]] = {"triton": export_triton, "torch": _export_torch}
"""Name of each form → what writes it."""
