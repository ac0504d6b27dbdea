"""Who an event is: its place in the catalogue and its identifiers, and the fold that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.catalog import Catalog, Run
from mlaas4hep.streaming.formats.base import Column
from mlaas4hep.streaming.splitting import Split, entry_identity, event_identity

__all__ = ["IDENTIFIERS", "Identity"]

IDENTIFIERS = ("run", "luminosityBlock", "event")
"""Branches that identify an event in NanoAOD and its kin."""


@dataclass(frozen=True)
class Identity:
    """Identity of the events of a catalogue.

    Parameters
    ----------
    catalog : Catalog
    identifiers : tuple of str
        Branches that identify an event; where empty, the file's uuid and the entry do.
    split : Split
    """

    catalog: Catalog
    identifiers: tuple[str, ...]
    split: Split

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of a batch's ``id``: ``file`` (int32), ``entry`` (int64), and the identifiers in their own types."""
        return np.dtype(
            [
                ("file", np.int32),
                ("entry", np.int64),
                *((name, self.catalog.columns[name].dtype) for name in self.identifiers),
            ]
        )

    def folds(self, run: Run, columns: Mapping[str, Column]) -> npt.NDArray[np.uint8]:
        """Return the fold of each event of a run, uint8 ``[events]``, index into :data:`~mlaas4hep.streaming.splitting.FOLDS`."""
        if self.identifiers:
            identity = event_identity([columns[name].content for name in self.identifiers], self.split.salt)
        else:
            identity = entry_identity(
                self.catalog.files[run.file].uuid, np.arange(run.start, run.stop), self.split.salt
            )
        return self.split.assign(identity)

    def records(self, run: Run, columns: Mapping[str, Column]) -> npt.NDArray[np.void]:
        """Return who each event of a run is, structured ``[events]`` of type :attr:`dtype`."""
        records = np.empty(run.events, self.dtype)
        records["file"] = run.file
        records["entry"] = np.arange(run.start, run.stop)
        for name in self.identifiers:
            records[name] = columns[name].content
        return records
