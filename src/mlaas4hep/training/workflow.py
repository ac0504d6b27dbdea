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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.manifest import Manifest
from mlaas4hep.bundle.preprocessing import preprocessing_copy
from mlaas4hep.bundle.writer import BundleContent, check_target, write_bundle
from mlaas4hep.errors import ModelFileError, SettingError
from mlaas4hep.settings import read_settings
from mlaas4hep.streaming.targets import Targets
from mlaas4hep.training.evaluation import Evaluation
from mlaas4hep.training.frameworks import FRAMEWORKS, framework_of, trainer_for
from mlaas4hep.training.frameworks.base import FitSettings, History, NoProgress, Progress, Task, Trainer
from mlaas4hep.training.judging import RECONSTRUCTION_ERROR, judge
from mlaas4hep.training.model_file import call_model, load_model_function
from mlaas4hep.training.models import BUILT_IN, built_in_model
from mlaas4hep.training.params import TrainingParams
from mlaas4hep.training.processes import is_first_process
from mlaas4hep.training.reading import Reading, count_events, task_of
from mlaas4hep.training.regression import RegressionEvaluation
from mlaas4hep.training.seeding import reproducible

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset

__all__ = ["RECONSTRUCTION_ERROR", "TrainingParams", "TrainingResult", "train"]

PARAMETER = ("parameter", "signal")
"""Settings of a built-in model that are the job's: which parameter of which class is drawn for the others."""


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
        Of a classification on the test part; None without labels or without test events.
    regression : RegressionEvaluation or None
        Of a regression on the test part.
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
    files : mapping of str to bytes
        File name → content of what else was made to be read: ``report.html``.
    """

    trainer: Trainer
    history: History
    evaluation: Evaluation | None
    regression: RegressionEvaluation | None
    events: Mapping[str, int]
    metrics: Mapping[str, Any]
    plots: Mapping[str, bytes]
    bundle: Path | None
    manifest: Manifest | None
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __str__(self) -> str:
        best = self.history.epochs[self.history.best_epoch - 1]
        chosen = f"epoch {best.epoch} of {len(self.history.epochs)}"
        judged = self.evaluation or self.regression
        return f"{chosen}, loss {best.loss:.4g}" if judged is None else f"{chosen}: {judged}"

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
    model_settings: Mapping[str, object] | None = None,
    params: TrainingParams | Mapping[str, object] | None = None,
    out: str | Path | None = None,
    checkpoints: str | Path | None = None,
    resume: bool = False,
    description: str = "",
    settings: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train a model on a dataset, judge it on held-out events, and write its bundle.

    Parameters
    ----------
    dataset : Dataset
        From :func:`mlaas4hep.open`. With targets the model predicts values; without targets and labels it learns to
        give back its input.
    model : object
        A built-in model's name (:data:`~mlaas4hep.training.models.BUILT_IN`), a Python file with ``def model(idim)``,
        such a function, or what it would return: a ``torch.nn.Module``, ``(module, loss)``, …
    model_settings : mapping, optional
        Settings of a built-in model, or further arguments of the function, by name.
    params : TrainingParams or mapping, optional
        Epochs, batch size, patience, seed, …
    out : str or Path, optional
        Where the bundle goes: ``NAME.tar.gz``, or a folder.
    checkpoints : str or Path, optional
        Folder that keeps ``best.ckpt``, ``last.ckpt`` and the framework's own ``model.pt``; a temporary one if not
        given.
    resume : bool
        Whether to go on from the newest checkpoint in that folder, where there is one. Ctrl-C and SIGTERM save one and raise
        ``TrainingInterrupted``, a KeyboardInterrupt whose message says how to go on.
    description : str
        One line for people, kept in the bundle.
    settings : mapping, optional
        What the job was set to, kept in the bundle's manifest.
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
    params = read_settings(TrainingParams, given or {}, group="training" if settings else "")
    of_model = _model_settings(model, model_settings or {})
    progress = progress or NoProgress()
    target = None if out is None or not is_first_process() else Path(out)
    if target is not None:
        check_target(target)
    events = count_events(dataset)
    task = task_of(dataset)
    with reproducible(params.seed):
        trainer, source = _make_trainer(model, task, of_model)
    trainer.check()
    reading = Reading(dataset, params, **_parameter(model, of_model))
    with _folder(checkpoints) as folder:
        known: dict[str, Any] = {
            "checkpoints": folder,
            "events": events["train"],
            "resume": resume,
            "features": task.encoding.columns if task.encoding is not None else (),
            "run": _run(dataset, params),
        }
        taken = {name: value for name, value in known.items() if name in FitSettings.__dataclass_fields__}
        fit = FitSettings(**params.of_fit(FitSettings), **taken)
        progress.begin(params.epochs, events["train"])
        try:
            history = trainer.fit(
                reading.learning(), reading.validation() if events["validation"] else None, fit, progress
            )
        finally:
            progress.end()
        if checkpoints is not None and is_first_process():
            trainer.save(folder / getattr(trainer, "file_name", "model.pt"))
    title = "" if target is None else f"{check_target(target)}: {source}"  # a bundle holds a report
    verdict = judge(reading, trainer, events, history, title)
    metrics: dict[str, Any] = {
        "test": verdict.numbers,
        "epochs": [_without_nan(dataclasses.asdict(result)) for result in history.epochs],
        "best_epoch": history.best_epoch,
        **({"importance": verdict.importance} if verdict.importance else {}),
    }
    manifest = None
    if target is not None:
        graph, output = trainer.to_onnx()
        targets = reading.targets
        content = BundleContent(
            graph=graph,
            output=output,
            encoding=dataset.encoding,
            labels=_columns(dataset),
            specs=dataset.specs.to_dict(),
            framework=trainer.framework,
            metrics=metrics,
            data=_provenance(dataset, events),
            training={
                "model": source,
                "best_epoch": history.best_epoch,
                **dataclasses.asdict(params),
                **({"cache": Path(params.cache).name} if params.cache else {}),
                "model_settings": _plain(of_model),
                "settings": settings or {},
            },
            description=description or _describe(dataset, source),
            files={**verdict.plots, **verdict.files, **preprocessing_copy(dataset.catalog.view.preprocessing)},
            targets=None if targets is None else (targets.scale, targets.shift),
        )

        def predict(x: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
            given = trainer.predict(x, mask)
            return given if targets is None else targets.physical(given)

        manifest = write_bundle(target, content, reading.held_out_values(events), predict)
    return TrainingResult(
        trainer,
        history,
        verdict.evaluation,
        verdict.regression,
        events,
        metrics,
        verdict.plots,
        target,
        manifest,
        verdict.files,
    )


def _model_settings(model: object, given: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings of a built-in model, all of them; of another one those that are given."""
    if isinstance(model, str) and model in BUILT_IN:
        return dict(vars(read_settings(BUILT_IN[model].settings, given, group="model")))
    return dict(given)


