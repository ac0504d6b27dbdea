"""A run of events packed for the kernels: all features' values in one float32 array.

Packing costs one pass over the bytes and buys one kernel call for all features, whatever their types. The values are float32 from here on, as they
are on the wire (TFaaS, ONNX), so training and inference see the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.encoding import Encoding
from mlaas4hep.streaming.formats.base import Column

__all__ = ["EventBlock", "KernelPlan", "pack"]


@dataclass(frozen=True)
class KernelPlan:
    """An encoding as the plain arrays that the kernels read.

    Parameters
    ----------
    encoding : Encoding
    scaled : bool
        Whether values are scaled and 0 where absent; else they are raw, and NaN where absent.
    """

    encoding: Encoding
    scaled: bool = True

    @property
    def absent(self) -> float:
        """What stands where an event has no value."""
        return 0.0 if self.scaled else np.nan

    @cached_property
    def first_place(self) -> npt.NDArray[np.int64]:
        """First place of each feature, int64 ``[features]``."""
        return np.array([self.encoding.first_places[f.branch] for f in self.encoding.features], np.int64)

    @cached_property
    def width(self) -> npt.NDArray[np.int64]:
        """Places of each feature, int64 ``[features]``."""
        return np.array([f.width for f in self.encoding.features], np.int64)

    @cached_property
    def shift(self) -> npt.NDArray[np.float32]:
        """Shift of each feature, float32 ``[features]``."""
        return np.array([f.shift if self.scaled else 0.0 for f in self.encoding.features], np.float32)

    @cached_property
    def scale(self) -> npt.NDArray[np.float32]:
        """Scale of each feature, float32 ``[features]``."""
        return np.array([f.scale if self.scaled else 1.0 for f in self.encoding.features], np.float32)


@dataclass(frozen=True)
class EventBlock:
    """Consecutive events of one file, packed.

    Parameters
    ----------
    events : int
        Number of events.
    content : float32 array of shape ``[values]``
    starts : int64 array of shape ``[features]``
    offsets : int64 array of shape ``[events + 1, lists]``
    offsets_of : int64 array of shape ``[features]``
        As :func:`mlaas4hep.streaming.kernels.encode_rows` reads them.
    """

    events: int
    content: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    offsets_of: npt.NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.content.nbytes + self.offsets.nbytes

    def encode(
        self,
        plan: KernelPlan,
        rows: npt.NDArray[np.int64],
        destinations: npt.NDArray[np.int64],
        x: npt.NDArray[np.float32],
        mask: npt.NDArray[np.bool_],
    ) -> int:
        """Encode some of the events into rows of a block; return the number of values that were cut off.

        Parameters
        ----------
        plan : KernelPlan
        rows, destinations : int64 array of shape ``[n]``
            Event of this block, and row of ``x`` and ``mask`` that it goes to.
        x : float32 array of shape ``[block, places]``
        mask : bool array of shape ``[block, places]``
        """
        from mlaas4hep.streaming import kernels

        return int(
            kernels.encode_rows(
                self.content,
                self.starts,
                self.offsets,
                self.offsets_of,
                plan.first_place,
                plan.width,
                plan.shift,
                plan.scale,
                rows,
                destinations,
                x,
                mask.view(np.uint8),
                plan.absent,
            )
        )


def pack(columns: Mapping[str, Column], encoding: Encoding, events: int) -> EventBlock:
    """Pack the columns of an encoding's features.

    Parameters
    ----------
    columns : mapping of str to Column
        At least the features' columns.
    encoding : Encoding
    events : int
        Number of events that every column holds.
    """
    features = [columns[feature.branch] for feature in encoding.features]
    sizes = np.array([len(column.content) for column in features], np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    content = np.empty(int(starts[-1]), np.float32)
    offsets_of = np.full(len(features), -1, np.int64)
    lists: list[npt.NDArray[np.int64]] = []
    with np.errstate(over="ignore"):  # beyond float32 is ±inf, which counts as absent
        for index, column in enumerate(features):
            content[starts[index] : starts[index + 1]] = column.content
            if column.offsets is not None:
                # Branches of one collection have equal offsets and stand side by side in sorted order.
                if not lists or not np.array_equal(lists[-1], column.offsets):
                    lists.append(column.offsets)
                offsets_of[index] = len(lists) - 1
    offsets = np.stack(lists, axis=1) if lists else np.zeros((events + 1, 1), np.int64)
    return EventBlock(events, content, starts[:-1].copy(), offsets, offsets_of)
