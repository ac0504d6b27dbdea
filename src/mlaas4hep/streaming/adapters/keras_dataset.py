"""The stream as a Keras dataset of whole batches.

Keras asks a ``PyDataset`` for batch number so and so, in an order of its own; a stream gives one batch after the other. Since the stream shuffles
anyway, whatever number is asked for gets the batch that comes next, and what remains to be found out is where Keras begins anew. It says so only
between the lines: it ends an epoch that it did not begin, or in which it took one batch to learn the shapes, or asks again for batch 0.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import MissingExtraError, SettingError, SourceError
from mlaas4hep.streaming.stream.stream import Batch, EventStream

if "keras" not in sys.modules and importlib.util.find_spec("tensorflow") is None:
    # Keras' own default is TensorFlow; PyTorch is always there.
    os.environ.setdefault("KERAS_BACKEND", "torch")
try:
    import keras
except ModuleNotFoundError as error:
    if error.name != "keras":
        raise
    raise MissingExtraError("Keras", "keras") from error

__all__ = ["KerasEventDataset"]

Inputs = npt.NDArray[np.float32] | dict[str, npt.NDArray[Any]]
KerasBatch = tuple[Inputs, npt.NDArray[np.int64], npt.NDArray[np.float32]]


class KerasEventDataset(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches ``(x, y, weight)`` for ``fit``, ``evaluate`` and ``predict``; each pass of Keras is one epoch of the stream.

    Reading and encoding have threads of their own, so Keras needs no workers. Its ``shuffle`` has no effect. With ``steps_per_epoch`` the next
    epoch goes on where the last one ended; so it does after a fit that was broken off by an exception, unless :meth:`restart` is called. Where
    events were lost (``on_bad_file="skip"``) an epoch is filled up with events of weight 0, since Keras wants as many batches as were announced.

    Parameters
    ----------
    stream : EventStream
        Of all events of its fold: one that is a rank's share does not know how many batches it has.
    events : int
        How many the stream delivers in an epoch.
    masks : bool
        Whether the inputs are ``{"x": x, "mask": mask}``, for a model with inputs of these names, rather than ``x`` alone.

    Raises
    ------
    SettingError
        If the stream is a share or mixes classes in equal parts, or has no whole batch.
    MissingExtraError
        On import, if Keras is not installed.
    """

    def __init__(self, stream: EventStream, events: int, *, masks: bool = False) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        if stream.settings.world_size != 1:
            raise SettingError("world_size", "1 for a Keras dataset", stream.settings.world_size)
        if stream.settings.mixing != "proportional":
            # Keras wants to know how many batches come, and events that come several times are not counted beforehand.
            raise SettingError("mixing", "'proportional' for a Keras dataset", stream.settings.mixing)
        size = stream.settings.batch_size
        self._batches = events // size if stream.settings.drop_last else -(-events // size)
        if self._batches == 0:
            raise SettingError("fold", f"one with events for at least one batch; it has {events}", stream.settings.fold)
        self.stream = stream
        self.masks = masks
        self._epoch: Iterator[Batch] = iter(())
        self._number = stream.epoch
        self._state = stream.state_dict()
        self._given = 0
        self._in_order = True
        self._inside = False
        self._given_inside = 0
        self._looked = False
        self._filler: Batch | None = None

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return int(self._batches)

    def __getitem__(self, index: int) -> KerasBatch:
        """Return the batch that comes next.

        Parameters
        ----------
        index : int
            What Keras asks for. Only 0 says something, where it comes again after numbers in their order: that Keras begins anew.

        Returns
        -------
        x : float32 array of shape ``[n, width]``, or dict of it and ``mask``, a bool array of the same shape
        y : array of shape ``[n]``
        weight : float32 array of shape ``[n]``

        Raises
        ------
        SourceError
            If a file cannot be read.
        """
        if index == 0 and self._in_order:
            self.restart()
        if self._given in (0, self._batches):
            self._begin_epoch()
        self._in_order &= index == self._given
        self._given += 1
        self._given_inside += 1
        self._looked &= self._given < self._batches
        batch = next(self._epoch, None)
        if batch is None:
            batch = self._weightless()
        elif self._filler is None:
            self._filler = Batch._make(values[:1].copy() for values in batch)
        return {"x": batch.x, "mask": batch.mask} if self.masks else batch.x, batch.y, batch.weight

    def on_epoch_begin(self) -> None:
        """Note that Keras begins what it calls an epoch."""
        self._inside = True
        self._given_inside = 0

    def on_epoch_end(self) -> None:
        """Note that Keras ends an epoch, or does away with one."""
        if not self._inside:
            self.restart()
        elif self._given == self._given_inside == 1 and not self._looked:
            # Keras took one batch to learn the shapes. Or steps_per_epoch is 1: then the first batch of an epoch comes twice, and none is left out.
            self._looked = True
            self.restart()
        self._inside = False

    def restart(self) -> None:
        """Leave the epoch that has begun, if it is not at its end, and begin it anew: for after a fit that was broken off."""
        if 0 < self._given < self._batches:
            self._epoch = iter(())
            self.stream.load_state_dict(self._state)
            self.stream.epoch = self._number
            self._given = 0
            self._in_order = True

    def _begin_epoch(self) -> None:
        next(self._epoch, None)  # a stream has finished an epoch when it is asked for more
        self._number, self._state = self.stream.epoch, self.stream.state_dict()
        self._epoch = iter(self.stream)
        self._given = 0
        self._in_order = True

    def _weightless(self) -> Batch:
        """Return an event of weight 0, in place of a batch of events that were lost."""
        if self._filler is None:
            raise SourceError(self.stream.catalog.files[0].path, "no event could be read")
        return self._filler._replace(weight=np.zeros(1, np.float32))
