"""A dataset: files, what is in them, and how they become batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import SettingError, SourceError
from mlaas4hep.streaming.block import KernelPlan, pack
from mlaas4hep.streaming.catalog import Catalog, build_catalog
from mlaas4hep.streaming.checksums import Checksums
from mlaas4hep.streaming.encoding import Encoding
from mlaas4hep.streaming.faults import BAD_FILE_ERRORS, Faults, OnBadFile
from mlaas4hep.streaming.features import GeneratorLevel, Selection, choose_features
from mlaas4hep.streaming.formats import Reader
from mlaas4hep.streaming.identity import Identity
from mlaas4hep.streaming.labels import Labels, LabelValue, parse_labels
from mlaas4hep.streaming.losses import Loss, LossReport
from mlaas4hep.streaming.opening import Opener
from mlaas4hep.streaming.reading import loaded_runs
from mlaas4hep.streaming.retry import RetryPolicy
from mlaas4hep.streaming.scan import QUEUE_BYTES, RUN_BYTES, Progress, count_folds, label_values, scan_specs
from mlaas4hep.streaming.sources import DEFAULT_REDIRECTOR, SourceFile, find_files
from mlaas4hep.streaming.specs import Specs
from mlaas4hep.streaming.splitting import FOLDS, Fold, Split
from mlaas4hep.streaming.stream import Batch, EventStream, StreamSettings

if TYPE_CHECKING:
    from mlaas4hep.streaming.torch_dataset import TorchEventDataset

__all__ = ["IDENTIFIERS", "Dataset", "open_dataset"]

IDENTIFIERS = ("run", "luminosityBlock", "event")
"""Branches that identify an event in NanoAOD and its kin."""


class Dataset:
    """Files, what is in them, and how they become batches. Made by :func:`mlaas4hep.open`.

    Parameters
    ----------
    catalog : Catalog
        The files.
    selection : Selection
        Which branches are features.
    labels : Labels
    split : Split
    specs : Specs, optional
        Statistics that are known already.
    losses : LossReport, optional
        What could not be catalogued.

    Attributes
    ----------
    catalog, selection, labels, split
        As given.
    losses : LossReport
        Bad files and events: those that were left out of the catalogue, and those that scans over all events missed. A stream has its own.
    """

    def __init__(
        self,
        catalog: Catalog,
        selection: Selection,
        labels: Labels,
        split: Split,
        specs: Specs | None = None,
        losses: LossReport | None = None,
    ) -> None:
        self.catalog = catalog
        self.selection = selection
        self.labels = labels
        self.split = split
        self.losses = losses or LossReport()
        self._specs = specs

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the files."""
        return tuple(file.path for file in self.catalog.files)

    @property
    def events(self) -> int:
        """Number of events of all files."""
        return self.catalog.entries

    @property
    def features(self) -> tuple[str, ...]:
        """Branches that go into the event vector, in the file's order."""
        return self.selection.features

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the class index; empty when there are no labels."""
        return self.labels.classes

    @property
    def excluded(self) -> Mapping[str, str]:
        """Branches that are no features, and why."""
        return self.selection.excluded

    @cached_property
    def identity(self) -> Identity:
        """Who the events are, and which fold each belongs to."""
        return Identity(self.catalog, self.selection.identifiers, self.split)

    @property
    def specs(self) -> Specs:
        """Statistics of the features; the first use reads all events once."""
        return self.compute_specs()

    @property
    def encoding(self) -> Encoding:
        """The event vector, from training events only.

        Raises
        ------
        SourceError
            If there are no training events.
        """
        if self.specs.train.events == 0:
            raise SourceError(
                self.files[0], f"no event is left for training: {self.events} in all, split {self.split.to_dict()}"
            )
        return self.specs.encoding

    @cached_property
    def fold_counts(self) -> npt.NDArray[np.int64]:
        """Number of events of each fold and class, int64 ``[folds, classes]``; the first use reads identifiers and labels once."""
        return count_folds(self.catalog, self.labels, self.identity, self.losses)

    def compute_specs(self, progress: Progress | None = None) -> Specs:
        """Return the statistics of the features; read all events once if that was not done yet.

        Parameters
        ----------
        progress : callable, optional
            Called with the number of events done and of all.

        Raises
        ------
        SourceError
            If a file cannot be read.
        """
        if self._specs is None:
            self._specs = scan_specs(self.catalog, self.features, self.identity, self.describe(), progress, self.losses)
        return self._specs

    def describe(self) -> dict[str, Any]:
        """Return what the statistics depend on, as plain values for JSON."""
        return {
            "files": self.catalog.to_dict(),
            "tree": self.catalog.tree,
            "features": sorted(self.features),
            "identifiers": list(self.selection.identifiers),
            "split": self.split.to_dict(),
        }

    def class_counts(self, fold: Fold | None = None) -> dict[str, int]:
        """Return the number of events of each class in a fold, or in all; with no labels the one key ``''``."""
        counts = self.fold_counts.sum(axis=0) if fold is None else self.fold_counts[FOLDS.index(fold)]
        return dict(zip(self.classes or ("",), counts.tolist(), strict=True))

    def stream(self, fold: Fold | None = None, *, encoding: Encoding | None = None, **settings: Any) -> EventStream:
        """Return a stream of batches; iterating over it is one epoch.

        Parameters
        ----------
        fold : {"train", "validation", "test"} or None
            Which events; None for all.
        encoding : Encoding, optional
            Another event vector than this dataset's own.
        **settings
            Of :class:`~mlaas4hep.streaming.stream.StreamSettings`: ``batch_size``, ``shuffle``, ``seed``, ``drop_last``, …

        Raises
        ------
        SettingError
            If a setting is not one of these, or has a value that it must not have.
        """
        known = StreamSettings.__dataclass_fields__
        for name, value in settings.items():
            if name not in known:
                raise SettingError(name, f"a setting of a stream ({', '.join(known)})", value)
        return EventStream(
            self.catalog, encoding or self.encoding, self.identity, self.labels, StreamSettings(fold=fold, **settings)
        )

    def batches(self, batch_size: int = 512, fold: Fold | None = None, **settings: Any) -> Iterator[Batch]:
        """Iterate over one epoch of batches; parameters as in :meth:`stream`."""
        return iter(self.stream(fold, batch_size=batch_size, **settings))

    def torch_dataset(self, fold: Fold | None = None, **settings: Any) -> TorchEventDataset:
        """Return an ``IterableDataset`` of whole batches ``(x, mask, y, weight)``; parameters as in :meth:`stream`."""
        from mlaas4hep.streaming.torch_dataset import TorchEventDataset

        return TorchEventDataset(self.stream(fold, **settings))

    def raw_blocks(
        self, encoding: Encoding | None = None, max_events: int = 16384
    ) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.void], int]]:
        """Iterate over all events in order as raw values: what a bundle's graph takes.

        Parameters
        ----------
        encoding : Encoding, optional
            The event vector of the bundle; this dataset's own when not given.
        max_events : int
            Events of a block at most.

        Yields
        ------
        raw : float32 array of shape ``[n, width]``
            Physical values, NaN where absent.
        id : structured array of shape ``[n]``
        cut : int
            Values that were left out because an event held more than its feature has places.
        """
        vector = encoding or self.encoding
        plan = KernelPlan(vector, scaled=False)
        columns = tuple(dict.fromkeys((*vector.branches, *self.identity.identifiers)))
        runs = self.catalog.runs(RUN_BYTES, columns)
        with loaded_runs(self.catalog, runs, columns, QUEUE_BYTES, self.losses) as loaded:
            for run, values in loaded:
                block = pack(values, vector, run.events)
                records = self.identity.records(run, values)
                for start in range(0, run.events, max_events):
                    stop = min(start + max_events, run.events)
                    raw = np.empty((stop - start, vector.width), np.float32)
                    mask = np.empty(raw.shape, np.bool_)
                    cut = block.encode(plan, np.arange(start, stop), np.arange(stop - start), raw, mask)
                    yield raw, records[start:stop], cut

    def __repr__(self) -> str:
        files = f"{len(self.files)} file{'s' * (len(self.files) != 1)}"
        jagged = sum(self.catalog.columns[name].jagged for name in self.features)
        lines = [
            f"<Dataset of {files}, {self.events} events, tree '{self.catalog.tree}'",
            f"  features: {len(self.features)} branches, {len(self.features) - jagged} flat and {jagged} jagged",
            f"  identifiers: {', '.join(self.selection.identifiers) or 'none; the file and the entry identify an event'}",
            f"  classes: {', '.join(self.classes) or 'no labels'}",
            f"  split: {self.split.test:.0%} test, {self.split.validation:.0%} validation",
        ]
        return "\n".join(lines) + ">"


def open_dataset(
    files: str | Path | Sequence[str | Path],
    labels: str | Sequence[LabelValue] | None = None,
    *,
    tree: str = "Events",
    dtype: str | None = None,
    branches: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    identifiers: Sequence[str] | None = None,
    generator_level: GeneratorLevel = "keep",
    split: Split | None = None,
    max_events: int = -1,
    specs: Specs | str | Path | None = None,
    redirector: str | Sequence[str] = DEFAULT_REDIRECTOR,
    on_bad_file: OnBadFile = "fail",
    retry: RetryPolicy | None = None,
    checksums: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Open files as one dataset; reads their metadata, and no event.

    Parameters
    ----------
    files : str, Path, or sequence of them
        Paths, folders, patterns, URLs, ``/store/…`` names; a string may be a comma-separated list or name a text file that holds one.
    labels : str, sequence, or None
        One label a file, or the name of a branch that holds the label.
    tree : str
        Name of the TTree or RNTuple.
    dtype : str, optional
        Format of the files whatever their extensions: ``root``, ``parquet``, ``arrow``, ``csv``, ``json``, ``avro`` or ``hdf5``.
    branches : sequence of str, optional
        Names or patterns (``Jet_*``) of the features; all branches of numbers when not given.
    exclude : sequence of str
        Names or patterns of branches that are no features.
    identifiers : sequence of str, optional
        Branches that identify an event. When not given: ``run``, ``luminosityBlock`` and ``event`` where the files have all three, else file and
        entry.
    generator_level : {"keep", "drop"}
        Whether branches that only simulation has may be features.
    split : Split, optional
        How events are divided into test, validation and training.
    max_events : int
        Use only about so many events, from each file in proportion; -1 for all.
    specs : Specs, str or Path, optional
        Statistics that are known already, or the file that holds them; they must be of these files.
    redirector : str or sequence of str
        What is put before a ``/store/…`` name that is no local file; several are tried in order.
    on_bad_file : {"fail", "skip", "quarantine"}
        What is done with a file that cannot be opened or read: raise the error; go on without the events concerned; or go on without any further
        event of that file. What is missing stands in ``losses`` of the dataset and of each stream.
    retry : RetryPolicy, optional
        How often a fault of the network is met with another attempt, before the next redirector and before a file counts as bad.
    checksums : str or Path, optional
        A file as ``sha256sum`` writes it (or with adler32): every input file is read and compared once, when it is catalogued.
    progress : callable, optional
        Called with the number of files opened and of all.

    Returns
    -------
    Dataset

    Raises
    ------
    SourceError
        If a file is missing, cannot be read, or is not what its name says.
    TreeNotFoundError, BranchNotFoundError, BranchTypeError, BranchesDifferError
        If tree or branches are not there, hold no numbers, or differ from file to file.
    LabelError
        If the labels do not fit the files.
    SettingError
        If another argument has a value that it must not have.

    Examples
    --------
    >>> import mlaas4hep
    >>> dataset = mlaas4hep.open(["examples/data/VBF_HToTauTau.root", "examples/data/GluGluToHToTauTau.root"], labels=[1, 0])
    >>> dataset
    <Dataset of 2 files, 48000 events, tree 'Events'
      features: 33 branches, 10 flat and 23 jagged
      identifiers: run, luminosityBlock, event
      classes: 0, 1
      split: 20% test, 10% validation>
    >>> batch = next(dataset.batches(batch_size=256, fold="train"))
    >>> batch.x.shape, batch.x.dtype
    ((256, 125), dtype('float32'))
    """
    if isinstance(max_events, bool) or not isinstance(max_events, int) or (max_events < 1 and max_events != -1):
        raise SettingError("max_events", "an integer ≥ 1, or -1 for all", max_events)
    sources = find_files(files, redirector)
    by_file, label_branch = parse_labels(labels)
    known_labels = Labels() if by_file is None else Labels.of_files(by_file, [source.path for source in sources])
    faults = Faults(on_bad_file=on_bad_file, retry=retry or RetryPolicy())
    opener = Opener(tree, faults, None if checksums is None else Checksums.read(checksums), dtype)
    losses = LossReport()
    with ExitStack() as until_catalogued:
        usable, first = _first_usable(sources, opener, losses, until_catalogued)
        selection = choose_features(
            first,
            tree,
            branches=branches,
            exclude=exclude,
            identifiers=IDENTIFIERS if identifiers is None else identifiers,
            identifiers_required=identifiers is not None,
            label=label_branch,
            generator_level=generator_level,
        )
        catalog, lost = build_catalog(usable, opener, selection.read, first, progress)
        losses.extend(lost)
    if max_events >= 0:
        catalog = catalog.first(max_events)
    if catalog.entries == 0:
        others = len(catalog.files) - 1
        raise SourceError(
            catalog.files[0].path,
            f"tree '{tree}' holds no event" + (f", nor do the {others} other files" if others else ""),
        )
    if by_file is not None:
        left_out = set(losses.whole_files)
        found = known_labels.of_some_files(
            [place for place, source in enumerate(sources) if source.path not in left_out]
        )
    elif label_branch is not None:
        found = Labels.of_branch(label_branch, label_values(catalog, label_branch, losses))
    else:
        found = Labels()
    dataset = Dataset(catalog, selection, found, split or Split(), losses=losses)
    if specs is None:
        return dataset
    known = specs if isinstance(specs, Specs) else Specs.read(specs)
    mismatch = known.mismatch(dataset.describe())
    if mismatch is not None:
        raise SettingError(
            "specs", "of these files and branches", mismatch, "" if isinstance(specs, Specs) else str(specs)
        )
    return Dataset(catalog, selection, found, dataset.split, known, losses)


def _first_usable(
    sources: Sequence[SourceFile], opener: Opener, losses: LossReport, open_until: ExitStack
) -> tuple[Sequence[SourceFile], Reader]:
    """Return the files from the first one on that can be opened, and that one open; those before it are lost, or the error goes up."""
    problem: Exception | None = None
    for place, source in enumerate(sources):
        try:
            return sources[place:], open_until.enter_context(opener.open(source))
        except BAD_FILE_ERRORS as error:
            problem = problem or error
            losses.add(Loss(source.path, 0, None, opener.faults.lose(source.path, error)))
    assert problem is not None  # there is at least one file  # noqa: S101
    raise problem
