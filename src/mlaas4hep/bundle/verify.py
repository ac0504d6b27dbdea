"""Verify a bundle: every file is the one that was written, every graph runs, and the example events have the scores that they had.

The examples are some held-out events of the training with their scores, as JSON, so that anyone can compare, whatever executes the graph.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.graph import FEATURES
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.errors import BundleError

__all__ = ["EXAMPLES_FILE", "Verification", "examples_json", "read_examples", "verify_bundle"]

EXAMPLES_FILE = "examples.json"
EXAMPLES = 100
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found.

    Parameters
    ----------
    name : str
        Of the model.
    files : int
        Files whose checksums were compared, the manifest apart.
    graphs : int
        Graphs that were run.
    events : int
        Example events that were compared; 0 where the bundle has none.
    largest_difference : float
        Of any score of theirs; of values beyond 1, relative to them.
    """

    name: str
    files: int
    graphs: int
    events: int
    largest_difference: float


def verify_bundle(path: str | Path) -> Verification:
    """Verify a bundle.

    Parameters
    ----------
    path : str or Path
        Folder or archive.

    Returns
    -------
    Verification

    Raises
    ------
    BundleError, ArchiveError
        If anything is not as it was written; the first thing that is wrong is named.
    """
    with Bundle.open(path) as bundle:
        known = {"manifest.json", *bundle.manifest.sha256}
        for file in sorted(file for file in bundle.folder.rglob("*") if not file.is_dir()):
            name = file.relative_to(bundle.folder).as_posix()
            if name not in known:
                raise BundleError(str(path), f"'{name}' is in it, and its manifest knows nothing of it")
        raw = np.full((2, bundle.encoding.width), np.nan, np.float32)
        folds = 0 if bundle.k_fold is None else bundle.k_fold.folds
        bundle.predict(raw)
        for fold in range(folds):
            bundle.predict_by_fold(raw, np.full(2, fold, np.int64))
        largest, events = 0.0, 0
        examples = read_examples(bundle)
        if examples is not None:
            raw, expected = examples
            events = len(raw)
            differences = np.abs(bundle.predict(raw) - expected) / np.maximum(1, np.abs(expected))
            largest = float(differences.max())  # NaN where one of them is
            if not largest <= TOLERANCE:
                row = int(np.argmax(differences.max(axis=1)))
                raise BundleError(
                    str(path),
                    f"example event {row} has other scores than when it was written: they differ by {largest:.2g}",
                )
        return Verification(bundle.name, len(bundle.manifest.sha256), 1 + folds, events, largest)


def examples_json(raw: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], output: str) -> bytes:
    """Return example events and their scores as JSON: ``features`` and the output's name, a list an event, null where absent.

    Parameters
    ----------
    raw : float32 array of shape ``[n, width]``
        Raw values; only the first 100 events are kept.
    scores : float32 array of shape ``[n, columns]``
    output : str
        Name of the graph's output.
    """
    import orjson

    kept = {FEATURES: np.ascontiguousarray(raw[:EXAMPLES]), output: np.ascontiguousarray(scores[:EXAMPLES])}
    # It writes float32 with as many digits as tell it apart, and what is not finite as null.
    return orjson.dumps(kept, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def read_examples(bundle: Bundle) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    """Return a bundle's example events, float32 ``[n, width]``, and their scores, ``[n, columns]``; None where it has none.

    Raises
    ------
    BundleError
        If they are not of that form.
    """
    if EXAMPLES_FILE not in bundle.manifest.sha256:
        return None
    try:
        content: dict[str, Any] = json.loads((bundle.folder / EXAMPLES_FILE).read_bytes())
        raw, scores = (np.array(content[name], np.float32) for name in (FEATURES, bundle.output))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(str(bundle.source), f"{EXAMPLES_FILE} is damaged: {error}") from error
    if (
        raw.ndim != 2
        or raw.shape[1] != bundle.encoding.width
        or scores.shape != (len(raw), len(bundle.labels))
        or not len(raw)
    ):
        raise BundleError(
            str(bundle.source), f"{EXAMPLES_FILE} is damaged: {list(raw.shape)} values, {list(scores.shape)} scores"
        )
    return raw, scores
