"""What ``workflow.py`` of the original MLaaS4HEP does, with its files and their names.

The specs of each input go to ``specs-<file>.json``, those of all to ``global-specs.json`` in the working folder,
which is read back when it fits. With a model it is trained; without one the specs and the reading rates are all that
was asked for.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas4hep.errors import SettingError, SourceError, quoted
from mlaas4hep.settings import (
    Rule,
    any_value,
    flag,
    integer,
    names,
    number,
    read_json_settings,
    setting,
    text,
)

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset
    from mlaas4hep.streaming.statistics.specs import Specs
    from mlaas4hep.training.frameworks.base import Progress
    from mlaas4hep.training.workflow import TrainingResult

__all__ = ["GLOBAL_SPECS", "WorkflowOptions", "WorkflowParams", "read_params", "run_workflow"]

GLOBAL_SPECS = "global-specs.json"
DEFAULT_PARAMS = "params.json"
VALIDATION_SHARE = 0.2  # of what is not held out, as in the original

Say = Callable[[str], None]


def _padding() -> Rule[float]:
    """Return the rule for ``nan``: what stands where an event has no value is 0 for every model, and the mask says so."""

    def take(value: object) -> float:
        real = float(str(value))
        if not (math.isnan(real) or real == 0):
            raise ValueError
        return real

    return Rule("NaN or 0 (a place without a value is 0, and its mask says so)", take)


@dataclass(frozen=True)
class WorkflowParams:
    """The keys of ``params.json``; an empty text means "not set"."""

    nevts: int = setting(integer(1, also=[-1]), -1, "events to use, from each file in proportion; -1 for all")
    shuffle: bool = setting(flag(), True, "whether training events come in random order")
    chunk_size: int = setting(integer(1), 1000, "read for compatibility; the stream chooses what it reads at a time")
    epochs: int = setting(integer(1), 20, "passes over the training events at most")
    batch_size: int = setting(integer(1), 256, "events of one step")
    identifier: tuple[str, ...] = setting(names(), (), "branches that identify an event")
    branch: str = setting(text(), "Events", "name of the tree")
    selected_branches: tuple[str, ...] = setting(names(), (), "branches or patterns to use; all if not set")
    exclude_branches: tuple[str, ...] = setting(names(), (), "branches or patterns to leave out")
    hist: object = setting(any_value(), "", "read for compatibility; the original does not use it either")
    redirector: str = setting(text(), "", "what is put before /store/… names that are no local file")
    nan: float = setting(_padding(), math.nan, "value of places that an event does not fill")
    split: float = setting(number(0, 1), 0.2, "part of the events that is held out for the test")
    verbose: int = setting(integer(0), 0, "2 shows the traceback of an error")


@dataclass(frozen=True)
class WorkflowOptions:
    """The command line of ``workflow.py``.

    Parameters
    ----------
    files : str
        A text file with names, or a comma list of names.
    labels : str
        A text file with one label per input file, a comma list, or the name of a branch; empty for none.
    model : str
        A Python file with ``def model(idim)``; empty for none.
    params : str
        A ``params.json``; if empty, the one in the working folder, where there is one.
    specs : str
        Specs to use; empty to make them.
    test : str
        ``pytorch`` or ``keras`` trains the built-in example; empty for none.
    fout : str
        Where the bundle goes; empty for nowhere.
    dtype : str
        Format of the files (root, parquet, arrow, csv, json, avro, hdf5) whatever their extensions; empty to go by these.
    preproc : str
        A Python file with ``def preprocessing(rec)``; empty for none.
    missing_branch, on_bad_file, checksums : str
        As :func:`mlaas4hep.open` takes them; empty for its defaults.
    """

    files: str
    labels: str = ""
    model: str = ""
    params: str = ""
    specs: str = ""
    test: str = ""
    fout: str = ""
    dtype: str = ""
    preproc: str = ""
    missing_branch: Any = ""
    on_bad_file: Any = ""
    checksums: str = ""


def read_params(path: str) -> WorkflowParams:
    """Return the parameters of a file; of ``params.json`` in the working folder if none is named, or the defaults.

    Raises
    ------
    SourceError
        If the file is missing or is not JSON.
    SettingError, UnknownSettingError
        If a parameter is wrong.
    """
    if not path and not Path(DEFAULT_PARAMS).is_file():
        return WorkflowParams()
    return read_json_settings(WorkflowParams, Path(path or DEFAULT_PARAMS))


def run_workflow(options: WorkflowOptions, say: Say, progress: Progress | None = None) -> TrainingResult | None:
    """Do what the command line asks for.

    Parameters
    ----------
    options : WorkflowOptions
        The command line.
    say : callable
        Takes each line that a person should read.
    progress : Progress, optional
        Is told how the training goes on.

    Returns
    -------
    TrainingResult or None
        None where nothing was to be trained.

    Raises
    ------
    MLaaS4HEPError
        If an option, a file, a label or the model is wrong.
    """
    _refuse_what_comes_later(options)
    params = read_params(options.params)
    dataset = _with_specs(_open(options, params), options.specs, say)
    say(repr(dataset)[1:-1])
    for note in dataset.notes:
        say(note)
    if len(dataset.losses):
        say(str(dataset.losses))
    _warn_of_generator_level(dataset, say)
    for separation in dataset.separating_features():
        say(f"warning: {separation}")
    if not options.model and not options.test:
        say("no --model and no --test: the specs are all there is to do")
        return None
    if not dataset.classes:
        say("no labels: an autoencoder learns to give events back; those that it gives back badly are unusual")
    from mlaas4hep.training.workflow import TrainingParams, train

    example = options.test if dataset.classes else "autoencoder"
    result = train(
        dataset,
        Path(options.model) if options.model else example,
        params=TrainingParams(epochs=params.epochs, batch_size=params.batch_size, shuffle=params.shuffle),
        out=options.fout or None,
        progress=progress,
    )
    say(str(result))
    if result.manifest is not None:
        difference = result.manifest.parity.largest_difference
        say(f"wrote {result.bundle}; its graph and the trained model differ by {difference:.1g} at most")
    return result


def _refuse_what_comes_later(options: WorkflowOptions) -> None:
    """Refuse what the original can and this version cannot yet."""
    if options.test not in ("", "pytorch", "keras"):
        raise SettingError("--test", "'pytorch' or 'keras'", options.test)
    if options.model and options.test:
        raise SettingError("--test", "left out where there is a --model", options.test)
    if options.fout and not (options.model or options.test):
        raise SettingError("--fout", "given together with --model or --test", options.fout)


def _open(options: WorkflowOptions, params: WorkflowParams) -> Dataset:
    from mlaas4hep.streaming.access.sources import DEFAULT_REDIRECTOR
    from mlaas4hep.streaming.open_dataset import open_dataset
    from mlaas4hep.streaming.splitting import Split

    return open_dataset(
        options.files,
        options.labels or None,
        tree=params.branch,
        dtype=options.dtype or None,
        branches=params.selected_branches or None,
        exclude=params.exclude_branches,
        identifiers=params.identifier or None,
        generator_level="keep",
        split=Split(test=params.split, validation=VALIDATION_SHARE * (1 - params.split)),
        max_events=params.nevts,
        redirector=params.redirector or DEFAULT_REDIRECTOR,
        preproc=options.preproc or None,
        missing_branch=options.missing_branch or "error",
        on_bad_file=options.on_bad_file or "fail",
        checksums=options.checksums or None,
    )


def _with_specs(dataset: Dataset, named: str, say: Say) -> Dataset:
    """Return the dataset with the specs that were named, or that lie in the working folder and fit, or that are made now."""
    from mlaas4hep.streaming.statistics.specs import Specs

    path = Path(named or GLOBAL_SPECS)
    if named or path.is_file():
        try:
            specs = Specs.read(path)
            mismatch = specs.mismatch(dataset.describe())
        except SourceError as error:
            if named:
                raise
            mismatch = error.reason
        if mismatch is None:
            say(f"loaded specs from {path}")
            if not specs.source:
                say(f"warning: {path} has no statistics of training events alone; its ranges are over all events")
            return dataset.with_specs(specs)
        if named:
            raise SettingError("--specs", "of these files and branches", mismatch, str(path))
        say(f"{path} does not fit ({mismatch}); it is made anew")
    return dataset.with_specs(_make_specs(dataset, say))


def _make_specs(dataset: Dataset, say: Say) -> Specs:
    """Read every file once, write the specs of each and of all, and say how fast it was."""
    from mlaas4hep.streaming.identity import Identity
    from mlaas4hep.streaming.statistics.scan import scan_specs
    from mlaas4hep.streaming.statistics.specs import merge_specs

    parts: list[Specs] = []
    taken: set[str] = set()
    begun = time.perf_counter()
    for file in dataset.catalog.files:
        catalog = dataclasses.replace(dataset.catalog, files=(file,))
        identity = Identity(catalog, dataset.identity.identifiers, dataset.split)
        source = {**dataset.describe(), "files": catalog.to_dict()}
        start = time.perf_counter()
        specs = scan_specs(catalog, dataset.features, identity, source)
        seconds = time.perf_counter() - start
        branches = f"({len(specs.flat)}-flat, {len(specs.jagged)}-jagged) branches"
        say(f"read {file.path}: {file.entries} events, {branches}, {_rate(file.entries, seconds)}")
        _write(specs, _specs_name(file.path, taken))
        parts.append(specs)
    whole = merge_specs(parts)
    if whole.train.events == 0:
        raise SourceError(dataset.files[0], f"no event is left for training: {dataset.events} events in all")
    _write(whole, GLOBAL_SPECS)
    total = _rate(dataset.events, time.perf_counter() - begun)
    say(f"wrote {GLOBAL_SPECS}: {dataset.events} events, {whole.encoding.width} attributes, {total}")
    return whole


def _write(specs: Specs, name: str) -> None:
    try:
        specs.write(name)
    except OSError as error:
        raise SourceError(name, f"cannot be written: {error.strerror or error}") from error


def _specs_name(path: str, taken: set[str]) -> str:
    """Return ``specs-<file>.json``; files of the same name in different folders get a number."""
    from mlaas4hep.streaming.formats import COMPRESSED, EXTENSIONS

    stem = path.rsplit("/", 1)[-1]
    for extension in (*COMPRESSED, *EXTENSIONS):
        stem = stem.removesuffix(extension)
    name, count = f"specs-{stem}.json", 1
    while name in taken:
        count += 1
        name = f"specs-{stem}-{count}.json"
    taken.add(name)
    return name


def _warn_of_generator_level(dataset: Dataset, say: Say) -> None:
    """Say which features only simulation has; the original keeps them, and so does its command here."""
    from mlaas4hep.streaming.features import is_generator_level

    found = [name for name in dataset.features if is_generator_level(name)]
    if found:
        say(
            f"warning: generator-level branches are among the features: {quoted(found)};"
            " data have no such values: leave them out with 'exclude_branches' in params.json"
        )


def _rate(events: int, seconds: float) -> str:
    return f"{seconds:.2f} sec, {events / max(seconds, 1e-9) / 1000:.1f} kHz"
