"""Events of a dataset with what a model says of them: what every judgement is made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset
    from mlaas4hep.streaming.splitting import Fold

__all__ = ["Predict", "Sample", "predict_events"]

ROWS_AT_ONCE = 4096

Predict = Callable[[npt.NDArray[np.float32], npt.NDArray[np.bool_]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Sample:
    """Events that were predicted.

    Parameters
    ----------
    probabilities : float array of shape ``[n, classes]``
    y : int array of shape ``[n]``
        Index of the true class.
    weight : float array of shape ``[n]``
        Weights of physics, with their signs.
    training_weight : float array of shape ``[n]``, optional
        Weights as a training takes them; the same if not given.
    id : structured array of shape ``[n]``, optional
        Who the events are, as in a batch.
    """

    probabilities: npt.NDArray[np.floating[Any]]
    y: npt.NDArray[np.integer[Any]]
    weight: npt.NDArray[np.floating[Any]]
    training_weight: npt.NDArray[np.floating[Any]] | None = None
    id: npt.NDArray[np.void] | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def loss_weight(self) -> npt.NDArray[np.floating[Any]]:
        """The weights that the model learned to give probabilities for."""
        return self.weight if self.training_weight is None else self.training_weight

    @classmethod
    def joined(cls, samples: list[Sample]) -> Sample:
        """Return the events of several samples as one."""
        weights = any(one.training_weight is not None for one in samples)
        known = all(one.id is not None for one in samples)
        return cls(
            np.concatenate([one.probabilities for one in samples]),
            np.concatenate([one.y for one in samples]),
            np.concatenate([one.weight for one in samples]),
            np.concatenate([one.loss_weight for one in samples]) if weights else None,
            np.concatenate([one.id for one in samples if one.id is not None]) if known else None,
        )


def predict_events(dataset: Dataset, predict: Predict, fold: Fold | None, *, limit: int | None = None) -> Sample | None:
    """Predict the events of a fold, or about so many of them.

    Parameters
    ----------
    dataset : Dataset
    predict : callable
        As :meth:`~mlaas4hep.training.frameworks.base.Trainer.predict`: scaled values and mask → float32 ``[n, classes]``.
    fold : {"train", "validation", "test"} or None
    limit : int, optional
        Most events; they are then drawn from all files.

    Returns
    -------
    Sample or None
        None where there is no event.
    """
    taken: list[tuple[npt.NDArray[Any], ...]] = []
    events = 0
    for batch in dataset.stream(fold, batch_size=ROWS_AT_ONCE, shuffle=limit is not None, weights="signed"):
        rows = batch.rows(0, None if limit is None else limit - events)
        taken.append((predict(rows.x, rows.mask), rows.y.copy(), rows.weight.copy(), rows.id.copy()))
        events += len(rows.y)
        if limit is not None and events >= limit:
            break
    if not events:
        return None
    probabilities, y, weight, identity = (np.concatenate(column) for column in zip(*taken, strict=True))
    training = None if dataset.weights is None else _training_weights(dataset, fold, identity)
    return Sample(probabilities, y, weight, training, identity)


def _training_weights(dataset: Dataset, fold: Fold | None, identity: npt.NDArray[np.void]) -> npt.NDArray[np.float32]:
    """Return the training weight of events; 0 of those that a training leaves out."""
    wanted = _keys(identity)
    order = np.argsort(wanted)
    weights = np.zeros(len(wanted), np.float32)
    for batch in dataset.stream(fold, batch_size=ROWS_AT_ONCE, shuffle=False, weights="training"):
        keys = _keys(batch.id)
        place = np.minimum(np.searchsorted(wanted, keys, sorter=order), len(order) - 1)
        found = order[place]
        here = wanted[found] == keys
        weights[found[here]] = batch.weight[here]
    return weights


def _keys(identity: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    """Return one number for each event's file and entry; files have fewer than 2^43 entries, and there are fewer than 2^20 files."""
    return np.asarray((identity["file"].astype(np.int64) << 43) | identity["entry"], np.int64)
