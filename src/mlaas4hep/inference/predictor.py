"""Score files offline: the same graph on the same raw values as the server's, one row an event."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.errors import BranchTypeError
from mlaas4hep.inference.score_files import open_score_file, score_columns
from mlaas4hep.streaming.dataset import Dataset
from mlaas4hep.streaming.open_dataset import open_dataset
from mlaas4hep.streaming.sources import DEFAULT_REDIRECTOR

__all__ = ["PredictionSummary", "open_for_bundle", "predict_files"]


@dataclass(frozen=True, slots=True)
class PredictionSummary:
    """What a prediction over files did.

    Parameters
    ----------
    events : int
        Number of events, which is the number of rows.
    cut_values : int
        Values that were left out because an event held more than the model has places.
    seconds : float
        Time that it took.
    """

    events: int
    cut_values: int
    seconds: float


def open_for_bundle(
    bundle: Bundle,
    files: str | Path | Sequence[str | Path],
    *,
    tree: str | None = None,
    redirector: str = DEFAULT_REDIRECTOR,
) -> Dataset:
    """Open files as what a bundle predicts on: its features, and the identifiers that its training data had.

    Parameters
    ----------
    bundle : Bundle
    files : str, Path, or sequence of them
        As :func:`mlaas4hep.open` takes them.
    tree : str, optional
        Name of the tree; that of the training data when not given.
    redirector : str
        What is put before a ``/store/…`` name that is no local file.

    Raises
    ------
    MLaaS4HEPError
        If the files cannot be opened, or a feature is missing or of another kind.
    """
    dataset = open_dataset(
        files,
        tree=tree or bundle.manifest.data.get("tree", "Events"),
        branches=bundle.encoding.branches,
        **_view_of(bundle),
        identifiers=bundle.manifest.data.get("identifiers") or None,
        redirector=redirector,
    )
    for feature in bundle.encoding.features:
        if dataset.catalog.columns[feature.branch].jagged != feature.jagged:
            wanted, found = ("a list", "one value") if feature.jagged else ("one value", "a list")
            raise BranchTypeError(
                feature.branch,
                dataset.files[0],
                f"model '{bundle.name}' takes {wanted} an event, the file holds {found}",
            )
    return dataset


def _view_of(bundle: Bundle) -> dict[str, Any]:
    """Return what made the columns of a bundle's training, as arguments of :func:`mlaas4hep.open`; events that its cut rejects are scored too."""
    selection = bundle.manifest.data.get("selection") or {}
    return {name: selection.get(name) or None for name in ("new_columns", "object_cuts")}


def predict_files(
    bundle: Bundle | str | Path,
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    tree: str | None = None,
    redirector: str = DEFAULT_REDIRECTOR,
    progress: Callable[[int, int], None] | None = None,
) -> PredictionSummary:
    """Score every event of some files.

    Parameters
    ----------
    bundle : Bundle, str or Path
        The model: a bundle, or the folder or archive of one.
    files : str, Path, or sequence of them
        As :func:`mlaas4hep.open` takes them.
    out : str or Path
        File for the scores, ``.root`` or ``.parquet``: one row an event in the files' order, with the index of the file, the entry, the identifiers
        and the score of each class. It is whole or not there.
    tree, redirector
        As in :func:`open_for_bundle`.
    progress : callable, optional
        Called with the number of events done and of all.

    Returns
    -------
    PredictionSummary

    Raises
    ------
    MLaaS4HEPError
        If the bundle, the files or ``out`` cannot be used.
    """
    if not isinstance(bundle, Bundle):
        with Bundle.open(bundle) as opened:
            return predict_files(opened, files, out, tree=tree, redirector=redirector, progress=progress)
    start = time.perf_counter()
    dataset = open_for_bundle(bundle, files, tree=tree, redirector=redirector)
    events = cut_values = 0
    with open_score_file(Path(out), dataset.files) as scores:
        for raw, identity, cut in dataset.raw_blocks(bundle.encoding):
            scores.write(score_columns(identity, bundle.predict(raw), bundle.labels, bundle.output))
            events += len(raw)
            cut_values += cut
            if progress is not None:
                progress(events, dataset.events)
    return PredictionSummary(events, cut_values, time.perf_counter() - start)
