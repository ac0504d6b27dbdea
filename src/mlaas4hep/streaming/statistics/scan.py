"""The pass over all events that makes the specs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.access.losses import LossReport
from mlaas4hep.streaming.catalog import Catalog
from mlaas4hep.streaming.identity import Identity
from mlaas4hep.streaming.labels import Labels, Targets
from mlaas4hep.streaming.splitting import FOLDS
from mlaas4hep.streaming.statistics.specs import Specs
from mlaas4hep.streaming.statistics.statistics import BranchStatistics, summarise_column
from mlaas4hep.streaming.stream.reading import loaded_runs

__all__ = ["RUN_BYTES", "Progress", "count_folds", "label_values", "scan_specs"]

RUN_BYTES = 12 * 2**20
"""Bytes that are read at a time: enough that the cost of a call does not show, small against any memory."""

QUEUE_BYTES = 2 * RUN_BYTES

Progress = Callable[[int, int], None]
"""Called with the number of events done and of all."""


def scan_specs(
    catalog: Catalog,
    features: Sequence[str],
    identity: Identity,
    source: Mapping[str, Any],
    progress: Progress | None = None,
    losses: LossReport | None = None,
) -> Specs:
    """Read every event once and return the specs of its features.

    Parameters
    ----------
    catalog : Catalog
    features : sequence of str
        Branches to describe.
    identity : Identity
        Tells which events are for training.
    source : mapping
        What the specs are of; kept in them.
    progress : callable, optional
        Called with the number of events done and of all, after each run.
    losses : LossReport, optional
        Takes up the runs that could not be read, where the rule for bad files is not to fail. The specs are of the others.

    Raises
    ------
    SourceError
        If a run cannot be read and the rule is to fail, or no run can be read at all.
    """
    lost = LossReport()
    everything = dict.fromkeys(features, BranchStatistics())
    training = dict.fromkeys(features, BranchStatistics())
    train_events = 0
    taken = [0] * len(catalog.files)
    done = 0
    columns = [*features, *identity.identifiers]
    with loaded_runs(catalog, catalog.runs(RUN_BYTES, columns), columns, QUEUE_BYTES, lost) as loaded:
        for one in loaded:
            run = one.run
            chosen = identity.folds(run, one.columns) == FOLDS.index("train")
            if one.passed is not None:
                chosen = chosen[one.passed]
            train_events += int(chosen.sum())
            taken[run.file] += chosen.size
            flat_offsets = np.arange(chosen.size + 1)
            for name in features:
                column = one.columns[name]
                if one.passed is not None:
                    column = column.events_where(one.passed)
                of_all, of_chosen = summarise_column(column, chosen.size, chosen, flat_offsets)
                everything[name] += of_all
                training[name] += of_chosen
            done += run.events
            if progress is not None:
                progress(done, catalog.entries)
    jagged = [name for name in features if catalog.columns[name].jagged]
    if len(lost) and not done:
        first = next(iter(lost))
        raise SourceError(first.file, f"no event of any file can be read: {first.reason}")
    if losses is not None:
        losses.extend(lost)
    events = {file.path: count for file, count in zip(catalog.files, taken, strict=True)}
    return Specs.of(everything, training, jagged, events, train_events, source)


def count_folds(
    catalog: Catalog, labels: Labels | Targets, identity: Identity, losses: LossReport | None = None
) -> npt.NDArray[np.int64]:
    """Count the events of each fold and class; reads identifiers and labels only.

    Returns
    -------
    int64 array of shape ``[folds, classes]``
        In the order of :data:`~mlaas4hep.streaming.splitting.FOLDS` and of the labels' classes; one column when there are no labels.
    """
    counts = np.zeros((len(FOLDS), max(1, len(labels.classes))), np.int64)
    of_class = labels.columns if isinstance(labels, Labels) else ()
    columns = list(dict.fromkeys((*identity.identifiers, *of_class)))
    report = LossReport() if losses is None else losses
    with loaded_runs(catalog, catalog.runs(RUN_BYTES, columns), columns, QUEUE_BYTES, report) as loaded:
        for one in loaded:
            folds = identity.folds(one.run, one.columns)
            if one.passed is not None:
                folds = folds[one.passed]
            classes: npt.NDArray[np.int64] = np.zeros(len(folds), np.int64)
            if isinstance(labels, Labels):
                classes = labels.of_events(one.run.file, len(folds), one.taken(of_class))
            np.add.at(counts, (folds, classes), 1)
    return counts


def label_values(catalog: Catalog, branch: str, losses: LossReport | None = None) -> npt.NDArray[Any]:
    """Return the different values of a flat branch, sorted."""
    found: npt.NDArray[Any] = np.empty(0, catalog.columns[branch].dtype)
    report = LossReport() if losses is None else losses
    with loaded_runs(catalog, catalog.runs(RUN_BYTES, [branch]), [branch], QUEUE_BYTES, report) as loaded:
        for one in loaded:
            found = np.union1d(found, one.taken([branch])[branch].content)
    return found
