"""From a configuration to a dataset, a trained model, and a folder with all that came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas4hep.atomic import write_atomically
from mlaas4hep.errors import SettingError, quoted
from mlaas4hep.training.configuration import Configuration
from mlaas4hep.training.constant_features import describe_constant_features
from mlaas4hep.training.models import BUILT_IN
from mlaas4hep.training.processes import is_first_process

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset
    from mlaas4hep.training.frameworks.base import Progress
    from mlaas4hep.training.k_fold import KFoldResult
    from mlaas4hep.training.workflow import TrainingResult

__all__ = ["RESOLVED", "ConfiguredTraining", "describe_dataset", "open_configured", "train_configured"]

RESOLVED = "config.resolved.yaml"

Say = Callable[[str], None]


@dataclass(frozen=True)
class ConfiguredTraining:
    """What a configured training gave.

    Parameters
    ----------
    result : TrainingResult or KFoldResult
    folder : Path
        The output folder.
    files : tuple of Path
        What was written there.
    """

    result: TrainingResult | KFoldResult
    folder: Path
    files: tuple[Path, ...]


def open_configured(configuration: Configuration) -> Dataset:
    """Open the files of a configuration as a dataset.

    Raises
    ------
    SettingError
        If there are no files, or a setting does not fit them; with its full name and line.
    MLaaS4HEPError
        As :func:`mlaas4hep.open` does.
    """
    import mlaas4hep
    from mlaas4hep.streaming.access.retry import RetryPolicy

    data = dict(vars(configuration.data))
    if not data["files"]:
        raise SettingError("data.files", "set: a file, or a list of files", data["files"])
    vector = dict(vars(configuration.vector))
    if vector["layout"] is None:
        objects = configuration.built_in and BUILT_IN[configuration.model].objects
        vector["layout"] = "objects" if objects else "flat"
    weights = {name: value for name, value in vars(configuration.weights).items() if value is not None}
    arguments = {**data, **vector, "weights": weights, "retry": RetryPolicy(**vars(configuration.retry))}
    for name in ("branches", "identifiers"):
        arguments[name] = data[name] or None
    given: dict[str, Any] = {name: value for name, value in arguments.items() if value is not None}
    files = given.pop("files")
    plain: dict[str, Any] = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    with configuration.explaining():
        return mlaas4hep.open(files if isinstance(files, str) else list(files), split=_split(configuration), **plain)


def describe_dataset(dataset: Dataset, say: Say) -> None:
    """Say what a person should know of a dataset before a training; reads identifiers, and some events for a comparison of classes."""
    say(repr(dataset)[1:-1])
    for note in dataset.notes:
        say(note)
    generator = [name for name, why in dataset.excluded.items() if why == "generator level"]
    if generator:
        say(f"left out, since only simulation has them: {', '.join(generator)}")
    for fold in ("train", "validation", "test"):
        counts = dataset.class_counts(fold)
        of_class = ", ".join(f"{name}: {events:,}" for name, events in counts.items()) if dataset.classes else ""
        say(f"{fold}: {sum(counts.values()):,} events" + (f" ({of_class})" if of_class else ""))
    for warning in (
        *describe_constant_features(dataset),
        *(f"warning: {one}" for one in dataset.separating_features()),
    ):
        say(warning)
    if len(dataset.losses):
        say(str(dataset.losses))


def train_configured(
    configuration: Configuration, dataset: Dataset, progress: Progress | None = None, *, resume: bool = False
) -> ConfiguredTraining:
    """Train as a configuration says, and write all that came of it.

    Parameters
    ----------
    configuration : Configuration
    dataset : Dataset
        From :func:`open_configured`.
    progress : Progress, optional
        Is told how it goes on.
    resume : bool
        Whether to go on from the newest checkpoint of the output folder, where there is one.

    Raises
    ------
    MLaaS4HEPError
        As :func:`mlaas4hep.training.workflow.train` does.
    """
    from mlaas4hep.training.workflow import TrainingResult

    output = configuration.output
    folder = Path(output.folder)
    bundle = folder / f"{output.name}.tar.gz"
    if resume and not output.checkpoints:
        raise SettingError("output.checkpoints", "true where a training is to be resumed", output.checkpoints)
    common: dict[str, Any] = {
        "model_settings": configuration.model_settings,
        "params": configuration.training,
        "out": bundle,
        "checkpoints": folder / "checkpoints" if output.checkpoints else None,
        "resume": resume,
        "description": output.description,
        "progress": progress,
    }
    with configuration.explaining():
        _prepare(folder)
        result = _train(configuration, dataset, common)
    if not is_first_process():
        return ConfiguredTraining(result, folder, ())
    metrics = json.dumps(result.metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    pages = result.files if isinstance(result, TrainingResult) else {}
    contents = {"metrics.json": metrics.encode(), RESOLVED: configuration.to_yaml().encode(), **pages}
    for name, content in contents.items():
        write_atomically(folder / name, content)
    plots: list[Path] = result.save_plots(folder / "plots") if isinstance(result, TrainingResult) else []
    return ConfiguredTraining(result, folder, (bundle, *(folder / name for name in contents), *plots))


def _train(configuration: Configuration, dataset: Dataset, common: dict[str, Any]) -> TrainingResult | KFoldResult:
    """Train one model, or those of a k-fold."""
    split = configuration.split
    if split.folds is not None and split.fold is None:
        from mlaas4hep.training.k_fold import train_k_fold

        return train_k_fold(dataset, configuration.model, folds=split.folds, validation=split.validation, **common)
    from mlaas4hep.training.workflow import train

    return train(dataset, configuration.model, settings=configuration.to_dict(public=True), **common)


def _split(configuration: Configuration) -> Any:
    from mlaas4hep.streaming.splitting import Split

    split = configuration.split
    if split.folds is None:
        test = 0.2 if split.test is None else split.test
        return Split(test=test, validation=split.validation, salt=split.salt, fold=split.fold)
    if split.test is not None:
        raise SettingError("split.test", f"left out where split.folds is set (it is 1/{split.folds})", split.test)
    if split.fold is None:  # all of them: each training divides the events for itself
        return Split(test=1 / split.folds, validation=split.validation, salt=split.salt)
    return Split.k_fold(split.folds, split.fold, validation=split.validation, salt=split.salt)


def _prepare(folder: Path) -> None:
    """Make the output folder; refuse one that holds anything of somebody else's."""
    if folder.exists() and not folder.is_dir():
        raise SettingError("output.folder", "a folder, or the name of a new one", str(folder))
    own = {RESOLVED, "metrics.json", "plots", "checkpoints", "report.html"}
    strangers = [] if not folder.exists() else sorted(path.name for path in folder.iterdir() if path.name not in own)
    foreign = [name for name in strangers if not name.endswith(".tar.gz")]
    if foreign and not (folder / RESOLVED).is_file():
        raise SettingError(
            "output.folder", f"a new folder, or one of a training; it holds {quoted(foreign, 3)}", str(folder)
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError("output.folder", f"a place that can be written ({error.strerror})", str(folder)) from error
