"""A user's ``preprocessing(rec)``: loaded from a file, called for a block of events or for each event of it, its mistakes said in one line."""

from __future__ import annotations

import ast
import linecache
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from mlaas4hep.errors import MLaaS4HEPError, nearest_names, quoted
from mlaas4hep.streaming.formats import Column, ColumnType
from mlaas4hep.streaming.selecting.lazy_record import LazyRecord
from mlaas4hep.streaming.selecting.user_columns import (
    Unusable,
    array_of,
    column_of,
    column_of_records,
    records_of,
    same_values,
)

__all__ = ["Block", "NotForBlocksError", "PreprocessingError", "UserFunction"]

FUNCTION = "preprocessing"


class PreprocessingError(MLaaS4HEPError):
    """A user's Python file with a preprocessing function cannot be used, or its function fails."""

    def __init__(self, file: str, reason: str) -> None:
        self.file, self.reason = file, reason
        super().__init__(f"preprocessing {file}: {reason}")

    def __reduce__(self) -> tuple[type[PreprocessingError], tuple[str, str]]:
        return type(self), (self.file, self.reason)


class NotForBlocksError(Exception):
    """The function does not work on a block of events; it may on single ones."""


class Block:
    """Consecutive events of a file, whose columns are read when they are asked for.

    Parameters
    ----------
    load : callable
        Gives the column of a name.
    events : int
        Number of events.
    where : str
        File and entries, for messages.
    kinds : mapping of str to ColumnType
        Columns of the file.
    skipped : mapping of str to str
        What else it holds, and why that cannot be used.

    Attributes
    ----------
    loaded : dict of str to Column
        Those that were asked for.
    """

    def __init__(
        self,
        load: Callable[[str], Column],
        events: int,
        where: str,
        kinds: Mapping[str, ColumnType],
        skipped: Mapping[str, str],
    ) -> None:
        self._load = load
        self.events, self.where, self.kinds, self.skipped = events, where, kinds, skipped
        self.loaded: dict[str, Column] = {}

    def column(self, name: str) -> Column:
        """Return a column."""
        if name not in self.loaded:
            self.loaded[name] = self._load(name)
        return self.loaded[name]

    def first(self, events: int) -> Block:
        """Return only the first events."""

        def cut(name: str) -> Column:
            content, offsets = self.column(name)
            if offsets is None:
                return Column(content[:events], None)
            return Column(content[: offsets[events]], offsets[: events + 1])

        return Block(cut, events, self.where, self.kinds, self.skipped)


class UserFunction:
    """The function ``preprocessing`` of a Python program.

    Parameters
    ----------
    path : str
        Where the text is from; modules beside it can be imported from it.
    text : str
        The program.

    Attributes
    ----------
    literals : frozenset of str
        Every string in the text: names of columns that it may ask for.

    Raises
    ------
    PreprocessingError
        If the text cannot be executed or defines no such function.
    """

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self._function = _load(path, text)
        self.literals = frozenset(
            node.value
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )

    def on_block(self, block: Block, touched: Collection[str]) -> dict[str, Column | str]:
        """Call it once for all events of a block.

        Parameters
        ----------
        block : Block
        touched : collection of str
            Columns of the file that are of the result even if the function leaves them as they are.

        Returns
        -------
        dict of str to Column or str
            What it returns, less what it left as it is; of what holds no numbers, why it cannot be used.

        Raises
        ------
        NotForBlocksError
            If it fails as a function for single events does.
        PreprocessingError
            If it fails otherwise.
        """
        record = LazyRecord(block.kinds, lambda name: array_of(block.column(name)))
        made: dict[str, Column | str] = {}
        with self._guarded(block, for_blocks=True):
            for name, value in self._call(record, touched).items():
                try:
                    made[name] = column_of(value, block.events)
                except Unusable as problem:
                    if not problem.text:
                        raise NotForBlocksError(f"column '{name}' {problem}") from problem
                    made[name] = str(problem)
        return {name: column for name, column in made.items() if not _as_it_was(name, column, block, touched)}

    def on_records(self, block: Block, touched: Collection[str]) -> dict[str, Column | str]:
        """Call it for each event of a block; parameters, result and errors as for :meth:`on_block`."""
        lists: dict[str, list[Any]] = {}

        def value_of(name: str, entry: int) -> Any:
            if name not in lists:
                lists[name] = records_of(block.column(name))
            value = lists[name][entry]
            return list(value) if isinstance(value, list) else value

        values: dict[str, list[Any]] = {}
        with self._guarded(block, for_blocks=False):
            for entry in range(block.events):
                record = LazyRecord(block.kinds, lambda name, entry=entry: value_of(name, entry))  # type: ignore[misc]
                made = self._call(record, touched)
                for name in [*made, *(name for name in values if name not in made)]:
                    if name not in made and name not in record.unread:
                        raise Unusable(f"column '{name}' is lacking in some events")
                    if name not in values:
                        if entry and name not in block.kinds:
                            raise Unusable(f"column '{name}' is lacking in some events")
                        values[name] = [value_of(name, before) for before in range(entry)]
                    values[name].append(made[name] if name in made else value_of(name, entry))
            columns: dict[str, Column | str] = {}
            for name, listed in values.items():
                try:
                    columns[name] = column_of_records(listed, block.kinds.get(name))
                except Unusable as problem:
                    if not problem.text:
                        raise Unusable(f"column '{name}' {problem}") from problem
                    columns[name] = str(problem)
        return {name: column for name, column in columns.items() if not _as_it_was(name, column, block, touched)}

    def removed(self, block: Block, touched: Collection[str], *, per_record: bool) -> set[str]:
        """Return the columns of the file that it takes out; called for one trial block only."""
        record = LazyRecord(
            block.kinds,
            lambda name: records_of(block.column(name))[0] if per_record else array_of(block.column(name)),
        )
        made: dict[str, Any] = {}
        with self._guarded(block, for_blocks=False):
            made = self._call(record, touched)
        return {name for name in block.kinds if name not in made and name not in record.unread}

    def _call(self, record: LazyRecord, touched: Collection[str]) -> dict[str, Any]:
        """Call the function for one record, a block's or an event's, and return the columns that it made or looked at."""
        for name in touched:
            record[name]
        returned = self._function(record)
        if returned is record:
            return dict(dict.items(record))
        if not isinstance(returned, Mapping):
            what = "nothing" if returned is None else type(returned).__name__
            raise PreprocessingError(self.path, f"{FUNCTION}(rec) must return the dict of columns; it returned {what}")
        record.unread.clear()  # what is not in the new dict is out
        return dict(returned)

    def _guarded(self, block: Block, *, for_blocks: bool) -> _Guard:
        return _Guard(self.path, block, for_blocks)


