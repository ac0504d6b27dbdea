"""The job: a dataset and a model become a trained model, its metrics, its plots and its bundle.

Everything that can be wrong with the model is found before the first epoch. The validation part stops the training
and picks the epoch; the test part is evaluated once, at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.manifest import Manifest
from mlaas4hep.bundle.writer import BundleContent, check_target, write_bundle
from mlaas4hep.errors import LabelError, ModelFileError, TrainingError
from mlaas4hep.settings import flag, integer, read_settings, setting
from mlaas4hep.streaming.encoding import Encoding
from mlaas4hep.training.evaluation import Evaluation, evaluate
from mlaas4hep.training.frameworks import FRAMEWORKS, framework_of, trainer_for
from mlaas4hep.training.frameworks.base import FitSettings, History, NoProgress, Progress, Task, Trainer
from mlaas4hep.training.model_file import call_model, load_model_function
from mlaas4hep.training.models import BUILT_IN, built_in_model
from mlaas4hep.training.plots import draw_roc, draw_scores
from mlaas4hep.training.seeding import reproducible

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset
    from mlaas4hep.streaming.splitting import Fold

__all__ = ["RECONSTRUCTION_ERROR", "TrainingParams", "TrainingResult", "train"]

RECONSTRUCTION_ERROR = "reconstruction_error"
COMPARED_EVENTS = 10_000  # of framework and bundle
DRAWN_TRAINING_EVENTS = 50_000
ROWS_AT_ONCE = 4096

Judged = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class TrainingParams:
    """How a model is trained."""

    epochs: int = setting(integer(1), 20, "passes over the training events at most")
    batch_size: int = setting(integer(1), 256, "events of one step")
    patience: int = setting(integer(1), 4, "epochs without a smaller validation loss after which the training stops")
    shuffle: bool = setting(flag(), True, "whether training events come in random order, another one each epoch")
    seed: int = setting(integer(0), 0, "what all random numbers follow from")


@dataclass(frozen=True)
class TrainingResult:
    """What a training gave.

    Parameters
    ----------
    trainer : Trainer
        The trained model; ``predict(x, mask)`` takes scaled values.
    history : History
        What each epoch gave.
    evaluation : Evaluation or None
        On the test part; None without labels or without test events.
    events : mapping of str to int
        Number of events of each fold.
    metrics : mapping
        All numbers, as they stand in ``metrics.json``.
    plots : mapping of str to bytes
        File name → PNG.
    bundle : Path or None
        Where the bundle was written.
    manifest : Manifest or None
        Of that bundle.
    """

    trainer: Trainer
    history: History
    evaluation: Evaluation | None
    events: Mapping[str, int]
    metrics: Mapping[str, Any]
    plots: Mapping[str, bytes]
    bundle: Path | None
    manifest: Manifest | None

    def __str__(self) -> str:
        best = self.history.epochs[self.history.best_epoch - 1]
        chosen = f"epoch {best.epoch} of {len(self.history.epochs)}"
        if self.evaluation is None:
            return f"{chosen}, loss {best.loss:.4g}"
        return f"{chosen}: {self.evaluation}"

    def save_plots(self, folder: Path) -> list[Path]:
        """Write the plots into a folder, which is made if it is not there, and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, png in self.plots.items():
            (folder / name).write_bytes(png)
        return [folder / name for name in self.plots]