def _parameter(model: object, of_model: Mapping[str, Any]) -> dict[str, str]:
    """Return which parameter is drawn for background events, as arguments of :class:`Reading`."""
    if model != "parametrised":
        return {}
    if not of_model["parameter"]:
        raise SettingError("model.parameter", "the name of a flat branch", of_model["parameter"])
    return {name: of_model[name] for name in PARAMETER}


def _make_trainer(model: object, task: Task, of_model: Mapping[str, Any]) -> tuple[Trainer, str]:
    """Return the trainer of whatever names or is a model, and its name for people."""
    bare = model[0] if isinstance(model, tuple) and model else model
    if framework_of(bare) in FRAMEWORKS:
        source = type(bare).__name__
        return trainer_for(model, task, source), source
    if isinstance(model, str) and model in BUILT_IN:
        asked = {name: value for name, value in of_model.items() if name not in PARAMETER}
        if BUILT_IN[model].objects and task.encoding is not None and task.encoding.layout != "objects":
            raise SettingError("layout", f"'objects' for the model '{model}'", task.encoding.layout)
        return trainer_for(call_model(built_in_model(model), task, model, asked), task, model), model
    if isinstance(model, (str, Path)):
        returned = call_model(load_model_function(model), task, str(model), of_model)
        return trainer_for(returned, task, str(model)), Path(model).name
    if callable(model):
        source = getattr(model, "__name__", type(model).__name__)
        return trainer_for(call_model(model, task, source, of_model), task, source), source
    raise ModelFileError(repr(model), "it is neither a model, a function that makes one, nor the name of a file")


def _columns(dataset: Dataset) -> tuple[str, ...]:
    """Return the name of each column of the bundle's output."""
    labels = dataset.labels
    return labels.columns if isinstance(labels, Targets) else dataset.classes or (RECONSTRUCTION_ERROR,)


def _provenance(dataset: Dataset, events: Mapping[str, int]) -> dict[str, Any]:
    """Return what the model was trained on; of the files the names, not where they lay."""
    files = [
        {"name": file.path.rsplit("/", 1)[-1], "uuid": file.uuid, "entries": file.entries}
        for file in dataset.catalog.files
    ]
    return {**dataset.describe(), "files": files, "excluded": dict(dataset.excluded), "events": dict(events)}


def _describe(dataset: Dataset, source: str) -> str:
    if isinstance(dataset.labels, Targets):
        what = f"values of {', '.join(dataset.labels.columns)}"
    else:
        what = f"classes {', '.join(dataset.classes)}" if dataset.classes else "anomaly detection"
    return f"{source}: {what}, {len(dataset.features)} branches, {dataset.events} events"


def _without_nan(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON has them; those that it has not as text."""
    known = (str, int, float, bool, list, tuple, type(None))
    return {name: value if isinstance(value, known) else str(value) for name, value in values.items()}


def _run(dataset: Dataset, params: TrainingParams) -> dict[str, object]:
    """Return what the steps of a training follow from, as its checkpoints say it."""
    settings = ("batch_size", "shuffle", "mixing")
    return {
        "files": [
            f"{file.path.rsplit('/', 1)[-1]} ({file.uuid}, {file.entries} entries)" for file in dataset.catalog.files
        ],
        "features": list(dataset.features),
        "split": dataset.split.to_dict(),
        "selection": str(dataset.selection),
        **{name: getattr(params, name) for name in settings},
    }


@contextlib.contextmanager
def _folder(named: str | Path | None) -> Iterator[Path]:
    """Give the named folder, or a temporary one that is removed afterwards."""
    if named is not None:
        Path(named).mkdir(parents=True, exist_ok=True)
        yield Path(named)
        return
    with tempfile.TemporaryDirectory(prefix="mlaas4hep-training-") as temporary:
        yield Path(temporary)