class _Guard:
    """Says in one line what went wrong in the user's function."""

    def __init__(self, path: str, block: Block, for_blocks: bool) -> None:
        self._path, self._block, self._for_blocks = path, block, for_blocks

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, MLaaS4HEPError | NotForBlocksError):
            return
        if not isinstance(error, Exception | SystemExit):
            return
        if self._for_blocks and isinstance(error, TypeError | ValueError | AttributeError):
            raise NotForBlocksError(self._what_happened(error)) from error
        raise PreprocessingError(self._path, f"{self._block.where}: {self._what_happened(error)}") from error

    def _what_happened(self, error: BaseException) -> str:
        """Return the deepest line of the user's file that an error passed through, and the error."""
        if isinstance(error, Unusable):
            return str(error)
        where = line_of(error, self._path)
        if isinstance(error, KeyError) and error.args and isinstance(name := error.args[0], str):
            if name in self._block.skipped:
                return f"{where}column '{name}' cannot be used: {self._block.skipped[name]}"
            nearest = nearest_names(name, self._block.kinds)
            return f"{where}no column '{name}'" + (f"; nearest: {quoted(nearest)}" if nearest else "")
        lines = str(error).splitlines()
        return f"{where}{type(error).__name__}" + (f": {lines[0]}" if lines else "")


def line_of(error: BaseException, path: str) -> str:
    """Return the deepest line of a file that an error passed through, as in ``line 3: ``; empty where there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"line {frames[-1].lineno}: " if frames else ""


def _as_it_was(name: str, column: Column | str, block: Block, touched: Collection[str]) -> bool:
    """Whether the function only looked at a column of the file; that it would do so was not known."""
    if name in touched or name not in block.loaded or isinstance(column, str):
        return False
    return same_values(column, block.loaded[name])


def _load(path: str, text: str) -> Callable[[Any], Any]:
    module = ModuleType("mlaas4hep_preprocessing")
    module.__file__ = path
    beside = str(Path(path).resolve().parent)
    # What the function raises is shown with its line although the file may not be there any more, as in a worker process.
    linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    sys.path.insert(0, beside)
    try:
        exec(compile(text, path, "exec"), vars(module))  # noqa: S102 - the user's own program, given by name
    except SyntaxError as error:
        elsewhere = "" if error.filename == path else f"{error.filename}, "
        raise PreprocessingError(path, f"{elsewhere}line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        lines = str(error).splitlines()
        said = f": {lines[0]}" if lines else ""
        raise PreprocessingError(path, f"{line_of(error, path)}{type(error).__name__}{said}") from error
    finally:
        with suppress(ValueError):
            sys.path.remove(beside)
    function = getattr(module, FUNCTION, None)
    if not callable(function):
        nearest = nearest_names(FUNCTION, [name for name, value in vars(module).items() if callable(value)])
        hint = f"; nearest: {quoted(nearest)}" if nearest else ""
        raise PreprocessingError(path, f"it defines no function '{FUNCTION}'; it must have def {FUNCTION}(rec){hint}")
    return function  # type: ignore[no-any-return]
