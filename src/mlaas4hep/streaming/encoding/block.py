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

from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.streaming.encoding.objects import Collection
from mlaas4hep.streaming.formats.base import Column

__all__ = ["EventBlock", "KernelPlan", "pack"]

Offsets = npt.NDArray[np.int64]
Further = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.float64], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class KernelPlan:
    """An encoding as the plain arrays that the kernels read.

    Parameters
    ----------
    encoding : Encoding
    scaled : bool
        Whether values are scaled and 0 where absent; else they are raw, and NaN where absent.
    absent_is_nan : bool
        Whether scaled values are NaN where absent, too.
    """

    encoding: Encoding
    scaled: bool = True
    absent_is_nan: bool = False

    @property
    def absent(self) -> float:
        """What stands where an event has no value."""
        return 0.0 if self.scaled and not self.absent_is_nan else np.nan

    @cached_property
    def first_place(self) -> npt.NDArray[np.int64]:
        """First place of each feature, int64 ``[features]``."""
        return np.array([self.encoding.first_places[name] for name in self.encoding.branches], np.int64)

    @cached_property
    def width(self) -> npt.NDArray[np.int64]:
        """Places of each feature, int64 ``[features]``."""
        return np.array([f.width for f in self.encoding.features], np.int64)

    @cached_property
    def shift(self) -> npt.NDArray[np.float32]:
        """Shift of each feature, float32 ``[features]``."""
        return np.array([f.shift for f in self._features], np.float32)

    @cached_property
    def scale(self) -> npt.NDArray[np.float32]:
        """Scale of each feature, float32 ``[features]``."""
        return np.array([f.scale for f in self._features], np.float32)

    @cached_property
    def further(self) -> Further | None:
        """Strides, logarithms and clips, as the kernel reads them; None where there is nothing of that kind."""
        features = self._features
        strides = [self.encoding.strides[feature.branch] for feature in features]
        if max(strides, default=1) == 1 and all(f.transform == "linear" and f.clip is None for f in features):
            return None
        return (
            np.array(strides, np.int64),
            np.array([feature.transform == "log" for feature in features], np.bool_),
            np.array([(feature.log_shift, feature.log_scale) for feature in features], np.float64),
            np.array([feature.clip or (-np.inf, np.inf) for feature in features], np.float32),
        )

    @property
    def _features(self) -> tuple[Feature, ...]:
        return (self.encoding if self.scaled else self.encoding.unscaled).features


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
        As :func:`mlaas4hep.streaming.encoding.kernels.encode_rows` reads them.
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
        counts: npt.NDArray[np.int64] | None = None,
    ) -> int:
        """Encode some of the events into rows of a block; return the number of values that were cut off.

        Parameters
        ----------
        plan : KernelPlan
        rows, destinations : int64 array of shape ``[n]``
            Event of this block, and row of ``x`` and ``mask`` that it goes to.
        x : float32 array of shape ``[block, places]``
        mask : bool array of shape ``[block, places]``
        counts : int64 array of shape ``[features]``, optional
            The number of values that were cut off is added to it, feature by feature; :meth:`Encoding.cut_report` reads it.
        """
        from mlaas4hep.streaming.encoding import kernels

        if counts is None:
            counts = np.zeros(len(self.starts), np.int64)
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
                plan.further,
                rows,
                destinations,
                x,
                mask.view(np.uint8),
                plan.absent,
                counts,
            )
        )


def pack(columns: Mapping[str, Column], encoding: Encoding, events: int) -> EventBlock:
    """Pack the columns of an encoding's features, the objects of each event in the encoding's order.

    Parameters
    ----------
    columns : mapping of str to Column
        At least those of ``encoding.sources``.
    encoding : Encoding
    events : int
        Number of events that every column holds.

    Raises
    ------
    SettingError
        If the branches of a collection have lists of different lengths.
    """
    features = [columns[feature.branch] for feature in encoding.features]
    sizes = np.array([len(column.content) for column in features], np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    content = np.empty(int(starts[-1]), np.float32)
    offsets_of = np.full(len(features), -1, np.int64)
    lists: list[Offsets] = []
    orders = _orders(columns, encoding)
    with np.errstate(over="ignore"):  # beyond float32 is ±inf, which counts as absent
        for index, (branch, column) in enumerate(zip(encoding.branches, features, strict=True)):
            order = orders.get(branch)
            content[starts[index] : starts[index + 1]] = column.content if order is None else column.content[order]
            if column.offsets is not None:
                # Branches of one collection have equal offsets and stand side by side in sorted order.
                if not lists or not _same(lists[-1], column.offsets):
                    lists.append(column.offsets)
                offsets_of[index] = len(lists) - 1
    offsets = np.stack(lists, axis=1) if lists else np.zeros((events + 1, 1), np.int64)
    return EventBlock(events, content, starts[:-1].copy(), offsets, offsets_of)


def _orders(columns: Mapping[str, Column], encoding: Encoding) -> dict[str, npt.NDArray[np.int64]]:
    """Check that the branches of each collection agree; return for the members of those that are ordered where each value comes from."""
    from mlaas4hep.streaming.encoding import kernels

    orders = {}
    for collection in encoding.collections:
        first = _offsets(columns, collection.members[0], collection)
        for name in (*collection.members[1:], *([collection.order_by] if collection.order_by else [])):
            other = _offsets(columns, name, collection)
            if not _same(first, other):
                event = int(np.flatnonzero(np.diff(first) != np.diff(other))[0]) if len(first) == len(other) else 0
                raise SettingError(
                    f"collections.{collection.name}",
                    "branches whose lists are equally long in every event",
                    f"{np.diff(first)[event]} values of '{collection.members[0]}' and {np.diff(other)[event]} of '{name}' in one event",
                )
        if collection.order_by is not None:
            key = columns[collection.order_by].content.astype(np.float64)
            order = kernels.order_objects(key, first, collection.descending)
            orders.update(dict.fromkeys(collection.members, order))
    return orders


def _offsets(columns: Mapping[str, Column], branch: str, collection: Collection) -> Offsets:
    offsets = columns[branch].offsets
    if offsets is None:
        raise SettingError(
            f"collections.{collection.name}", "branches that hold lists", f"'{branch}', which holds one value"
        )
    return offsets


def _same(one: Offsets, other: Offsets) -> bool:
    return one is other or np.array_equal(one, other)