def train(
    dataset: Dataset,
    model: object = "pytorch",
    *,
    params: TrainingParams | Mapping[str, object] | None = None,
    out: str | Path | None = None,
    checkpoints: str | Path | None = None,
    description: str = "",
    progress: Progress | None = None,
) -> TrainingResult:
    """Train a model on a dataset, judge it on held-out events, and write its bundle.

    Parameters
    ----------
    dataset : Dataset
        From :func:`mlaas4hep.open`. Without labels the model learns to give back its input.
    model : object
        A built-in model's name (``pytorch``, ``autoencoder``), a Python file with ``def model(idim)``, such a
        function, or what it would return: a ``torch.nn.Module``, ``(module, loss)`` or ``(module, loss, optimiser)``.
    params : TrainingParams or mapping, optional
        Epochs, batch size, patience, shuffling, seed.
    out : str or Path, optional
        Where the bundle goes: ``NAME.tar.gz``, or a folder.
    checkpoints : str or Path, optional
        Folder that keeps ``best.ckpt``, ``last.ckpt`` and the framework's own ``model.pt``; a temporary one if not
        given.
    description : str
        One line for people, kept in the bundle.
    progress : Progress, optional
        Is told how it goes on.

    Returns
    -------
    TrainingResult

    Raises
    ------
    LabelError
        If a class has no training event.
    ModelFileError
        If the model cannot be used; always before the training.
    TrainingError
        If the training cannot go on.
    BundleError
        If the bundle does not give the framework's numbers, or cannot be written.
    SettingError
        If a parameter is wrong.
    """
    given = dataclasses.asdict(params) if isinstance(params, TrainingParams) else params
    params = read_settings(TrainingParams, given or {})
    progress = progress or NoProgress()
    target = None if out is None else Path(out)
    if target is not None:
        check_target(target)
    events = _count_events(dataset)
    encoding = dataset.encoding
    task = Task(encoding.width, len(dataset.classes))
    with reproducible(params.seed):
        trainer, source = _make_trainer(model, task)
    trainer.check()
    with _folder(checkpoints) as folder:
        settings = FitSettings(params.epochs, params.patience, params.seed, folder, events["train"])
        validation = _stream(dataset, "validation") if events["validation"] else None
        learning = dataset.stream("train", batch_size=params.batch_size, shuffle=params.shuffle, seed=params.seed)
        progress.begin(params.epochs, events["train"])
        try:
            history = trainer.fit(learning, validation, settings, progress)
        finally:
            progress.end()
        if checkpoints is not None:
            trainer.save(folder / trainer.file_name)
    evaluation, metrics, plots = _judge(dataset, trainer, events)
    metrics["epochs"] = [_without_nan(dataclasses.asdict(result)) for result in history.epochs]
    metrics["best_epoch"] = history.best_epoch
    manifest = None
    if target is not None:
        graph, output = trainer.to_onnx()
        content = BundleContent(
            graph=graph,
            output=output,
            encoding=encoding,
            labels=dataset.classes or (RECONSTRUCTION_ERROR,),
            specs=dataset.specs.to_dict(),
            framework=trainer.framework,
            metrics=metrics,
            data=_provenance(dataset, events),
            training={"model": source, "best_epoch": history.best_epoch, **dataclasses.asdict(params)},
            description=description or _describe(dataset, source),
            files=plots,
        )
        manifest = write_bundle(target, content, _held_out_values(dataset, events), trainer.predict)
    return TrainingResult(trainer, history, evaluation, events, metrics, plots, target, manifest)


def _make_trainer(model: object, task: Task) -> tuple[Trainer, str]:
    """Return the trainer of whatever names or is a model, and its name for people."""
    bare = model[0] if isinstance(model, tuple) and model else model
    if framework_of(bare) in FRAMEWORKS:
        source = type(bare).__name__
        return trainer_for(model, task, source), source
    if isinstance(model, str) and model in BUILT_IN:
        return trainer_for(call_model(built_in_model(model), task, model), task, model), model
    if isinstance(model, (str, Path)):
        returned = call_model(load_model_function(model), task, str(model))
        return trainer_for(returned, task, str(model)), Path(model).name
    if callable(model):
        source = getattr(model, "__name__", type(model).__name__)
        return trainer_for(call_model(model, task, source), task, source), source
    raise ModelFileError(repr(model), "it is neither a model, a function that makes one, nor the name of a file")


def _count_events(dataset: Dataset) -> dict[str, int]:
    """Return the events of each fold; every class must have some to learn from."""
    folds: tuple[Fold, ...] = ("train", "validation", "test")
    counts = {fold: dataset.class_counts(fold) for fold in folds}
    empty = [name for name, events in counts["train"].items() if events == 0]
    if empty and dataset.classes:
        raise LabelError(f"class '{empty[0]}' has no training event; a classification needs events of every class")
    if sum(counts["train"].values()) < 2:
        raise TrainingError("there must be at least 2 training events; the files and the split leave fewer")
    return {fold: sum(of_class.values()) for fold, of_class in counts.items()}


