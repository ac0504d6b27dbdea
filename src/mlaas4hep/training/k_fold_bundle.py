"""Write the models of a k-fold as one bundle: each on raw values of all places, and the mean of all for everybody else."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.graph import FEATURES, Output, complete_graph
from mlaas4hep.bundle.k_fold import KFold
from mlaas4hep.bundle.k_fold_graph import common_encoding, common_graph, common_places, mean_graph
from mlaas4hep.bundle.manifest import Manifest
from mlaas4hep.bundle.preprocessing import preprocessing_copy
from mlaas4hep.bundle.session import open_session
from mlaas4hep.bundle.writer import TOLERANCE, BundleContent, json_bytes, write_bundle
from mlaas4hep.errors import BundleError
from mlaas4hep.streaming.encoding.encoding import Encoding

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset
    from mlaas4hep.training.frameworks.base import Trainer

__all__ = ["write_k_fold"]

COMPARED_EVENTS = 10_000


def write_k_fold(
    target: Path,
    parts: Sequence[Dataset],
    trainers: Sequence[Trainer],
    metrics: Mapping[str, Any],
    description: str,
    pages: Mapping[str, bytes],
) -> Manifest:
    """Write the bundle of all folds.

    Parameters
    ----------
    target : Path
        ``NAME.tar.gz``, or a folder.
    parts : sequence of Dataset
        The dataset as each fold divides it.
    trainers : sequence of Trainer
        The trained model of each.
    metrics : mapping
        For ``metrics.json``.
    description : str
        One line for people.
    pages : mapping of str to bytes
        Report and plots.

    Raises
    ------
    BundleError
        If the graph of a fold does not give what its framework gives, or the bundle cannot be written.
    """
    first = parts[0]
    classes = len(first.classes)
    encodings = [part.encoding for part in parts]
    common = common_encoding(encodings)
    graphs, files = [], dict(pages)
    held_out = _raw_events(first, common)
    for fold, (trainer, encoding) in enumerate(zip(trainers, encodings, strict=True)):
        graph, output = trainer.to_onnx()
        completed = common_graph(complete_graph(graph, encoding, output, classes), encoding, common)
        _compare(completed, held_out, _raw_predict(trainer, encoding, common)(held_out), fold)
        graphs.append(completed)
        files[f"folds/{fold}/model.onnx"] = completed
        files[f"folds/{fold}/encoding.json"] = json_bytes(encoding.to_dict())
    models = [_raw_predict(trainer, encoding, common) for trainer, encoding in zip(trainers, encodings, strict=True)]

    def mean(x: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        raw = np.where(mask, np.float32(np.nan), x)
        return np.asarray(sum(model(raw) for model in models) / np.float32(len(models)), np.float32)

    identifiers = tuple(first.roles.identifiers)
    k_fold = KFold(
        len(parts), first.split.salt, identifiers=identifiers, kind="identifiers" if identifiers else "entry"
    )
    content = BundleContent(
        graph=mean_graph(graphs, classes),
        output=Output.PROBABILITIES,
        encoding=common,
        labels=first.classes,
        specs=_specs(first),
        framework=trainers[0].framework,
        metrics=metrics,
        data=_provenance(first),
        training={"folds": len(parts), "validation": first.split.validation},
        description=description or f"classes {', '.join(first.classes)}, mean of {len(parts)} folds",
        files={**files, **preprocessing_copy(first.catalog.view.preprocessing)},
        k_fold=k_fold,
    )
    return write_bundle(target, content, held_out, mean)


def _raw_predict(trainer: Trainer, encoding: Encoding, common: Encoding) -> Any:
    """Return what predicts a fold's framework model from raw values of all places."""
    places = common_places(encoding, common)

    def predict(raw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return trainer.predict(*encoding.scale_raw(raw[:, places]))

    return predict


def _raw_events(dataset: Dataset, common: Encoding) -> npt.NDArray[np.float32]:
    """Return raw values of some thousand events, NaN where absent."""
    parts: list[npt.NDArray[np.float32]] = []
    for batch in dataset.stream(None, encoding=common, batch_size=4096, shuffle=True, weights="signed"):
        parts.append(np.where(batch.mask, np.float32(np.nan), batch.x))
        if sum(map(len, parts)) >= COMPARED_EVENTS:
            break
    return np.concatenate(parts)[:COMPARED_EVENTS]


def _compare(graph: bytes, raw: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], fold: int) -> None:
    """Check that the graph of a fold gives what its framework gives."""
    with tempfile.TemporaryDirectory(prefix="mlaas4hep-fold-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(graph)
        got = open_session(path).run(None, {FEATURES: raw})[0]
    difference = float(np.abs(expected - got).max()) if expected.shape == got.shape else np.inf
    if not difference <= TOLERANCE:
        raise BundleError("model.onnx", f"graph and framework of fold {fold} differ by {difference:.2g}")


def _specs(dataset: Dataset) -> dict[str, Any]:
    """Return statistics of all events; every one of them is a training event of some fold."""
    specs = dataset.specs
    split = {name: value for name, value in dataset.split.to_dict().items() if name not in ("fold", "test")}
    described = specs.to_dict()
    described["train"] = {**specs.ranges.to_dict(), "events": specs.ranges.events}
    if "source" in described:
        described["source"] = {**described["source"], "split": split}
    return described


def _provenance(dataset: Dataset) -> dict[str, Any]:
    """Return what the models were trained on; of the files the names, not where they lay."""
    files = [
        {"name": file.path.rsplit("/", 1)[-1], "uuid": file.uuid, "entries": file.entries}
        for file in dataset.catalog.files
    ]
    split = {name: value for name, value in dataset.split.to_dict().items() if name not in ("fold", "test")}
    events = sum(dataset.class_counts().values())
    description = {**dataset.describe(), "files": files, "split": split}
    return {**description, "excluded": dict(dataset.excluded), "events": {"all": events}}
