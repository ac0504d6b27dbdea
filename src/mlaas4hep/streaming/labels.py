"""Which class an event belongs to: by its file, or by the value of a branch or an expression."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import LabelError
from mlaas4hep.streaming.access.sources import is_list_file, read_list
from mlaas4hep.streaming.formats.base import Column
from mlaas4hep.streaming.targets import Targets, entry_at

__all__ = ["Labels", "Targets", "is_expression", "parse_labels"]

MAX_CLASSES = 1000

LabelValue = str | int | float | bool

_SIGNS = re.compile(r"[\s()<>=!+*%/\[\],&|~^-]")
_LARGEST = 2.0**63


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
        Branch that holds the label, or expression that gives it; a bool or a whole number an event.
    """

    classes: tuple[str, ...] = ()
    by_file: tuple[int, ...] = ()
    branch: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """What must be read of each event."""
        return () if self.branch is None else (self.branch,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a batch's ``y``: int64."""
        return np.dtype(np.int64)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one event's ``y``: one number."""
        return ()

    def of_events(
        self,
        file: int,
        events: int,
        columns: Mapping[str, Column],
        *,
        chosen: npt.NDArray[np.bool_] | None = None,
        entries: int | npt.NDArray[np.int64] = 0,
    ) -> npt.NDArray[np.int64]:
        """Return the class index of some events of one file.

        Parameters
        ----------
        file : int
            Index of the file.
        events : int
        columns : mapping of str to Column
            Holds at least :attr:`columns`.
        chosen : bool array of shape ``[events]``, optional
            Events that are used at all; the others may hold anything, and get 0.
        entries : int or int64 array of shape ``[events]``
            Entries of the events in the file, for the messages; a number is that of the first of consecutive ones.

        Returns
        -------
        int64 array of shape ``[events]``
            0 for all when there are no labels.

        Raises
        ------
        LabelError
            If an event has a value that is none of the classes, or none at all.
        """
        if self.branch is None:
            return np.full(events, self.by_file[file] if self.by_file else 0, np.int64)
        values, offsets = columns[self.branch]
        if offsets is not None:
            raise LabelError(f"{_what(self.branch)} holds lists; a label is one value an event")
        whole = _whole(values)
        known = np.array([int(name) for name in self.classes], np.int64)
        numbers = np.where(whole, values, 0).astype(np.int64)
        places = np.searchsorted(known, numbers)
        places[places == len(known)] = 0
        wrong = ~whole | (known[places] != numbers)
        if chosen is not None:
            wrong &= chosen
            places[~chosen] = 0
        if wrong.any():
            place = int(np.argmax(wrong))
            raise LabelError(
                f"{_what(self.branch)} holds {values[place]} at entry {entry_at(entries, place)}, "
                f"which is none of the classes {', '.join(self.classes)}"
            )
        return places.astype(np.int64, copy=False)

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
        """Make the labels of a branch or expression from all the values that it holds.

        Parameters
        ----------
        branch : str
        values : array of shape ``[n]``
            Bools (which make the classes 0 and 1) or whole numbers of any type.

        Raises
        ------
        LabelError
            If an event has no value, the values are no whole numbers, or are one class only, or more than a thousand.

        Examples
        --------
        >>> Labels.of_branch("nGenTop >= 1", np.array([True, False])).classes
        ('0', '1')
        """
        what = _what(branch)
        distinct = np.unique(values)
        if distinct.dtype.kind == "f" and np.isnan(distinct).any():
            raise LabelError(f"{what} has no value (NaN) for some events, so they belong to no class")
        if not _whole(distinct).all():
            raise LabelError(f"{what} holds values that are no whole numbers, so they name no classes")
        if len(distinct) < 2:
            raise LabelError(
                f"{what} holds only {distinct[0] if len(distinct) else 'no value'}; a classification needs at least two classes"
            )
        if len(distinct) > MAX_CLASSES:
            raise LabelError(
                f"{what} holds {len(distinct)} different values; at most {MAX_CLASSES} classes are possible"
            )
        return cls(tuple(str(int(value)) for value in distinct), (), branch)


def is_expression(text: str) -> bool:
    """Whether a text that is no branch of the files is an expression, rather than a branch's name that is misspelt.

    Examples
    --------
    >>> [is_expression(text) for text in ("isSignal", "Jet.pt", "nGenTop >= 1", "abs(x)")]
    [False, False, True, True]
    """
    return _SIGNS.search(text.strip()) is not None


def parse_labels(labels: str | Sequence[LabelValue] | None) -> tuple[list[LabelValue] | None, str | None]:
    """Tell labels of files from the name of a branch.

    Parameters
    ----------
    labels : str, sequence, or None
        A sequence with one label a file; or a text: the name of a file with one label a line, a comma-separated list, the name of a branch, or
        an expression. A comma within brackets belongs to an expression.

    Returns
    -------
    by_file : list or None
        One label a file.
    branch : str or None
        Branch or expression.

    Examples
    --------
    >>> parse_labels("1,0"), parse_labels("isSignal"), parse_labels([1, 0])
    ((['1', '0'], None), (None, 'isSignal'), ([1, 0], None))
    >>> parse_labels("max(nGenTop, nGenW) >= 1")
    (None, 'max(nGenTop, nGenW) >= 1')
    """
    if labels is None or (isinstance(labels, str) and not labels.strip()):
        return None, None
    if isinstance(labels, str):
        # A bare number is a label, not a branch: `--labels=1` for two files is one label too few.
        if "," in _outside_brackets(labels) or is_list_file(labels) or _is_number(labels):
            return list(read_list(labels)), None
        return None, labels.strip()
    return list(labels), None


def _outside_brackets(text: str) -> str:
    """Return the text without what stands in round or square brackets; all of it where they do not match."""
    rest, before = text, None
    while rest != before:
        before, rest = rest, re.sub(r"\([^()\[\]]*\)|\[[^()\[\]]*\]", "", rest)
    return text if re.search(r"[()\[\]]", rest) else rest


def _what(branch: str) -> str:
    return f"label '{branch}'" if is_expression(branch) else f"branch '{branch}'"


def _whole(values: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Which values are whole numbers that an int64 can hold."""
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            return np.asarray((np.floor(values) == values) & (np.abs(values) < _LARGEST))
    if values.dtype == np.uint64:
        return np.asarray(values < np.uint64(2**63))
    return np.ones(len(values), np.bool_)


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