def _judge(
    dataset: Dataset, trainer: Trainer, events: Mapping[str, int]
) -> tuple[Evaluation | None, dict[str, Any], dict[str, bytes]]:
    """Predict the test part once, and return its evaluation, its numbers and its plots."""
    if not events["test"]:
        return None, {"test": None}, {}
    held_out = _predict(trainer, dataset, "test")
    if not dataset.classes:
        values = held_out[0][:, 0].astype(np.float64)
        quantiles = {f"{share:g}": float(np.quantile(values, share)) for share in (0.5, 0.9, 0.99)}
        numbers = {"events": len(values), "mean": float(values.mean()), "quantiles": quantiles}
        return None, {"test": {RECONSTRUCTION_ERROR: numbers}}, {}
    evaluation = evaluate(*held_out, dataset.classes)
    trained = _predict(trainer, dataset, "train", limit=DRAWN_TRAINING_EVENTS)
    plots = {
        "roc.png": draw_roc(*held_out, dataset.classes, evaluation),
        "scores.png": draw_scores(held_out, trained, dataset.classes),
    }
    return evaluation, {"test": evaluation.to_dict()}, plots


def _predict(trainer: Trainer, dataset: Dataset, fold: Fold, limit: int | None = None) -> Judged:
    """Return prediction, class index and weight of a fold's events, or of about so many of them drawn from all files."""
    parts: list[Judged] = []
    for batch in _stream(dataset, fold, shuffle=limit is not None):
        parts.append((trainer.predict(batch.x, batch.mask), batch.y.copy(), batch.weight.copy()))
        if limit is not None and sum(len(part[1]) for part in parts) >= limit:
            break
    predictions, y, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    return predictions, y, weight


def _held_out_values(dataset: Dataset, events: Mapping[str, int]) -> npt.NDArray[np.float32]:
    """Return raw values of up to some thousand events, NaN where absent: of the test part, or of what there is."""
    fold: Fold = "test" if events["test"] else "validation" if events["validation"] else "train"
    parts: list[npt.NDArray[np.float32]] = []
    for batch in _stream(dataset, fold, shuffle=True, encoding=dataset.encoding.unscaled):
        parts.append(np.where(batch.mask, np.float32(np.nan), batch.x))
        if sum(map(len, parts)) >= COMPARED_EVENTS:
            break
    return np.concatenate(parts)[:COMPARED_EVENTS]


def _stream(dataset: Dataset, fold: Fold, *, shuffle: bool = False, encoding: Encoding | None = None) -> Any:
    # Metrics are of physics: their weights have signs, and are neither balanced nor flattened. What stops the training judges as it learns.
    weights = "training" if fold == "validation" else "signed"
    return dataset.stream(fold, encoding=encoding, batch_size=ROWS_AT_ONCE, shuffle=shuffle, weights=weights)


def _provenance(dataset: Dataset, events: Mapping[str, int]) -> dict[str, Any]:
    """Return what the model was trained on; of the files the names, not where they lay."""
    files = [
        {"name": file.path.rsplit("/", 1)[-1], "uuid": file.uuid, "entries": file.entries}
        for file in dataset.catalog.files
    ]
    return {**dataset.describe(), "files": files, "excluded": dict(dataset.excluded), "events": dict(events)}


def _describe(dataset: Dataset, source: str) -> str:
    what = f"classes {', '.join(dataset.classes)}" if dataset.classes else "anomaly detection"
    return f"{source}: {what}, {len(dataset.features)} branches, {dataset.events} events"


def _without_nan(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}


@contextlib.contextmanager
def _folder(named: str | Path | None) -> Iterator[Path]:
    """Give the named folder, or a temporary one that is removed afterwards."""
    if named is not None:
        Path(named).mkdir(parents=True, exist_ok=True)
        yield Path(named)
        return
    with tempfile.TemporaryDirectory(prefix="mlaas4hep-training-") as temporary:
        yield Path(temporary)
