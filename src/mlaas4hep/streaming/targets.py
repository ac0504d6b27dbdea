"""The numbers that a regression predicts of an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import BranchTypeError, LabelError, SettingError
from mlaas4hep.streaming.formats.base import Column

__all__ = ["Targets", "entry_at"]

MAX_TARGETS = 1000


@dataclass(frozen=True)
class Targets:
    """The numbers that a regression predicts.

    Parameters
    ----------
    columns : tuple of str
        Branches or expressions, each one number an event.
    files : tuple of str
        Names of the files, for the messages only.

    Raises
    ------
    SettingError
        If there is no column, one comes twice, or there are more than a thousand.

    Examples
    --------
    >>> targets = Targets(("GenMET_pt", "log(GenMET_sumEt)"))
    >>> targets.shape, targets.dtype, targets.classes
    ((2,), dtype('float32'), ())
    """

    columns: tuple[str, ...]
    files: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= len(set(self.columns)) == len(self.columns) <= MAX_TARGETS:
            raise SettingError("targets", f"1 to {MAX_TARGETS} different branches or expressions", self.columns)

    @property
    def classes(self) -> tuple[str, ...]:
        """Empty: there are none."""
        return ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a batch's ``y``: float32."""
        return np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one event's ``y``: one number a column."""
        return (len(self.columns),)

    def of_events(
        self,
        file: int,
        events: int,
        columns: Mapping[str, Column],
        *,
        chosen: npt.NDArray[np.bool_] | None = None,
        entries: int | npt.NDArray[np.int64] = 0,
    ) -> npt.NDArray[np.float32]:
        """Return the targets of some events of one file; parameters as in :meth:`Labels.of_events <mlaas4hep.streaming.labels.Labels.of_events>`.

        Returns
        -------
        float32 array of shape ``[events, targets]``
            0 for events that are not chosen.

        Raises
        ------
        BranchTypeError
            If a column holds lists.
        LabelError
            If a target is NaN, infinite, or too large for float32.
        """
        targets = np.zeros((events, len(self.columns)), np.float32)
        name = self.files[file] if self.files else f"file {file}"
        for number, column in enumerate(self.columns):
            content, offsets = columns[column]
            if offsets is not None:
                raise BranchTypeError(column, name, "a target is one number an event; it holds a list")
            with np.errstate(over="ignore"):
                targets[:, number] = content
            if chosen is not None:
                targets[~chosen, number] = 0
            bad = ~np.isfinite(targets[:, number])
            if bad.any():
                place = int(np.argmax(bad))
                raise LabelError(
                    f"target '{column}' is {content[place]} at entry {entry_at(entries, place)} of {name}; "
                    "a target must be finite, also as float32: select events that have one"
                )
        return targets


def entry_at(entries: int | npt.NDArray[np.int64], place: int) -> int:
    """Return the entry of an event by its place, from the first entry of consecutive events or the entries of all."""
    return int(entries[place]) if isinstance(entries, np.ndarray) else int(entries) + place
