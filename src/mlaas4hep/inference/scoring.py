"""From a run of events to the rows of a file of scores: one for each entry, in its order, whether it was selected or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.k_fold import UNPROVEN
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.errors import SettingError
from mlaas4hep.inference.inputs import SELECTED
from mlaas4hep.inference.score_files import score_names
from mlaas4hep.streaming.catalog import Run
from mlaas4hep.streaming.dataset import Dataset
from mlaas4hep.streaming.encoding.block import KernelPlan, pack
from mlaas4hep.streaming.expressions.values import truth
from mlaas4hep.streaming.formats import Column
from mlaas4hep.streaming.selecting.lumi_mask import LumiMask
from mlaas4hep.streaming.selecting.selection import LUMINOSITY_COLUMNS
from mlaas4hep.streaming.stream.reading import LoadedRun, LostRun

__all__ = ["ScoredRun", "Scorer"]

ROWS_AT_ONCE = 512
"""Events that are encoded and predicted together: values and activations stay in the processor's cache."""


@dataclass(frozen=True)
class ScoredRun:
    """The rows of a run.

    Parameters
    ----------
    run : Run
    columns : mapping of str to array of shape ``[events]``
    selected, unproven, cut_values : int
        Events that have scores; those of a k-fold that got the mean of all models; values that found no place.
    """

    run: Run
    columns: Mapping[str, npt.NDArray[Any]]
    selected: int
    unproven: int
    cut_values: int

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        return sum(values.nbytes for values in self.columns.values())


