"""Files whose branches vary: which of the wanted branches remain, of what type each is, and which files lack it.

Trigger bits come and go between runs, and a column of a text file is of integers until the first 0.5. Only the branches that are wanted have to
agree, and what is done where they do not is one of three policies: an error, values that are absent, or doing without the branch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import BranchesDifferError, SettingError, SourceError, nearest_names, quoted
from mlaas4hep.streaming.formats import Column, ColumnType, Reader

__all__ = ["AlignedReader", "Alignment", "MissingBranch", "Settled", "common_type"]

MissingBranch = Literal["error", "fill", "intersect"]

HINT = "or set missing_branch to 'fill' or 'intersect'"

Kind = tuple[np.dtype[Any], bool]
"""What must agree of a ColumnType: the type of a value, and whether an event holds a list of them."""


def common_type(dtypes: Iterable[np.dtype[Any]], *, absent: bool = False) -> np.dtype[Any]:
    """Return the smallest type that holds the values of all.

    Parameters
    ----------
    dtypes : iterable of numpy.dtype
        Integers, floats and bools; in a file of integers True is 1. Their order does not matter.
    absent : bool
        Whether values may be absent, which is NaN: integers and bools are floats then, float32 where that holds them exactly.

    Examples
    --------
    >>> common_type([np.dtype("int32"), np.dtype("float64"), np.dtype("bool")])
    dtype('float64')
    >>> common_type([np.dtype("bool")], absent=True)
    dtype('float32')
    """
    every = sorted(set(dtypes), key=str)
    kind = np.result_type(*every)
    return np.result_type(kind, np.float32) if absent and kind.kind != "f" else kind


@dataclass(frozen=True)
class Settled:
    """What the files of a dataset have in common.

    Parameters
    ----------
    columns : mapping of str to ColumnType
        The wanted branches that remain, in the order in which they were wanted, each with the type of all files.
    left_out : mapping of str to str
        The others, and why.
    filled : mapping of str to int
        Branches that some files lack, and how many files do.
    files : int
        Number of files.
    """

    columns: Mapping[str, ColumnType]
    left_out: Mapping[str, str] = field(default_factory=dict)
    filled: Mapping[str, int] = field(default_factory=dict)
    files: int = 0

    def lines(self) -> list[str]:
        """Return what a person should know, a line for each branch that was filled or left out.

        Examples
        --------
        >>> Settled({}, {"HLT_A": "not in f.root"}, {"HLT_B": 3}, 10).lines()
        ["branch 'HLT_B' is absent in 3 of 10 files, its values there are filled in as absent", "branch 'HLT_A' is left out: not in f.root"]
        """
        filled = [
            f"branch '{name}' is absent in {count} of {self.files} files, its values there are filled in as absent"
            for name, count in self.filled.items()
        ]
        return filled + [f"branch '{name}' is left out: {why}" for name, why in self.left_out.items()]


class Alignment:
    """Compares the branches of files one after the other; files with equal branches share what is kept of them.

    Parameters
    ----------
    wanted : sequence of str
        Branches that are to be read.
    policy : {"error", "fill", "intersect"}
        What is done about a branch that a file lacks: an error; values that are absent (NaN; integers and bools become floats; lists are empty); the
        branch is left out. With the latter two, types that differ are widened to one that holds the values of all files; one value an event and a
        list of them never go together.
    named : collection of str
        Branches that the user asked for by name: never left out, an error instead.
    required : collection of str
        Branches that every file must have, whatever the policy: identifiers, labels, weights, and what cuts are made on.
    widen : bool, optional
        Widen types with policy ``error`` too: for formats in which the type of a column follows from its values.

    Examples
    --------
    >>> number, bit = ColumnType(np.dtype("float32"), False), ColumnType(np.dtype("bool"), False)
    >>> alignment = Alignment(["MET_pt", "HLT_Mu50"], "fill")
    >>> alignment.add("old.root", {"MET_pt": number})
    >>> alignment.add("new.root", {"MET_pt": number, "HLT_Mu50": bit})
    >>> settled = alignment.settle()
    >>> {name: str(kind) for name, kind in settled.columns.items()}, settled.filled
    ({'MET_pt': 'float32', 'HLT_Mu50': 'float32'}, {'HLT_Mu50': 1})
    """

    def __init__(
        self,
        wanted: Sequence[str],
        policy: MissingBranch = "error",
        *,
        named: Collection[str] = (),
        required: Collection[str] = (),
        widen: bool = False,
    ) -> None:
        if policy not in get_args(MissingBranch):
            raise SettingError("missing_branch", "'error', 'fill' or 'intersect'", policy)
        self.policy: MissingBranch = policy
        self._wanted = tuple(dict.fromkeys((*wanted, *required)))
        self._named, self._required = frozenset(named), frozenset(required)
        self._widen = widen or policy != "error"
        self._codes: dict[Kind | None, int] = {None: 0}
        # What a file has of the wanted branches, a byte for each → the files that have just this.
        self._files: dict[bytes, list[str]] = {}
        self._seen: dict[str, set[Kind]] = {}
        self._first: dict[str, tuple[str, Kind]] = {}
        self._bytes = np.zeros(len(self._wanted))
        self._events = 0

    @property
    def wanted(self) -> tuple[str, ...]:
        """Branches that are to be read."""
        return self._wanted

    def add(self, path: str, columns: Mapping[str, ColumnType], entries: int = 1) -> None:
        """Take up one more file; one that does not fit leaves no trace.

        Parameters
        ----------
        path : str
            Its name, for messages.
        columns : mapping of str to ColumnType
            Its branches of numbers.
        entries : int
            Its events, which weigh its ``bytes_per_event``.

        Raises
        ------
        BranchesDifferError
            If it lacks a branch that it must have, or has one with a type that does not go together with that of the files before.
        SourceError
            If it is the first file and lacks such a branch.
        """
        found = [columns.get(name) for name in self._wanted]
        kinds = [None if kind is None else (kind.dtype, kind.jagged) for kind in found]
        code = bytes(self._codes.setdefault(kind, len(self._codes)) for kind in kinds)
        if code not in self._files:
            self._compare(path, columns, kinds)
            for name, kind in zip(self._wanted, kinds, strict=True):
                if kind is not None:
                    self._seen.setdefault(name, set()).add(kind)
                    self._first.setdefault(name, (path, kind))
            self._files[code] = []
        self._files[code].append(path)
        self._bytes += [0.0 if kind is None else kind.bytes_per_event * entries for kind in found]
        self._events += entries

    def settle(self) -> Settled:
        """Return what all files that were taken up have in common.

        Raises
        ------
        SourceError
            If there is no file, no file has one of the branches, or none of the branches is in all files.
        """
        if not self._files:
            raise SourceError("''", "names no file")
        files = sum(len(paths) for paths in self._files.values())
        columns, left_out, filled = {}, {}, {}
        codes = np.frombuffer(b"".join(self._files), np.uint8).reshape(len(self._files), len(self._wanted))
        absent_in = (codes == 0).T.astype(np.int64) @ np.array([len(paths) for paths in self._files.values()], np.int64)
        for place, (name, count) in enumerate(zip(self._wanted, absent_in.tolist(), strict=True)):
            present = self._seen.get(name)
            if present is None:
                raise SourceError(self._any_file(), f"neither it nor any of the {files} files has a branch '{name}'")
            if count and self.policy == "intersect":
                others = f" and {count - 1} more of {files} files" if count > 1 else ""
                left_out[name] = f"not in {self._first_without(place)}{others}"
                continue
            if count:
                filled[name] = count
            jagged = next(iter(present))[1]
            dtype = common_type((kind[0] for kind in present), absent=count > 0 and not jagged)
            columns[name] = ColumnType(dtype, jagged, float(self._bytes[place]) / max(1, self._events))
        if not columns:
            raise SourceError(self._any_file(), "no branch that is wanted is in all files")
        return Settled(columns, left_out, filled, files)

    def files_without(self, name: str) -> list[str]:
        """Return the files that lack a wanted branch."""
        place = self._wanted.index(name)
        return [path for code, paths in self._files.items() if code[place] == 0 for path in paths]

    def _first_without(self, place: int) -> str:
        return next(paths[0] for code, paths in self._files.items() if code[place] == 0)

    def _any_file(self) -> str:
        return next(iter(self._files.values()))[0]

    def _compare(self, path: str, columns: Mapping[str, ColumnType], kinds: Sequence[Kind | None]) -> None:
        first = self._any_file() if self._files else path
        missing = [name for name, kind in zip(self._wanted, kinds, strict=True) if kind is None and self._needs(name)]
        if missing:
            nearest = nearest_names(missing[0], columns) if len(missing) == 1 else ()
            lacks = f"it has no branch {quoted(missing)}" + (f"; nearest: {quoted(nearest)}" if nearest else "")
            if not self._files:
                raise SourceError(path, lacks)
            raise BranchesDifferError(path, first, f"{lacks}; {self._advice(missing)}")
        for name, kind in zip(self._wanted, kinds, strict=True):
            if kind is None or name not in self._first or self._goes_with(name, kind):
                continue
            other, before = self._first[name]
            raise BranchesDifferError(
                path,
                other,
                f"branch '{name}' holds {ColumnType(*kind)} there and {ColumnType(*before)} in the first"
                + (f"; leave it out, {HINT}, which widens it" if kind[1] == before[1] and not self._widen else ""),
            )

    def _needs(self, name: str) -> bool:
        """Whether a file must have a branch."""
        return self.policy == "error" or name in self._required or (self.policy == "intersect" and name in self._named)

    def _advice(self, missing: Sequence[str]) -> str:
        if self._required.intersection(missing):
            return "identifiers, labels, weights and what cuts are made on must be in all files"
        if self.policy == "intersect":
            return "it was asked for by name and is not left out; set missing_branch to 'fill', or do not name it"
        return f"leave out what not all files have, {HINT}"

    def _goes_with(self, name: str, kind: Kind) -> bool:
        """Whether a type can be one with that of the files before."""
        before = self._seen[name]
        if len(before) == 1 and kind in before:
            return True
        if not self._widen or any(other[1] != kind[1] for other in before):
            return False
        # No integer type holds both int64 and uint64, and as floats two events could become one.
        integers = {other[0] for other in (*before, kind)}
        return name not in self._required or common_type(integers).kind != "f" or any(d.kind == "f" for d in integers)


class AlignedReader:
    """A file as all files of its dataset are: types widened, branches that it lacks filled with what is absent.

    Parameters
    ----------
    reader : Reader
        The file, open; closed with this one.
    columns : mapping of str to ColumnType
        The branches that are read, as :meth:`Alignment.settle` returns them.

    Raises
    ------
    SourceError
        If the file does not fit, as when it was another when it was catalogued: it lacks a branch that cannot be filled, or has one whose values the
        settled type does not hold.
    """

    def __init__(self, reader: Reader, columns: Mapping[str, ColumnType]) -> None:
        self._reader = reader
        self.path, self.uuid, self.entries = reader.path, reader.uuid, reader.entries
        self.columns = columns
        self.skipped = reader.skipped
        for name, kind in columns.items():
            own = reader.columns.get(name)
            if own is None and kind.dtype.kind != "f" and not kind.jagged:
                raise SourceError(reader.path, f"it has no branch '{name}'")
            if own is not None and (own.jagged != kind.jagged or common_type([own.dtype, kind.dtype]) != kind.dtype):
                raise SourceError(reader.path, f"branch '{name}' holds {own}; in the dataset it is {kind}")

    @property
    def size(self) -> int | None:
        """Bytes of the file, where its reader knows them."""
        return getattr(self._reader, "size", None)

    def clusters(self, columns: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the entries at which reading can begin; those of the branches that the file has."""
        return self._reader.clusters(self._own(columns) or list(self._reader.columns)[:1])

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        """Read the events ``start … stop - 1`` of some branches, in the order in which they are asked for.

        Raises
        ------
        SourceError
            If the file is damaged or out of reach.
        """
        own = self._reader.read(start, stop, self._own(columns))
        return {
            name: self._cast(name, own[name]) if name in own else self._absent(name, stop - start) for name in columns
        }

    def prefetch(self, start: int, stop: int, columns: Sequence[str]) -> None:
        """Ask for the bytes of some events that will be read soon, where the reader can do so."""
        prefetch = getattr(self._reader, "prefetch", None)
        if prefetch is not None:
            prefetch(start, stop, self._own(columns))

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def _own(self, columns: Sequence[str]) -> list[str]:
        return [name for name in columns if name in self._reader.columns]

    def _cast(self, name: str, column: Column) -> Column:
        return Column(column.content.astype(self.columns[name].dtype, copy=False), column.offsets)

    def _absent(self, name: str, events: int) -> Column:
        kind = self.columns[name]
        if kind.jagged:
            return Column(np.empty(0, kind.dtype), np.zeros(events + 1, np.int64))
        return Column(np.full(events, np.nan, kind.dtype), None)
