"""JSON lines: one object an event and line, parsed with pyarrow.

Members that hold numbers or bools are flat columns, lists of them are jagged ones; a member that is absent is null, and a list that is null is
empty. The types follow from all values: int64, uint64 where that is needed, float64 where one of them is no integer or, with NaN, where integers or
bools have nulls. A member that holds numbers in one event and something else in another is an error that names the line. ``NaN`` and ``Infinity``
may stand for numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.json

from mlaas4hep.streaming.formats.arrow_columns import describe_types, with_nulls
from mlaas4hep.streaming.formats.base import ColumnType
from mlaas4hep.streaming.formats.files import reason
from mlaas4hep.streaming.formats.lines import LinesReader
from mlaas4hep.streaming.formats.text import LineError, first_bad_line

__all__ = ["JsonReader"]

COLUMN = re.compile(r"Column\(/?([^)]*)\) ")


class JsonReader(LinesReader):
    """One open file of JSON lines.

    Parameters
    ----------
    path : str
        Local path or URL, plain or compressed with gzip, bzip2 or zstd.
    tree : str
        Not used: the file is one table.

    Raises
    ------
    SourceError
        If the file is missing, empty, damaged, out of reach, not UTF-8, or a line is not an object as the others; the error names line and column.
    """

    def __init__(self, path: str, tree: str) -> None:
        super().__init__(path, _JsonParser, "JSON lines")


@dataclass(slots=True)
class _Found:
    """What is known of a member so far."""

    type: pa.DataType
    rows: int = 0
    nulls: bool = False
    negative: bool = False


class _JsonParser:
    def __init__(self) -> None:
        self._found: dict[str, _Found] = {}
        self._rows = 0

    def header(self, line: bytes) -> bool:
        if line.lstrip()[:1] == b"[":
            raise LineError(1, "begins a list; the file should hold one object a line")
        return False

    def learn(self, block: bytes) -> int:
        if not block.strip():
            return 0
        try:
            table = _table(block)
        except pa.ArrowInvalid:
            line, text = first_bad_line(block, _table)
            raise LineError(line, _why(text, block, line)) from None
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        if table.num_rows != lines and table.num_rows != sum(bool(line.strip()) for line in block.split(b"\n")):
            raise LineError(_line_of_two(block), "holds more or less than one object")
        unsigned = self._unsigned(block, table)
        for name, column in zip(table.column_names, table.columns, strict=True):
            self._learn_column(name, column, block, unsigned.get(name))
        self._rows += table.num_rows
        return int(table.num_rows)

    def _learn_column(self, name: str, column: pa.ChunkedArray, block: bytes, unsigned: pa.DataType | None) -> None:
        found = self._found.setdefault(name, _Found(pa.null()))
        kind = _kind(column.type)
        if unsigned is not None and _join(found.type, unsigned) == unsigned and not found.negative:
            kind = unsigned
        joined = _join(found.type, kind)
        if joined is None:
            row = next(index for index, value in enumerate(column.to_pylist()) if value is not None)
            raise LineError(
                _line_of_row(block, row), f"column '{name}' holds {_said(kind)}; before it held {_said(found.type)}"
            )
        if _value_type(joined) == pa.uint64() and (found.negative or _negative(column)):
            joined = _with_value_type(joined, pa.float64())
        values = column if pa.types.is_null(column.type) else _flat(column)
        found.negative = found.negative or _negative(column)
        found.type, found.rows = joined, found.rows + len(column)
        found.nulls = found.nulls or values.null_count > 0

    def _unsigned(self, block: bytes, table: pa.Table) -> dict[str, pa.DataType]:
        """Return the columns that pyarrow takes for floats because their integers are too large for int64, not for uint64."""
        candidates = {
            name: _with_value_type(_kind(column.type), pa.uint64())
            for name, column in zip(table.column_names, table.columns, strict=True)
            if _value_type(column.type) == pa.float64() and _may_hold_large(column)
        }
        unsigned = {}
        for name, kind in candidates.items():
            try:
                _table(block, {name: kind})
            except pa.ArrowInvalid:
                continue
            unsigned[name] = kind
        return unsigned

    def described(self) -> tuple[dict[str, ColumnType], dict[str, str]]:
        columns, skipped = describe_types(
            (name, pa.list_(pa.float64()) if found.type == pa.list_(pa.null()) else found.type)
            for name, found in self._found.items()
        )
        for name, kind in columns.items():
            found = self._found[name]
            # A column that no event of a block has is null there.
            if found.nulls or (found.rows < self._rows and not kind.jagged):
                columns[name] = with_nulls(kind)
        return columns, skipped

    def parse(self, block: bytes, columns: Sequence[str]) -> Mapping[str, pa.ChunkedArray]:
        types = {name: self._found[name].type for name in columns}
        types = {n: pa.list_(pa.float64()) if t == pa.list_(pa.null()) else t for n, t in types.items()}
        table = _table(block, types)
        return dict(zip(table.column_names, table.columns, strict=True))


def _table(block: bytes, types: Mapping[str, pa.DataType] | None = None) -> pa.Table:
    """Parse a block; all members with types of their own, or only some with the given ones."""
    return pyarrow.json.read_json(
        pa.BufferReader(block),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=None if types is None else pa.schema(types.items()),
            unexpected_field_behavior="infer" if types is None else "ignore",
        ),
    )


def _kind(kind: pa.DataType) -> pa.DataType:
    """Return the type without what tells nothing: pyarrow takes some texts for times, and objects have any members."""
    if pa.types.is_list(kind):
        return pa.list_(_kind(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([])
    return pa.string() if pa.types.is_temporal(kind) else kind


def _join(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that holds the values of both, or None."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_list(one) and pa.types.is_list(other):
        value = _join(one.value_type, other.value_type)
        return None if value is None else pa.list_(value)
    numbers = [pa.int64(), pa.uint64(), pa.float64()]
    if one in numbers and other in numbers:
        return max(one, other, key=numbers.index)
    return None


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_list(kind) else kind


def _with_value_type(kind: pa.DataType, value: pa.DataType) -> pa.DataType:
    return pa.list_(value) if pa.types.is_list(kind) else value


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values of the lists, or the column itself if it is flat."""
    return pa.chunked_array([chunk.flatten() for chunk in column.chunks]) if pa.types.is_list(column.type) else column