class Scorer:
    """Scores runs of a dataset with a bundle; may be used by several threads at once.

    Parameters
    ----------
    bundle : Bundle
    dataset : Dataset
        From :func:`~mlaas4hep.inference.inputs.open_for_bundle`.
    copied : sequence of str
        Columns that are copied beside the scores; one value an event each.
    lumi_mask : LumiMask, optional
        Luminosity sections whose events count as selected.
    number_files : bool
        Whether rows say which file they are of.

    Raises
    ------
    SettingError
        If a column that shall be copied holds a list, or is there already.
    """

    def __init__(
        self,
        bundle: Bundle,
        dataset: Dataset,
        copied: Sequence[str] = (),
        lumi_mask: LumiMask | None = None,
        *,
        number_files: bool = True,
    ) -> None:
        self._bundle, self._dataset, self._lumi_mask = bundle, dataset, lumi_mask
        self._plan = KernelPlan(bundle.encoding, scaled=False)
        self._cuts = SELECTED in dataset.catalog.columns
        identifiers = dataset.identity.identifiers
        columns = dataset.catalog.columns
        self._copied = tuple(name for name in dict.fromkeys(copied) if name not in identifiers)
        types: dict[str, np.dtype[Any]] = {"file": np.dtype(np.int32)} if number_files else {}
        types["entry"] = np.dtype(np.int64)
        for name in (*identifiers, *self._copied):
            if columns[name].jagged:
                raise SettingError("branches", "columns with one value an event", name)
            if name in types:
                raise SettingError(
                    "branches", "columns of other names than 'file', 'entry', 'selected' and 'fold'", name
                )
            types[name] = columns[name].dtype
        types["selected"] = np.dtype(np.bool_)
        if bundle.k_fold is not None:
            types["fold"] = np.dtype(np.int32)
        if any(name in self._copied for name in ("selected", "fold")):
            raise SettingError(
                "branches", "columns of other names than 'file', 'entry', 'selected' and 'fold'", list(copied)
            )
        self._scores = score_names(bundle.labels, bundle.output, list(types))
        self.types: dict[str, np.dtype[Any]] = types | dict.fromkeys(self._scores, np.dtype(np.float32))

    @property
    def columns_read(self) -> tuple[str, ...]:
        """Columns of the dataset that are read."""
        return tuple(
            dict.fromkeys(
                (
                    *self._bundle.encoding.sources,
                    *self._dataset.identity.identifiers,
                    *self._copied,
                    *([SELECTED] if self._cuts else []),
                    *(LUMINOSITY_COLUMNS if self._lumi_mask is not None else ()),
                )
            )
        )

    def score(self, loaded: LoadedRun | LostRun) -> ScoredRun:
        """Return the rows of a run; those of one that was lost have no identifiers and no scores."""
        run = loaded.run
        read = loaded.columns if isinstance(loaded, LoadedRun) else None
        columns: dict[str, npt.NDArray[Any]] = {
            "file": np.full(run.events, run.file, np.int32),
            "entry": np.arange(run.start, run.stop),
        }
        for name in (*self._dataset.identity.identifiers, *self._copied):
            columns[name] = np.zeros(run.events, self.types[name]) if read is None else read[name].content
        scores = np.full((len(self._scores), run.events), np.nan, np.float32)
        selected = np.zeros(run.events, np.bool_)
        folds = np.full(run.events, UNPROVEN, np.int64)
        cut = 0
        if read is not None:
            selected = self._selected(run, read)
            folds = self._folds(run, read)
            cut = self._predict(run, read, np.flatnonzero(selected), folds, scores)
        columns |= {"selected": selected, "fold": folds.astype(np.int32)}
        columns.update(zip(self._scores, scores, strict=True))
        unproven = 0 if self._bundle.k_fold is None else int(np.count_nonzero(selected & (folds == UNPROVEN)))
        return ScoredRun(run, {name: columns[name] for name in self.types}, int(selected.sum()), unproven, cut)

    def _predict(
        self,
        run: Run,
        columns: Mapping[str, Column],
        rows: npt.NDArray[np.int64],
        folds: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32],
    ) -> int:
        """Fill in the scores of some events, float32 ``[labels, events]``; return how many values found no place."""
        if not len(rows):
            return 0
        bundle = self._bundle
        block = pack(columns, bundle.encoding, run.events)
        # Used again for every piece, and small: fresh memory costs more than filling it.
        raw = np.empty((min(ROWS_AT_ONCE, len(rows)), bundle.encoding.width), np.float32)
        mask = np.empty(raw.shape, np.bool_)
        places = np.arange(len(raw))
        cut = 0
        for start in range(0, len(rows), ROWS_AT_ONCE):
            piece = rows[start : start + ROWS_AT_ONCE]
            values = raw[: len(piece)]
            cut += block.encode(self._plan, piece, places[: len(piece)], values, mask[: len(piece)])
            answer = bundle.predict(values) if bundle.k_fold is None else bundle.predict_by_fold(values, folds[piece])
            scores[:, piece] = answer.T
        return cut

    def _selected(self, run: Run, columns: Mapping[str, Column]) -> npt.NDArray[np.bool_]:
        selected = truth(columns[SELECTED].content) if self._cuts else np.ones(run.events, np.bool_)
        if self._lumi_mask is None:
            return selected
        return selected & self._lumi_mask.accepts(*(columns[name].content for name in LUMINOSITY_COLUMNS))

    def _folds(self, run: Run, columns: Mapping[str, Column]) -> npt.NDArray[np.int64]:
        """Return the fold of each event, -1 where it cannot be proven or there are none."""
        k_fold = self._bundle.k_fold
        if k_fold is not None and k_fold.known:
            if k_fold.kind == "identifiers" and self._dataset.identity.identifiers:
                return k_fold.of_identifiers([columns[name].content for name in k_fold.identifiers])
            uuid = self._dataset.catalog.files[run.file].uuid
            if k_fold.kind == "entry" and uuid in self._trained_on:
                return k_fold.of_entries(uuid, np.arange(run.start, run.stop))
        return np.full(run.events, UNPROVEN, np.int64)

    @cached_property
    def _trained_on(self) -> frozenset[str]:
        """The uuids of the files that the models learned from."""
        files = self._bundle.manifest.data.get("files") or ()
        return frozenset(str(file["uuid"]) for file in files if isinstance(file, Mapping) and "uuid" in file)
