"""Give each background event a value of the signal's parameter, for a classifier that takes the parameter as a feature.

The value is drawn from those of the signal's training events. It follows from the event's identity, so that it is the same in every epoch, for every
number of workers, and in the test part; and from another hash than the fold, so that it does not depend on that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import LabelError, SettingError, nearest_names, quoted
from mlaas4hep.streaming.identity import Identity
from mlaas4hep.streaming.splitting import entry_identity, event_identity
from mlaas4hep.streaming.stream.batch import Batch

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset

__all__ = ["ParameterDraw"]

MOST_VALUES = 100_000
SALT = 0x7061_7261


class ParameterDraw:
    """Draws the parameter of background events.

    Parameters
    ----------
    values : float32 array of shape ``[k]``
        Scaled values of signal events, rising.
    place : int
        Where the parameter stands in the feature vector.
    signal : int
        Index of the class that has true values.
    identity : Identity
        Who the events are.
    """

    def __init__(self, values: npt.NDArray[np.float32], place: int, signal: int, identity: Identity) -> None:
        self.values, self.place, self.signal, self.identity = values, place, signal, identity

    @classmethod
    def learn(cls, dataset: Dataset, parameter: str, signal: str = "") -> ParameterDraw:
        """Read the parameter of the signal's training events.

        Parameters
        ----------
        dataset : Dataset
            With labels.
        parameter : str
            A flat branch that is a feature.
        signal : str
            Label of the class that it describes; the last one if empty.

        Raises
        ------
        SettingError
            If there is no such feature or class.
        LabelError
            If no training event of the signal has a value.
        """
        encoding, classes = dataset.encoding, dataset.classes
        flat = [feature.branch for feature in encoding.features if not feature.jagged]
        if parameter not in flat:
            near = nearest_names(parameter, flat) or tuple(flat)
            raise SettingError("model.parameter", f"a flat branch that is a feature, as {quoted(near)}", parameter)
        if signal and signal not in classes:
            raise SettingError("model.signal", f"one of the classes {quoted(classes)}", signal)
        if not classes:
            raise SettingError("model.parameter", "left out where there are no labels", parameter)
        number = classes.index(signal) if signal else len(classes) - 1
        draw = cls(np.empty(0, np.float32), encoding.places(parameter)[0], number, dataset.identity)
        draw.values = draw._of_signal(dataset)
        if not len(draw.values):
            raise LabelError(f"no training event of class '{classes[number]}' has a value of '{parameter}'")
        return draw

    def __call__(self, batch: Batch) -> Batch:
        """Return a batch whose background events have a drawn value; the others are as they were."""
        background = batch.y != self.signal
        x, mask = batch.x.copy(), batch.mask.copy()
        drawn = self._numbers(batch.id[background]) / 2.0**64
        x[background, self.place] = self.values[
            np.minimum(drawn * len(self.values), len(self.values) - 1).astype(np.intp)
        ]
        mask[background, self.place] = False
        return batch._replace(x=x, mask=mask)

    def _of_signal(self, dataset: Dataset) -> npt.NDArray[np.float32]:
        """Return the values of signal events; of very many those with the smallest hash, whatever the order they come in."""
        kept, hashes = np.empty(0, np.float32), np.empty(0, np.uint64)
        for batch in dataset.stream("train", shuffle=False, batch_size=4096):
            chosen = (batch.y == self.signal) & ~batch.mask[:, self.place]
            kept = np.concatenate([kept, batch.x[chosen, self.place]])
            hashes = np.concatenate([hashes, self._numbers(batch.id[chosen])])
            if len(kept) > 2 * MOST_VALUES:
                first = np.argpartition(hashes, MOST_VALUES)[:MOST_VALUES]
                kept, hashes = kept[first], hashes[first]
        return np.sort(kept[np.argsort(hashes)[:MOST_VALUES]])

    def _numbers(self, records: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
        """Return a number for each event that is spread evenly over 64 bits."""
        salt = self.identity.split.salt + SALT
        names = self.identity.identifiers
        if names:
            return event_identity([records[name] for name in names], salt)
        numbers = np.empty(len(records), np.uint64)
        for file in np.unique(records["file"]):
            rows = records["file"] == file
            uuid = self.identity.catalog.files[int(file)].uuid
            numbers[rows] = entry_identity(uuid, records["entry"][rows], salt)
        return numbers
