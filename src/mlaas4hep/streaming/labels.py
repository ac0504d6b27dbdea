"""Which class an event belongs to: by its file, or by the value of a branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import LabelError
from mlaas4hep.streaming.formats.base import Column
from mlaas4hep.streaming.sources import is_list_file, read_list

__all__ = ["Labels", "parse_labels"]

MAX_CLASSES = 1000

LabelValue = str | int | float | bool


@dataclass(frozen=True)
class Labels:
    """The classes, and how an event's class is found.

    Parameters
    ----------
    classes : tuple of str
        Names in the order of the class index: numbers by value, other names by alphabet. Empty when there are no labels.
    by_file : tuple of int
        Class index of each file; empty when labels come from a branch.
    branch : str or None
        Branch that holds the label.
    """

    classes: tuple[str, ...] = ()
    by_file: tuple[int, ...] = ()
    branch: str | None = None

    def of_events(self, file: int, events: int, columns: Mapping[str, Column]) -> npt.NDArray[np.int64]:
        """Return the class index of consecutive events of one file, int64 ``[events]``; 0 for all when there are no labels."""
        if self.branch is not None:
            values = columns[self.branch].content.astype(np.int64)
            known = np.array([int(name) for name in self.classes], np.int64)
            places = np.searchsorted(known, values)
            wrong = (places == len(known)) | (known[np.minimum(places, len(known) - 1)] != values)
            if wrong.any():
                raise LabelError(
                    f"branch '{self.branch}' holds {values[wrong][0]}, which is none of the classes {', '.join(self.classes)}"
                )
            return places
        return np.full(events, self.by_file[file] if self.by_file else 0, np.int64)

    def of_some_files(self, places: Sequence[int]) -> Labels:
        """Return the labels of some of the files, with the same classes.

        Raises
        ------
        LabelError
            If a class has no file any more.
        """
        kept = tuple(self.by_file[place] for place in places)
        for index, name in enumerate(self.classes):
            if index not in kept:
                raise LabelError(
                    f"no file with the label '{name}' could be opened; a classification needs all its classes"
                )
        return Labels(self.classes, kept, self.branch)

    @classmethod
    def of_files(cls, labels: Sequence[LabelValue], files: Sequence[str]) -> Labels:
        """Make the labels of files, one each.

        Raises
        ------
        LabelError
            If there are more or fewer labels than files, or only one class.
        """
        if len(labels) != len(files):
            raise LabelError(
                f"{len(labels)} labels for {len(files)} files; there must be one label for each input file"
            )
        names = [_name(label) for label in labels]
        classes = _ordered(set(names))
        if len(classes) < 2:
            raise LabelError(f"all files have the label '{classes[0]}'; a classification needs at least two classes")
        return cls(classes, tuple(classes.index(name) for name in names))

    @classmethod
    def of_branch(cls, branch: str, values: npt.NDArray[np.generic]) -> Labels:
        """Make the labels of a branch from all the values that it holds.

        Raises
        ------
        LabelError
            If the values are no whole numbers, or are one class only, or more than a thousand.
        """
        distinct = np.unique(values)
        if distinct.dtype.kind == "f" and not (np.isfinite(distinct).all() and (distinct == np.round(distinct)).all()):
            raise LabelError(f"branch '{branch}' holds values that are no whole numbers, so they name no classes")
        if len(distinct) < 2:
            raise LabelError(
                f"branch '{branch}' holds only {distinct[0] if len(distinct) else 'no value'}; a classification needs at least two classes"
            )
        if len(distinct) > MAX_CLASSES:
            raise LabelError(
                f"branch '{branch}' holds {len(distinct)} different values; at most {MAX_CLASSES} classes are possible"
            )
        return cls(tuple(str(int(value)) for value in distinct), (), branch)


def parse_labels(labels: str | Sequence[LabelValue] | None) -> tuple[list[LabelValue] | None, str | None]:
    """Tell labels of files from the name of a branch.

    Parameters
    ----------
    labels : str, sequence, or None
        A sequence with one label a file; or a text: the name of a file with one label a line, a comma-separated list, or the name of a branch.

    Returns
    -------
    by_file : list or None
        One label a file.
    branch : str or None

    Examples
    --------
    >>> parse_labels("1,0"), parse_labels("isSignal"), parse_labels([1, 0])
    ((['1', '0'], None), (None, 'isSignal'), ([1, 0], None))
    """
    if labels is None or (isinstance(labels, str) and not labels.strip()):
        return None, None
    if isinstance(labels, str):
        # A bare number is a label, not a branch: `--labels=1` for two files is one label too few.
        if "," in labels or is_list_file(labels) or _is_number(labels):
            return list(read_list(labels)), None
        return None, labels.strip()
    return list(labels), None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _name(label: LabelValue) -> str:
    if isinstance(label, bool):
        return str(int(label))
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label).strip()


def _ordered(names: set[str]) -> tuple[str, ...]:
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))
