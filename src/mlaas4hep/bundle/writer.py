"""Write a bundle: complete the graph, check it against the framework, then rename it into place.

A bundle is written under a temporary name beside its target and renamed when it is whole, so nobody ever reads half
of one. Before that the graph, as it lies on disk, predicts held-out events from their raw values, and must give what
the framework gives from the scaled ones.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.archive import pack
from mlaas4hep.bundle.card import model_card
from mlaas4hep.bundle.graph import FEATURES, Output, complete_graph, output_name
from mlaas4hep.bundle.k_fold import KFold
from mlaas4hep.bundle.manifest import Manifest, Parity, file_sha256, installed_versions
from mlaas4hep.bundle.session import open_session
from mlaas4hep.bundle.verify import EXAMPLES_FILE, examples_json
from mlaas4hep.errors import BundleError, ModelNameError
from mlaas4hep.streaming.encoding.encoding import Encoding

__all__ = ["ARCHIVE_SUFFIXES", "TOLERANCE", "BundleContent", "check_target", "json_bytes", "write_bundle"]

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz")
CARD_FILE = "README.md"
TOLERANCE = 1e-5
RECORDED_PACKAGES = (
    "mlaas4hep",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "torch",
    "lightning",
    "keras",
    "xgboost-cpu",
    "scikit-learn",
    "skl2onnx",
    "uproot",
    "awkward",
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")

FrameworkPredict = Callable[[npt.NDArray[np.float32], npt.NDArray[np.bool_]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class BundleContent:
    """What goes into a bundle, whatever framework it comes from.

    Parameters
    ----------
    graph : bytes
        The framework's ONNX graph, on scaled values (:func:`~mlaas4hep.bundle.graph.complete_graph` says its form).
    output : Output
        What that graph gives.
    encoding : Encoding
        Places and scaling of the features.
    labels : tuple of str
        Name of each column of the bundle's output: the classes, the targets of a regression, or the one name of a reconstruction error.
    specs : mapping
        Content of ``specs.json``.
    framework : str
        Name of the framework.
    metrics, data, training : mapping
        For the manifest; ``metrics`` also for ``metrics.json``.
    description : str
        One line for people, in ``params.json``.
    files : mapping of str to bytes
        Further files, as plots, and those of each fold; ``/`` separates folders.
    targets : (scale, shift), optional
        Of a regression: what makes standardised values those of physics.
    k_fold : KFold, optional
        Where there are several models: how events are divided among them; ``files`` holds them, and ``graph`` gives their mean.
    """

    graph: bytes
    output: Output
    encoding: Encoding
    labels: tuple[str, ...]
    specs: Mapping[str, Any]
    framework: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    targets: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    k_fold: KFold | None = None


def check_target(target: Path) -> str:
    """Return the model's name that a target stands for, if a bundle can be written there.

    Called before a training too, so that hours of it are not lost for a name.

    Parameters
    ----------
    target : Path
        An archive if it ends in ``.tar.gz`` or ``.tgz``, else a folder.

    Raises
    ------
    ModelNameError
        If no server would accept the name.
    BundleError
        If something else of that name is there, or nothing can be written there.

    Examples
    --------
    >>> check_target(Path("higgs.tar.gz")), check_target(Path("higgs.v2"))
    ('higgs', 'higgs.v2')
    """
    name = target.name
    for suffix in ARCHIVE_SUFFIXES:
        name = name.removesuffix(suffix)
    if not NAME.fullmatch(name):
        raise ModelNameError(name)
    if os.path.lexists(target):
        archive = target.name.endswith(ARCHIVE_SUFFIXES)
        bundle = target.is_file() if archive else (target / "manifest.json").is_file() and not target.is_symlink()
        if not bundle:
            raise BundleError(str(target), "something else of that name is there; remove it or choose another name")
    above = next(folder for folder in target.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise BundleError(str(target), f"nothing can be written into {above}")
    return name


def write_bundle(
    target: Path,
    content: BundleContent,
    held_out: npt.NDArray[np.float32],
    framework_predict: FrameworkPredict,
    tolerance: float = TOLERANCE,
) -> Manifest:
    """Write a bundle, as an archive if the target ends in ``.tar.gz`` or ``.tgz`` and as a folder otherwise.

    A bundle that is there already is replaced; anything else of that name is left alone.

    Parameters
    ----------
    target : Path
        Where it goes; missing folders above it are made. Its name is the model's name.
    content : BundleContent
        What goes in.
    held_out : float32 array of shape ``[n, width]``
        Raw values of events to compare on, NaN where absent; at least one event.
    framework_predict : callable
        Takes scaled values and mask, as :meth:`Encoding.scale_raw` gives them, and returns what the bundle must give:
        float32 ``[n, columns]``.
    tolerance : float
        Largest difference that is accepted.

    Returns
    -------
    Manifest
        As it was written.

    Raises
    ------
    BundleError
        If the graph does not give the framework's numbers, cannot be executed, or the target is something else
        already.
    ModelNameError
        If the target's name cannot be a model's name.
    """
    name = check_target(target)
    created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    files = _files(name, content, created)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=target.parent) as temporary:
            folder = Path(temporary) / name
            folder.mkdir()
            for file, data in files.items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                _write(folder / file, data)
            parity, scores = _compare(content, folder / "model.onnx", held_out, framework_predict, tolerance=tolerance)
            manifest = Manifest(
                name=name,
                created=created,
                framework=content.framework,
                output=output_name(content.output),
                labels=content.labels,
                width=content.encoding.width,
                parity=parity,
                data=content.data,
                training=content.training,
                metrics=content.metrics,
                versions=installed_versions(RECORDED_PACKAGES),
                k_fold=content.k_fold,
            )
            explained = {
                EXAMPLES_FILE: examples_json(held_out, scores, manifest.output),
                CARD_FILE: model_card(manifest, content.encoding, content.description).encode(),
            }
            for file, data in explained.items():
                _write(folder / file, data)
            checksums = {file: file_sha256(folder / file) for file in sorted({*files, *explained})}
            manifest = dataclasses.replace(manifest, sha256=checksums)
            _write(folder / "manifest.json", json_bytes(manifest.to_dict()))
            _put_in_place(folder, target)
    except OSError as error:
        raise BundleError(str(target), f"it cannot be written: {error.strerror or error}") from error
    return manifest


def _files(name: str, content: BundleContent, created: str) -> dict[str, bytes]:
    """Return every file of the bundle but the manifest."""
    names = "".join(f"{label}\n" for label in content.labels)
    if tuple(names.splitlines()) != content.labels:
        raise BundleError(name, f"a class name must be one line of text; the names are {content.labels}")
    return {
        "model.onnx": complete_graph(
            content.graph, content.encoding, content.output, len(content.labels), content.targets
        ),
        "labels.txt": names.encode(),
        "params.json": json_bytes(_params(name, content, created)),
        "encoding.json": json_bytes(content.encoding.to_dict()),
        "specs.json": json_bytes(content.specs),
        "metrics.json": json_bytes(content.metrics),
        **content.files,
    }


def _put_in_place(folder: Path, target: Path) -> None:
    """Make the finished folder the target, or an archive of it, in one step."""
    if target.name.endswith(ARCHIVE_SUFFIXES):
        pack(folder, target)
    else:
        _sync(folder)
        if target.exists():
            target.rename(folder.with_name("replaced"))
        folder.rename(target)
    _sync(target.parent)


def _params(name: str, content: BundleContent, created: str) -> dict[str, Any]:
    """Return the parameters that TFaaS reads, under the names of today and of its older documentation."""
    output = output_name(content.output)
    return {
        "name": name,
        "model": "model.onnx",
        "labels": "labels.txt",
        "op": "",
        "input_name": FEATURES,
        "output_name": output,
        "input_node": FEATURES,
        "output_node": output,
        "img_channels": 0,
        "options": [],
        "description": content.description,
        "timestamp": created,
        "inputNode": FEATURES,
        "outputNode": output,
        "imgChannels": 0,
    }


def _compare(
    content: BundleContent,
    model: Path,
    held_out: npt.NDArray[np.float32],
    framework_predict: FrameworkPredict,
    *,
    tolerance: float,
) -> tuple[Parity, npt.NDArray[np.float32]]:
    """Compare the written graph with the framework; return what that gave, and the scores of the graph."""
    name = model.parent.name
    if len(held_out) == 0:
        raise BundleError(name, "there is no held-out event to compare graph and framework on")
    expected = framework_predict(*content.encoding.scale_raw(held_out))
    got = open_session(model).run(None, {FEATURES: held_out})[0]
    if expected.shape != got.shape:
        raise BundleError(name, f"the graph gives shape {got.shape}, the framework {expected.shape}")
    differences = np.abs(expected - got) / np.maximum(1, np.abs(expected))
    row, column = np.unravel_index(np.argmax(differences), differences.shape)  # argmax finds a NaN first
    largest = float(differences[row, column])
    if not largest <= tolerance:
        raise BundleError(
            name,
            f"graph and {content.framework} differ by {largest:.2g}, more than {tolerance:g}: held-out event {row} has"
            f" '{content.labels[column]}' {got[row, column]:.7g} and {expected[row, column]:.7g}",
        )
    return Parity(len(held_out), largest, tolerance), got


def json_bytes(value: object) -> bytes:
    """Return strict JSON, in which no token is NaN."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    _sync(path)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
