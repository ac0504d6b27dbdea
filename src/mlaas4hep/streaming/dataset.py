"""A dataset: files, what is in them, and how they become batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import SettingError, SourceError
from mlaas4hep.streaming.access.losses import LossReport
from mlaas4hep.streaming.catalog import Catalog
from mlaas4hep.streaming.encoding.block import KernelPlan, pack
from mlaas4hep.streaming.encoding.encoding import Encoding
from mlaas4hep.streaming.encoding.vector import VectorSettings
from mlaas4hep.streaming.features import BranchRoles
from mlaas4hep.streaming.identity import Identity
from mlaas4hep.streaming.labels import Labels
from mlaas4hep.streaming.selecting.selection import EventSelection
from mlaas4hep.streaming.splitting import FOLDS, Fold, Split
from mlaas4hep.streaming.statistics.passes import find_separating_features, learn_dataset_weights
from mlaas4hep.streaming.statistics.scan import QUEUE_BYTES, RUN_BYTES, Progress, count_folds, scan_specs
from mlaas4hep.streaming.statistics.separation import THRESHOLD, Separation
from mlaas4hep.streaming.statistics.specs import Specs
from mlaas4hep.streaming.stream.prepared import EventRules
from mlaas4hep.streaming.stream.reading import loaded_runs
from mlaas4hep.streaming.stream.stream import Batch, EventStream, StreamSettings
from mlaas4hep.streaming.targets import Targets
from mlaas4hep.streaming.weights.weighting import Weighting
from mlaas4hep.streaming.weights.weights import Weights

if TYPE_CHECKING:
    import pyarrow

    from mlaas4hep.streaming.adapters.export import Layout as TableLayout
    from mlaas4hep.streaming.adapters.keras_dataset import KerasEventDataset
    from mlaas4hep.streaming.adapters.torch_dataset import TorchEventDataset

__all__ = ["Dataset"]


class Dataset:
    """Files, what is in them, and how they become batches. Made by :func:`mlaas4hep.open`.

    Parameters
    ----------
    catalog : Catalog
        The files, and how they are seen.
    roles : BranchRoles
        Which columns are features.
    labels : Labels or Targets
    split : Split
    specs : Specs, optional
        Statistics that are known already.
    losses : LossReport, optional
        What could not be catalogued.
    vector : VectorSettings, optional
        What the event vector shall be.
    weighting : Weighting, optional
        How events are weighted.
    notes : sequence of str
        What a person should know of how the files were taken together, a line each.

    Attributes
    ----------
    catalog, roles, labels, split, vector, weighting, notes
        As given.
    losses : LossReport
        Bad files and events: those that were left out of the catalogue, and those that scans over all events missed. A stream has its own.
    """

    def __init__(
        self,
        catalog: Catalog,
        roles: BranchRoles,
        labels: Labels | Targets,
        split: Split,
        specs: Specs | None = None,
        losses: LossReport | None = None,
        *,
        vector: VectorSettings | None = None,
        weighting: Weighting | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.catalog = catalog
        self.roles = roles
        self.labels = labels
        self.split = split
        self.losses = losses or LossReport()
        self.vector = vector or VectorSettings()
        self.weighting = weighting or Weighting()
        self.notes = tuple(notes)
        self._specs = specs
        self._specs_file: Path | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the files."""
        return tuple(file.path for file in self.catalog.files)

    @property
    def events(self) -> int:
        """Number of events of all files, before any selection."""
        return self.catalog.entries

    @property
    def selection(self) -> EventSelection:
        """Which events and objects are taken, and which columns are made of them."""
        return self.catalog.view.selection

    @property
    def features(self) -> tuple[str, ...]:
        """Branches that go into the event vector, in the file's order."""
        return self.roles.features

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the class index; empty when there are no labels."""
        return self.labels.classes

    @property
    def excluded(self) -> Mapping[str, str]:
        """Branches that are no features, and why."""
        return self.roles.excluded

    @cached_property
    def identity(self) -> Identity:
        """Who the events are, and which fold each belongs to."""
        return Identity(self.catalog, self.roles.identifiers, self.split)

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
        return self.specs.make_encoding(self.vector, self.catalog.columns)

    @cached_property
    def weights(self) -> Weights | None:
        """Weights of the events, None where all are 1; the first use reads what they are made of once or twice.

        Raises
        ------
        WeightError, SettingError
            If a weight is not finite, or does not go together with what is set.
        """
        return learn_dataset_weights(self.catalog, self.labels, self.identity, self.weighting, self.losses)

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
            before = len(self.losses)
            self._specs = scan_specs(self.catalog, self.features, self.identity, self.describe(), progress, self.losses)
            if self._specs_file is not None and len(self.losses) == before:
                # Statistics are no worse for not being kept: the folder may not be ours to write to.
                with suppress(OSError):
                    self._specs.write(self._specs_file)
        return self._specs

    def describe(self) -> dict[str, Any]:
        """Return what the statistics depend on, as plain values for JSON."""
        return {
            "files": self.catalog.to_dict(),
            "tree": self.catalog.tree,
            "features": sorted(self.features),
            "identifiers": list(self.roles.identifiers),
            "split": self.split.to_dict(),
            **self.catalog.view.to_dict(),
        }

    def with_specs(self, specs: Specs) -> Dataset:
        """Return the same dataset with statistics that are known already.

        Raises
        ------
        SettingError
            If they are of other files, branches, split or selection.
        """
        mismatch = specs.mismatch(self.describe())
        if mismatch is not None:
            raise SettingError("specs", "of these files and branches", mismatch)
        dataset = copy(self)
        dataset._specs = specs
        dataset.__dict__.pop("encoding", None)
        return dataset

    def with_specs_beside(self) -> Dataset:
        """Return the same dataset with statistics that are kept in the folder of the first file, and made when they are not there.

        Raises
        ------
        SettingError
            If that file is not local.
        """
        folder = Path(self.files[0]).parent
        if "://" in self.files[0] or not folder.is_dir():
            raise SettingError("specs", "the name of a file where the first input file is not local", "beside")
        digest = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:12]
        dataset = copy(self)
        dataset._specs_file = folder / f"mlaas4hep-specs-{digest}.json"
        # What cannot be read is made anew.
        with suppress(SourceError, SettingError):
            dataset = dataset.with_specs(Specs.read(dataset._specs_file))
        return dataset

    def separating_features(self, threshold: float = THRESHOLD, max_events: int = 200_000) -> list[Separation]:
        """Return the features that separate the classes by themselves, judged on training events; reads about so many events.

        Parameters
        ----------
        threshold : float
            Area under the ROC curve above which a feature is named.
        max_events : int
            Events that are looked at, in runs of clusters from all over the files.
        """
        if not isinstance(self.labels, Labels) or len(self.classes) < 2:
            return []
        return find_separating_features(
            self.catalog, self.labels, self.identity, self.features, threshold, max_events, self.losses
        )

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
            Of :class:`~mlaas4hep.streaming.stream.stream.StreamSettings`: ``batch_size``, ``shuffle``, ``seed``, ``drop_last``, …

        Raises
        ------
        SettingError
            If a setting is not one of these, or has a value that it must not have.
        """
        known = StreamSettings.__dataclass_fields__
        for name, value in settings.items():
            if name not in known:
                raise SettingError(name, f"a setting of a stream ({', '.join(known)})", value)
        rules = EventRules(encoding or self.encoding, self.identity, self.labels, self.weights)
        return EventStream(self.catalog, rules, StreamSettings(fold=fold, **settings))

    def batches(self, batch_size: int = 512, fold: Fold | None = None, **settings: Any) -> Iterator[Batch]:
        """Iterate over one epoch of batches; parameters as in :meth:`stream`."""
        return iter(self.stream(fold, batch_size=batch_size, **settings))

    def torch_dataset(
        self, fold: Fold | None = None, *, pin_memory: bool = False, **settings: Any
    ) -> TorchEventDataset:
        """Return an ``IterableDataset`` of whole batches ``(x, mask, y, weight)``.

        Parameters
        ----------
        pin_memory : bool
            Whether the tensors lie in pinned memory, where there is an accelerator.
        fold, **settings
            As in :meth:`stream`.
        """
        from mlaas4hep.streaming.adapters.torch_dataset import TorchEventDataset

        return TorchEventDataset(self.stream(fold, **settings), pin_memory=pin_memory)

    def keras_dataset(self, fold: Fold | None = None, *, masks: bool = False, **settings: Any) -> KerasEventDataset:
        """Return a ``keras.utils.PyDataset`` of whole batches for ``model.fit``.

        Parameters
        ----------
        masks : bool
            Whether the input is ``{"x", "mask"}`` rather than the values alone.
        fold, **settings
            As in :meth:`stream`.
        """
        from mlaas4hep.streaming.adapters.keras_dataset import KerasEventDataset

        return KerasEventDataset(self.stream(fold, **settings), sum(self.class_counts(fold).values()), masks=masks)

    def to_arrow(
        self, fold: Fold | None = None, *, layout: TableLayout = "columns", **settings: Any
    ) -> pyarrow.RecordBatchReader:
        """Return one epoch as a ``pyarrow.RecordBatchReader``: a column for each place of the vector, or one ``x`` with ``layout="vector"``."""
        from mlaas4hep.streaming.adapters.export import to_arrow

        return to_arrow(self.stream(fold, **settings), layout=layout)

    def to_parquet(
        self,
        path: str | Path,
        fold: Fold | None = None,
        *,
        layout: TableLayout = "columns",
        compression: str = "zstd",
        **settings: Any,
    ) -> int:
        """Write one epoch to a Parquet file, which is there when it is whole; return the number of events."""
        from mlaas4hep.streaming.adapters.export import to_parquet

        return to_parquet(self.stream(fold, **settings), path, layout=layout, compression=compression)

    def raw_blocks(
        self, encoding: Encoding | None = None, max_events: int = 16384
    ) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.void], int]]:
        """Iterate over all events that the selection takes, in order, as raw values: what a bundle's graph takes.

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
        columns = tuple(dict.fromkeys((*vector.sources, *self.identity.identifiers)))
        runs = self.catalog.runs(RUN_BYTES, columns)
        with loaded_runs(self.catalog, runs, columns, QUEUE_BYTES, self.losses) as loaded:
            for one in loaded:
                block = pack(one.columns, vector, one.run.events)
                records = self.identity.records(one.run, one.columns)
                taken = np.arange(one.run.events) if one.passed is None else np.flatnonzero(one.passed)
                for start in range(0, len(taken), max_events):
                    rows = taken[start : start + max_events]
                    raw = np.empty((len(rows), vector.width), np.float32)
                    mask = np.empty(raw.shape, np.bool_)
                    cut = block.encode(plan, rows, np.arange(len(rows)), raw, mask)
                    yield raw, records[rows], cut

    def __repr__(self) -> str:
        files = f"{len(self.files)} file{'s' * (len(self.files) != 1)}"
        jagged = sum(self.catalog.columns[name].jagged for name in self.features)
        lines = [
            f"<Dataset of {files}, {self.events} events, tree '{self.catalog.tree}'",
            f"  features: {len(self.features)} branches, {len(self.features) - jagged} flat and {jagged} jagged",
            f"  identifiers: {', '.join(self.roles.identifiers) or 'none; the file and the entry identify an event'}",
            f"  classes: {', '.join(self.classes) or 'no labels'}",
            *([f"  selection: {self.selection}"] if self.selection.chooses else []),
            f"  split: {self.split.test:.0%} test, {self.split.validation:.0%} validation",
        ]
        return "\n".join(lines) + ">"
