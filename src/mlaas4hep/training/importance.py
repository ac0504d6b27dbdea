"""How much a model relies on each branch: what the area under its ROC curve loses when the branch is given the values of other events.

All places of a branch are exchanged together, with their mask, so that a jagged branch stays a list that some event really has; likewise all
members of a collection. Branches that say the same stand in for each other: each of them alone then looks less important than both are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.encoding.encoding import Encoding
from mlaas4hep.training.evaluation import error_of_placements, placements
from mlaas4hep.training.performance import judged_classes
from mlaas4hep.training.sample import Predict

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset
    from mlaas4hep.streaming.splitting import Fold

__all__ = ["Importance", "RawEvents", "branch_groups", "permutation_importance", "raw_events"]

REPEATS = 3
MOST_EVENTS = 20_000
FEWEST_EVENTS = 1_000
MOST_ROWS = 4_000_000
"""Events that are predicted in all: so many branches that this is not enough get fewer events each."""

MOST_BYTES = 128 * 2**20


@dataclass(frozen=True)
class RawEvents:
    """Held-out events with their physical values.

    Parameters
    ----------
    raw : float32 array of shape ``[n, width]``
        NaN where absent.
    y : int array of shape ``[n]``
    weight : float array of shape ``[n]``
        Of physics, with signs.
    """

    raw: npt.NDArray[np.float32]
    y: npt.NDArray[np.integer[Any]]
    weight: npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Importance:
    """What a model loses without a branch.

    Parameters
    ----------
    name : str
        The branch or collection.
    drop, error : float
        Loss of AUC (with several classes the mean over them) and its error, from the number of events and from the random exchange.
    """

    name: str
    drop: float
    error: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in asdict(self).items()}


def raw_events(dataset: Dataset, fold: Fold, limit: int = MOST_EVENTS) -> RawEvents | None:
    """Return about so many events of a fold, drawn from all files; fewer where they are so wide that they would fill the memory.

    Returns
    -------
    RawEvents or None
        None where there is no event.
    """
    encoding = dataset.encoding.unscaled
    limit = min(limit, max(FEWEST_EVENTS, MOST_BYTES // (4 * max(1, encoding.width))))
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    events = 0
    for batch in dataset.stream(fold, encoding=encoding, batch_size=4096, shuffle=True, weights="signed"):
        rows = batch.rows(0, limit - events)
        parts.append((np.where(rows.mask, np.float32(np.nan), rows.x), rows.y.copy(), rows.weight.copy()))
        events += len(rows.y)
        if events >= limit:
            break
    if not events:
        return None
    return RawEvents(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def branch_groups(encoding: Encoding) -> dict[str, tuple[int, ...]]:
    """Return the places of each branch; in the layout ``objects`` those of a collection stand together under its name.

    Examples
    --------
    >>> from mlaas4hep.streaming.encoding.encoding import Feature
    >>> branch_groups(Encoding((Feature("MET_pt", False, 1), Feature("Jet_pt", True, 2))))
    {'MET_pt': (0,), 'Jet_pt': (1, 2)}
    """
    owner = {name: one.name for one in encoding.collections for name in one.members}
    groups: dict[str, tuple[int, ...]] = {}
    for branch in encoding.branches:
        name = owner.get(branch, branch)
        groups[name] = (*groups.get(name, ()), *encoding.places(branch))
    return {name: places for name, places in groups.items() if places}


def permutation_importance(
    predict: Predict,
    encoding: Encoding,
    events: RawEvents,
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
    repeats: int = REPEATS,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
) -> tuple[Importance, ...]:
    """Return what the AUC loses without each branch, the largest loss first.

    Parameters
    ----------
    predict : callable
        Scaled values and mask → float32 ``[n, classes]``.
    encoding : Encoding
        How raw values are scaled.
    events : RawEvents
        Held-out events: of training events the model may rely on what it knows by heart.
    groups : mapping of str to sequence of int, optional
        Name → places that are exchanged together; :func:`branch_groups` if not given.
    repeats : int
        How often each is exchanged.
    most_rows : int
        Events that are predicted in all, at least 1,000 each time; it bounds the time.
    seed : int
        What the exchange follows from.

    Returns
    -------
    tuple of Importance
        Of NaN where a class has no event.
    """
    groups = branch_groups(encoding) if groups is None else groups
    number = max(FEWEST_EVENTS, most_rows // max(1, repeats * len(groups)))
    x, mask = encoding.scale_raw(events.raw[:number])
    y, weight = events.y[:number], np.asarray(events.weight[:number], np.float64)
    random = np.random.default_rng(seed)
    classes = predict(x[:1], mask[:1]).shape[1]
    before = _all_placements(predict(x, mask), y, weight, classes)
    found = []
    for name, group in groups.items():
        places = list(group)
        kept = x[:, places], mask[:, places]
        lost: list[Any] = []
        for _ in range(repeats):
            order = random.permutation(len(x))
            x[:, places], mask[:, places] = kept[0][order], kept[1][order]
            after = _all_placements(predict(x, mask), y, weight, classes)
            lost.append([None if b is None or a is None else b - a for b, a in zip(before, after, strict=True)])
        x[:, places], mask[:, places] = kept
        found.append(Importance(name, *_drop(lost, y, weight, classes)))
    return tuple(sorted(found, key=lambda one: -one.drop if not math.isnan(one.drop) else math.inf))


def _all_placements(
    probabilities: npt.NDArray[np.float32], y: npt.NDArray[Any], weight: npt.NDArray[np.float64], classes: int
) -> list[npt.NDArray[np.float64] | None]:
    return [placements(probabilities[:, index], y == index, weight) for index in judged_classes(classes)]


def _drop(lost: list[Any], y: npt.NDArray[Any], weight: npt.NDArray[np.float64], classes: int) -> tuple[float, float]:
    """Return mean loss and its error from the differences of placements, ``[repeats][classes]``."""
    drops, errors = [], []
    for place, index in enumerate(judged_classes(classes)):
        differences = [repeat[place] for repeat in lost]
        if any(one is None for one in differences):
            return math.nan, math.nan
        signal = y == index
        each = [float((weight[signal] * one[signal]).sum() / weight[signal].sum()) for one in differences]
        of_events = error_of_placements(np.mean(differences, axis=0), signal, weight)
        of_exchange = float(np.std(each, ddof=1)) / math.sqrt(len(each)) if len(each) > 1 else 0.0
        drops.append(float(np.mean(each)))
        errors.append(math.hypot(of_events, of_exchange))
    return float(np.mean(drops)), float(np.mean(errors))
