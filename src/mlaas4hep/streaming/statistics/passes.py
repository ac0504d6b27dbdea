"""Passes over the training events that learn what is no statistics of a branch: weights, and features that separate the classes alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mlaas4hep.streaming.access.losses import LossReport
from mlaas4hep.streaming.catalog import Catalog
from mlaas4hep.streaming.formats import Reader, open_reader
from mlaas4hep.streaming.identity import Identity
from mlaas4hep.streaming.labels import Labels
from mlaas4hep.streaming.splitting import FOLDS
from mlaas4hep.streaming.statistics.scan import QUEUE_BYTES, RUN_BYTES
from mlaas4hep.streaming.statistics.separation import ClassSketches, Separation, separating_features
from mlaas4hep.streaming.stream.reading import loaded_runs
from mlaas4hep.streaming.stream.schedule import share_of_runs
from mlaas4hep.streaming.targets import Targets
from mlaas4hep.streaming.weights.cross_sections import RUNS_TREE, file_weights
from mlaas4hep.streaming.weights.event_weights import TrainingRun
from mlaas4hep.streaming.weights.weighting import Weighting
from mlaas4hep.streaming.weights.weights import Weights, learn_weights

__all__ = ["find_separating_features", "learn_dataset_weights"]


def learn_dataset_weights(
    catalog: Catalog, labels: Labels | Targets, identity: Identity, weighting: Weighting, losses: LossReport
) -> Weights | None:
    """Learn the weights of a catalogue's events from its training events; None where all weights are 1.

    Parameters
    ----------
    catalog : Catalog
    labels : Labels or Targets
    identity : Identity
        Tells which events are for training.
    weighting : Weighting
    losses : LossReport
        Takes up what could not be read.
    """
    if not weighting:
        return None

    @contextmanager
    def open_runs(place: int) -> Iterator[Reader]:
        file = catalog.files[place]
        reader = catalog.faults.attempt(
            (file.path, *file.alternatives), lambda location: open_reader(location, RUNS_TREE, catalog.dtype)
        )
        try:
            yield reader
        finally:
            reader.close()

    by_file = labels.by_file if isinstance(labels, Labels) else ()
    files = [file.path for file in catalog.files]
    per_file = file_weights(weighting, files, by_file, open_runs)
    columns = list(dict.fromkeys((*identity.identifiers, *labels.columns, *weighting.columns)))

    def passes() -> Iterator[TrainingRun]:
        with loaded_runs(catalog, catalog.runs(RUN_BYTES, columns), columns, QUEUE_BYTES, losses) as loaded:
            for one in loaded:
                run = one.run
                chosen = identity.folds(run, one.columns) == FOLDS.index("train")
                if one.passed is not None:
                    chosen &= one.passed
                y = labels.of_events(run.file, run.events, one.columns, chosen=chosen, entries=run.start)
                yield TrainingRun(run.file, run.start, one.columns, y, chosen)

    return learn_weights(weighting, passes, labels.classes, per_file, files)


def find_separating_features(
    catalog: Catalog,
    labels: Labels,
    identity: Identity,
    features: Sequence[str],
    threshold: float,
    max_events: int,
    losses: LossReport,
) -> list[Separation]:
    """Return the features that separate the classes by themselves, the best first.

    Parameters
    ----------
    catalog, labels, identity
    features : sequence of str
    threshold : float
        Area under the ROC curve above which a feature is named.
    max_events : int
        About so many events are read, in runs of clusters from all over the files.
    losses : LossReport
        Takes up what could not be read.
    """
    columns = list(dict.fromkeys((*features, *identity.identifiers, *labels.columns)))
    runs = catalog.runs(min(RUN_BYTES, int(max_events * catalog.bytes_per_event(columns) / 8) + 1), columns)
    every = max(1, -(-catalog.entries // max(1, max_events)))
    some = share_of_runs(runs, labels.by_file or (0,) * len(catalog.files), 0, every)
    sketches = ClassSketches(features, labels.classes)
    with loaded_runs(catalog, some, columns, QUEUE_BYTES, losses) as loaded:
        for one in loaded:
            run = one.run
            chosen = identity.folds(run, one.columns) == FOLDS.index("train")
            if one.passed is not None:
                chosen &= one.passed
            y = labels.of_events(run.file, run.events, one.columns, chosen=chosen, entries=run.start)
            sketches.add(one.columns, y, chosen)
    return separating_features(sketches, threshold)
