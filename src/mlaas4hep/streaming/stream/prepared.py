"""A run of events on its way into a batch: which of them belong to the stream, their class, weight and identity, and how rows are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.catalog import Run
from mlaas4hep.streaming.encoding.block import EventBlock, KernelPlan, pack
from mlaas4hep.streaming.encoding.encoding import Encoding
from mlaas4hep.streaming.encoding.row_kernels import copy_bytes
from mlaas4hep.streaming.identity import Identity
from mlaas4hep.streaming.labels import Labels, Targets
from mlaas4hep.streaming.splitting import FOLDS, Fold
from mlaas4hep.streaming.stream.batch import Batch
from mlaas4hep.streaming.stream.reading import LoadedRun

if TYPE_CHECKING:
    from mlaas4hep.streaming.weights.weights import Weights

__all__ = ["EventRules", "PackedRun", "PreparedRun", "WeightKind", "as_bytes"]

WeightKind = Literal["training", "signed"]


class PreparedRun(Protocol):
    """Events of a run, ready to be written."""

    @property
    def run(self) -> Run:
        """Which run."""
        ...

    @property
    def chosen(self) -> npt.NDArray[np.bool_] | None:
        """Which events belong to the stream, bool ``[events]``; None for all."""
        ...

    @property
    def cut_counts(self) -> npt.NDArray[np.int64] | None:
        """Values of each feature that were left out already because an event held more than there are places, int64 ``[features]``; None for none."""
        ...

    def classes(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return what is learned of some of the chosen events: ``y`` of a batch."""
        ...

    def write(
        self, rows: npt.NDArray[np.int64], to: npt.NDArray[np.int64], block: Batch, counts: npt.NDArray[np.int64]
    ) -> None:
        """Write some of the chosen events into rows ``to`` of a block, and add to ``counts`` what was left out meanwhile."""
        ...


@dataclass(frozen=True)
class EventRules:
    """What becomes of each event.

    Parameters
    ----------
    encoding : Encoding
        Its vector.
    identity : Identity
        Who it is, and its fold.
    labels : Labels or Targets
        What is learned of it.
    weights : Weights, optional
        1 for all when not given.
    """

    encoding: Encoding
    identity: Identity
    labels: Labels | Targets
    weights: Weights | None = None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """All columns that have to be read."""
        weights = () if self.weights is None else self.weights.columns
        return tuple(
            dict.fromkeys((*self.encoding.sources, *self.identity.identifiers, *self.labels.columns, *weights))
        )

    @cached_property
    def plan(self) -> KernelPlan:
        """The encoding for the kernel."""
        return KernelPlan(self.encoding)

    def prepare(self, loaded: LoadedRun, fold: Fold | None, kind: WeightKind) -> PackedRun | None:
        """Prepare a run for a stream of one fold; None where no event is taken.

        Parameters
        ----------
        loaded : LoadedRun
        fold : {"train", "validation", "test"} or None
        kind : {"training", "signed"}
            Weights to learn from, or those of physics.
        """
        if loaded.nothing_passed:
            return None
        run, columns, chosen = loaded.run, loaded.columns, loaded.passed
        if fold is not None:
            of_fold = self.identity.folds(run, columns) == FOLDS.index(fold)
            chosen = of_fold if chosen is None else chosen & of_fold
        # Events that are not taken may hold anything: a class or weight that makes no sense there is no error.
        y = self.labels.of_events(run.file, run.events, columns, chosen=chosen, entries=run.start)
        weight = np.ones(run.events, np.float32)
        if self.weights is not None and kind == "signed":
            weight = self.weights.signed(run.file, run.events, columns, chosen=chosen, entries=run.start).astype(
                np.float32
            )
        elif self.weights is not None:
            weight, keep = self.weights.training(run.file, run.events, columns, y, chosen=chosen, entries=run.start)
            if keep is not None:
                chosen = keep if chosen is None else chosen & keep
        return PackedRun(
            run,
            chosen,
            pack(columns, self.encoding, run.events),
            self.plan,
            y,
            weight,
            self.identity.records(run, columns),
        )


@dataclass(frozen=True)
class PackedRun:
    """A run whose columns are in memory, encoded when it is written.

    Parameters
    ----------
    run : Run
    chosen : bool array of shape ``[events]``, or None
    block : EventBlock
    plan : KernelPlan
    y : array of shape ``[events, …]``
    weight : float32 array of shape ``[events]``
    records : structured array of shape ``[events]``
    cut_counts : None
        Nothing is left out before it is encoded.
    """

    run: Run
    chosen: npt.NDArray[np.bool_] | None
    block: EventBlock
    plan: KernelPlan
    y: npt.NDArray[Any]
    weight: npt.NDArray[np.float32]
    records: npt.NDArray[np.void]
    cut_counts: npt.NDArray[np.int64] | None = None

    def classes(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """See :class:`PreparedRun`."""
        return self.y[rows]

    def write(
        self, rows: npt.NDArray[np.int64], to: npt.NDArray[np.int64], block: Batch, counts: npt.NDArray[np.int64]
    ) -> None:
        """See :class:`PreparedRun`."""
        self.block.encode(self.plan, rows, to, block.x, block.mask, counts)
        block.y[to] = self.y[rows]
        block.weight[to] = self.weight[rows]
        copy_bytes(as_bytes(self.records), rows, to, as_bytes(block.id))


def as_bytes(records: npt.NDArray[np.void]) -> npt.NDArray[np.uint8]:
    """Return records as rows of bytes, uint8 ``[n, bytes]``; a view."""
    return records.view(np.uint8).reshape(len(records), records.dtype.itemsize)
