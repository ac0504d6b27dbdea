"""A user's ``preprocessing(rec)``, applied to every file before anything else looks at its columns.

The function gets a dict of columns for a block of events and returns one: it may change values, add columns and take some out, and the number of
events stays. Only what it asks for is read. A function that was written for single records, as for the original MLaaS4HEP, is called for each event
instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import quoted
from mlaas4hep.streaming.formats import Column, ColumnType, Reader
from mlaas4hep.streaming.formats.files import empty_column
from mlaas4hep.streaming.selecting.user_columns import same_values
from mlaas4hep.streaming.selecting.user_function import Block, NotForBlocksError, PreprocessingError, UserFunction

__all__ = ["PreprocessedReader", "Preprocessing", "PreprocessingError"]

TRIAL_EVENTS = 256
"""First events of a file on which it is found out what the function does."""


@dataclass(frozen=True)
class Effect:
    """What a function does to files of certain columns.

    Parameters
    ----------
    columns : mapping of str to ColumnType
        What there is afterwards: the file's columns first.
    made : tuple of str
        Those of them that come from the function.
    sources : tuple of str
        The file's columns that it reads.
    skipped : mapping of str to str
        What it made besides that holds no numbers.
    per_record : bool
        Whether it has to be called for each event.
    """

    columns: Mapping[str, ColumnType]
    made: tuple[str, ...]
    sources: tuple[str, ...]
    skipped: Mapping[str, str]
    per_record: bool


class Preprocessing:
    r"""The function of a user's file, and what it does, which is found out on the first events of the first file.

    A column is read if the function asks for it on those events, or if its name is a string in the file's text; a function that asks for more later
    gets it, at the price of a further read. It must treat every event for itself, since nobody knows which events a block will hold.

    Parameters
    ----------
    path : str
        Where the text is from, for messages; modules beside it can be imported from it.
    text : str
        A Python program with ``def preprocessing(rec)``.

    Attributes
    ----------
    path, text : str
        As given.
    notes : list of str
        What a person should know, a line each: that the function is called for each event, which is slow.

    Raises
    ------
    PreprocessingError
        If the text cannot be executed or defines no such function.

    Examples
    --------
    >>> from mlaas4hep.streaming.formats import open_reader
    >>> preprocessing = Preprocessing("p.py", "def preprocessing(rec):\n    rec['HT'] = 2 * rec['MET_pt']\n    return rec\n")
    >>> reader = PreprocessedReader(open_reader("examples/data/VBF_HToTauTau.root", "Events"), preprocessing)
    >>> str(reader.columns["HT"]), reader.sources(["HT", "nJet"])
    ('float32', ('MET_pt', 'nJet'))
    """

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        self.notes: list[str] = []
        self.function = UserFunction(path, text)
        self._effects: dict[tuple[tuple[str, str], ...], Effect] = {}

    @classmethod
    def load(cls, path: str | Path) -> Preprocessing:
        """Read a user's file.

        Raises
        ------
        PreprocessingError
            If it cannot be read, or as above.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise PreprocessingError(str(path), "there is no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise PreprocessingError(str(path), f"cannot be read: {error}") from error
        return cls(str(path), text)

    @property
    def digest(self) -> str:
        """The sha256 of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def to_dict(self) -> dict[str, str]:
        """Return what specs and caches depend on, as plain values for JSON."""
        return {"file": Path(self.path).name, "sha256": self.digest}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "text": self.text, "notes": self.notes, "effects": self._effects}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.text, self.notes, self._effects = (state[name] for name in ("path", "text", "notes", "effects"))
        self.function = UserFunction(self.path, self.text)

    def effect_on(self, reader: Reader) -> Effect:
        """Return what it does to a file; found out once for files of equal columns, so that it is the same for all.

        Raises
        ------
        PreprocessingError
            If the function fails, or what it returns are no columns.
        SourceError
            If the first events cannot be read.
        """
        key = tuple((name, str(kind)) for name, kind in reader.columns.items())
        if key in self._effects:
            return self._effects[key]
        effect = self._find_effect(reader)
        if reader.entries:  # those of a file without events are made up; the next file knows better
            self._effects[key] = effect
            note = (
                f"preprocessing {self.path}: its function works on single events only and is called for each of them, which is slow; "
                "with whole arrays (numpy.where in place of if) it is many times faster"
            )
            if effect.per_record and note not in self.notes:
                self.notes.append(note)
        return effect

    def _find_effect(self, reader: Reader) -> Effect:
        touched = tuple(name for name in reader.columns if name in self.function.literals)
        block = _trial_block(reader)
        try:
            # Twice, since only then all that it reads is known.
            self.function.on_block(block, touched)
            touched = _looked_at(block, touched)
            made = self.function.on_block(block, touched)
            self._require_eventwise(block, touched, made)
            per_record = False
        except NotForBlocksError as problem:
            block, per_record = _trial_block(reader), True
            try:
                self.function.on_records(block, touched)
                touched = _looked_at(block, touched)
                made = self.function.on_records(block, touched)
            except PreprocessingError as error:
                raise PreprocessingError(
                    self.path, f"{error.reason}; with a block of events in place of one: {problem}"
                ) from error
        removed = self.function.removed(block, touched, per_record=per_record) - made.keys()
        columns, skipped = {}, dict(reader.skipped)
        for name in [*reader.columns, *(name for name in made if name not in reader.columns)]:
            column = made.get(name)
            if isinstance(column, str):
                skipped[name] = f"made by {Path(self.path).name}: {column}"
            elif column is not None:
                bytes_per_event = column.nbytes / max(1, block.events)
                columns[name] = ColumnType(column.content.dtype, column.offsets is not None, bytes_per_event)
            elif name not in removed:
                columns[name] = reader.columns[name]
        if not columns:
            raise PreprocessingError(self.path, "it leaves no column of numbers")
        return Effect(columns, tuple(name for name in made if name in columns), touched, skipped, per_record)

    def _require_eventwise(self, block: Block, touched: Sequence[str], made: Mapping[str, Column | str]) -> None:
        """Compare with what comes of a part of the events: values must not depend on which others are in the block."""
        part = block.first(block.events // 2)
        again = self.function.on_block(part, touched)
        for name, column in made.items():
            other = again.get(name)
            if isinstance(column, str) or isinstance(other, str):
                continue
            first = Block(lambda _, column=column: column, block.events, "", {}, {}).first(part.events).column(name)  # type: ignore[misc]
            if other is None or not same_values(first, other):
                raise NotForBlocksError(f"column '{name}' of an event depends on the other events of the block")


class PreprocessedReader:
    """A file after a user's preprocessing; a Reader itself, whatever the format.

    Parameters
    ----------
    reader : Reader
        The file, open; closed with this one.
    preprocessing : Preprocessing

    Raises
    ------
    PreprocessingError, SourceError
        As :meth:`Preprocessing.effect_on`.
    """

    def __init__(self, reader: Reader, preprocessing: Preprocessing) -> None:
        self._reader = reader
        self._preprocessing = preprocessing
        self._effect = preprocessing.effect_on(reader)
        self.path, self.uuid, self.entries = reader.path, reader.uuid, reader.entries
        self.columns = self._effect.columns
        self.skipped = self._effect.skipped

    @property
    def size(self) -> int | None:
        """Bytes of the file, where its reader knows them."""
        return getattr(self._reader, "size", None)

    def sources(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the branches of the file that are read for some columns."""
        made = set(self._effect.made)
        found = dict.fromkeys(self._effect.sources if made.intersection(columns) else ())
        return tuple(found | dict.fromkeys(name for name in columns if name not in made))

    def clusters(self, columns: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the entries at which reading can begin without reading anything twice."""
        return self._reader.clusters(self.sources(columns) or list(self._reader.columns)[:1])

    def prefetch(self, start: int, stop: int, columns: Sequence[str]) -> None:
        """Ask for the bytes of some events that will be read soon, where the reader can do so."""
        prefetch = getattr(self._reader, "prefetch", None)
        if prefetch is not None:
            prefetch(start, stop, self.sources(columns))

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        """Read the events ``start … stop - 1`` of some columns; the function is called only where it makes one of them.

        Raises
        ------
        SourceError
            If the file is damaged or out of reach.
        PreprocessingError
            If the function fails or its columns are others than for the first events.
        """
        if start == stop:
            return {name: empty_column(self.columns[name]) for name in columns}
        read = self._reader.read(start, stop, self.sources(columns))
        wanted = [name for name in self._effect.made if name in columns]
        made = self._make(start, stop, read, wanted) if wanted else {}
        return {name: made[name] if name in made else read[name] for name in columns}

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def _make(self, start: int, stop: int, read: Mapping[str, Column], wanted: Sequence[str]) -> dict[str, Column]:
        path, function, effect = self._preprocessing.path, self._preprocessing.function, self._effect

        def load(name: str) -> Column:
            return read[name] if name in read else self._reader.read(start, stop, [name])[name]

        block = Block(
            load, stop - start, f"{self.path}, entries {start}–{stop - 1}", self._reader.columns, self._reader.skipped
        )
        try:
            call = function.on_records if effect.per_record else function.on_block
            made = call(block, effect.sources)
        except NotForBlocksError as problem:
            raise PreprocessingError(path, f"{block.where}: {problem}") from problem
        surprising = [name for name in made if name not in effect.made and name not in effect.skipped]
        if surprising:
            raise PreprocessingError(
                path,
                f"{block.where}: it makes or changes {quoted(surprising)}, which it did not do for the first events; "
                "it must make the same columns for all",
            )
        settled = {}
        for name in wanted:
            column, kind = made.get(name), effect.columns[name]
            found = column if isinstance(column, str) else None
            if isinstance(column, Column):
                if (column.offsets is not None) == kind.jagged and np.can_cast(
                    column.content.dtype, kind.dtype, "same_kind"
                ):
                    settled[name] = Column(column.content.astype(kind.dtype, copy=False), column.offsets)
                    continue
                found = f"holds {ColumnType(column.content.dtype, column.offsets is not None)}"
            raise PreprocessingError(
                path, f"{block.where}: column '{name}' {found or 'is lacking'}; of the first events it held {kind}"
            )
        return settled


def _looked_at(block: Block, touched: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in block.kinds if name in block.loaded or name in touched)


def _trial_block(reader: Reader) -> Block:
    """Return the first events; of a file that holds fewer than two, made-up ones, so that one event does not pass for a single value."""
    events = min(reader.entries, TRIAL_EVENTS)
    if events > 1:
        return Block(
            lambda name: reader.read(0, events, [name])[name],
            events,
            f"{reader.path}, entries 0–{events - 1}",
            reader.columns,
            reader.skipped,
        )

    def twice(name: str) -> Column:
        kind = reader.columns[name]
        if events:
            content, offsets = reader.read(0, 1, [name])[name]
            twofold = np.concatenate([content, content])
            return Column(twofold, None if offsets is None else np.arange(3, dtype=np.int64) * len(content))
        return Column(np.ones(2, kind.dtype), np.arange(3, dtype=np.int64) if kind.jagged else None)

    return Block(twice, 2, reader.path, reader.columns, reader.skipped)