def _extremes(column: pa.ChunkedArray) -> tuple[Any, Any]:
    extremes = pa.compute.min_max(_flat(column)).as_py()
    return extremes["min"], extremes["max"]


def _negative(column: pa.ChunkedArray) -> bool:
    if _value_type(column.type) != pa.int64():
        return False
    smallest = _extremes(column)[0]
    return smallest is not None and smallest < 0


def _may_hold_large(column: pa.ChunkedArray) -> bool:
    largest = _extremes(column)[1]
    return largest is not None and 2.0**63 <= largest <= 2.0**64


def _why(text: bytes, block: bytes, line: int) -> str:
    """Return why a line cannot be parsed after those before it."""
    try:
        _table(b"\n".join(block.split(b"\n")[:line]))
    except pa.ArrowInvalid as error:
        said = re.sub(r"^JSON parse error: | in row \d+$", "", reason(error))
        found = COLUMN.match(said)
        if found and found[1]:
            return f"column '{found[1].split('/')[0]}' {said[found.end() :]}"
        return f"{text[:60].decode('utf-8', 'replace')!r} is no JSON object: {said}"
    raise AssertionError("the line can be parsed")


def _said(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return "lists"
    if pa.types.is_struct(kind):
        return "objects"
    return {pa.string(): "texts", pa.bool_(): "true or false"}.get(kind, "numbers")


def _line_of_row(block: bytes, row: int) -> int:
    """Return the line, counted from 1, of a row, counted from 0: empty lines are no rows."""
    full = (number for number, line in enumerate(block.split(b"\n"), start=1) if line.strip())
    return next(number for index, number in enumerate(full) if index == row)


def _line_of_two(block: bytes) -> int:
    """Return the first line that does not hold exactly one object."""
    for number, line in enumerate(block.split(b"\n"), start=1):
        try:
            if line.strip() and _table(line).num_rows != 1:
                return number
        except pa.ArrowInvalid:
            return number
    return 1
