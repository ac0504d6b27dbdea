"""The stream as pages of events for XGBoost, which reads them several times and keeps only what it has binned.

XGBoost goes over the events more than once, to find the bins and to fill them, and takes for granted that they come in the same order. A stream
shuffles every epoch, so each pass is the same epoch again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

from mlaas4hep.training.frameworks.base import Batches, EventBatch, Task
from mlaas4hep.training.frameworks.judging import refuse_negative_weights_of

__all__ = ["EventPages", "with_nan"]

PAGE_BYTES = 32 * 2**20  # small pages are many files; large ones do not fit beside the stream's own blocks

Floats = npt.NDArray[np.float32]


def with_nan(x: Floats, mask: npt.NDArray[np.bool_]) -> Floats:
    """Return scaled values with NaN where they are absent: trees send such an event to a side that they have learned.

    Examples
    --------
    >>> with_nan(np.zeros((1, 2), np.float32), np.array([[True, False]]))
    array([[nan,  0.]], dtype=float32)
    """
    return np.where(mask, np.float32(np.nan), x)


class EventPages(xgboost.DataIter):  # type: ignore[misc]  # XGBoost is not checked
    """Events in pages of some 32 MiB.

    Parameters
    ----------
    batches : Batches
        Every pass is the epoch that is next when this is made.
    task : Task
        Says how wide an event is.
    cache : Path
        Beginning of the names of the files in which XGBoost keeps what it has binned.
    """

    def __init__(self, batches: Batches, task: Task, cache: Path) -> None:
        self.events = 0
        self._batches, self._epoch = batches, batches.epoch
        self._rows = max(1, PAGE_BYTES // (4 * task.width))
        self._pass: Iterator[EventBatch] | None = None
        super().__init__(cache_prefix=str(cache))

    def reset(self) -> None:
        """Begin another pass."""
        self._pass = None

    def next(self, input_data: Callable[..., Any]) -> bool:
        """Hand over the next page; False where there is none.

        Raises
        ------
        SettingError
            If a weight is negative.
        """
        if self._pass is None:
            self._batches.epoch = self._epoch
            self._pass = iter(self._batches)
            self.events = 0
        x: list[Floats] = []
        y: list[npt.NDArray[Any]] = []
        weight: list[Floats] = []
        rows = 0
        for batch in self._pass:
            refuse_negative_weights_of("XGBoost", batch)
            x.append(with_nan(batch.x, batch.mask))
            y.append(batch.y.copy())
            weight.append(batch.weight.copy())
            rows += len(batch.y)
            if rows >= self._rows:
                break
        if not rows:
            return False
        self.events += rows
        input_data(data=np.concatenate(x), label=np.concatenate(y), weight=np.concatenate(weight))
        return True
