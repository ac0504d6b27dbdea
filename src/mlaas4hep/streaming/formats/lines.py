"""Files with one event a line: where blocks of lines begin, so that any range of events is read without what stands before it.

One sequential pass over the whole text cuts it at ends of lines into blocks of about 256 KiB, counts their rows, and settles the type of every
column; it holds one block at a time. What it costs is the parsing of the file, once in a process.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.formats.arrow_columns import NullsError, column_of
from mlaas4hep.streaming.formats.base import Column, ColumnType
from mlaas4hep.streaming.formats.files import NAMESPACE, Remembered, empty_column, reason
from mlaas4hep.streaming.formats.text import LineError, Text, require_utf8, text_blocks

__all__ = ["LinesReader", "Parser"]


class Parser(Protocol):
    """What a format of lines adds: what a block of whole lines means. One instance makes one pass and is kept for reading."""

    def header(self, line: bytes) -> bool:
        """Take the first line; return whether it is a header rather than an event."""
        ...

    def learn(self, block: bytes) -> int:
        """Take a block of the pass, settle what types it asks for, and return the number of its rows; raises LineError."""
        ...

    def described(self) -> tuple[dict[str, ColumnType], dict[str, str]]:
        """Return the columns that hold numbers, and why the others do not, after the pass."""
        ...

    def parse(self, block: bytes, columns: Sequence[str]) -> Mapping[str, pa.ChunkedArray]:
        """Return some columns of one block; raises pyarrow.ArrowInvalid."""
        ...


@dataclass(frozen=True)
class TextIndex:
    """What the pass over a text found.

    Parameters
    ----------
    parser : Parser
        Which knows the types.
    offsets : int64 array of shape ``[blocks + 1]``
        First byte of each block in the uncompressed text.
    bounds : int64 array of shape ``[blocks + 1]``
        First row of each block.
    uuid : str
        Follows from the uncompressed text.
    columns, skipped : dict
        As of a Reader.
    """

    parser: Parser
    offsets: npt.NDArray[np.int64]
    bounds: npt.NDArray[np.int64]
    uuid: str
    columns: dict[str, ColumnType]
    skipped: dict[str, str]


class LinesReader:
    """One open file of lines.

    Parameters
    ----------
    path : str
        Local path or URL; compression is told by the first bytes, not by the name.
    parser : callable
        Makes the Parser of the format.
    kind : str
        The format, for messages.

    Raises
    ------
    SourceError
        If the file is missing, empty, damaged, out of reach, not UTF-8, or a line is not what the format asks for; the error names the line.
    """

    def __init__(self, path: str, parser: Callable[[], Parser], kind: str) -> None:
        self.path = path
        self._text = Text(path)
        try:
            self._index = _indexes.of(path, kind, lambda: _make_index(self._text, parser(), kind))
        except BaseException:
            self.close()
            raise
        self.uuid = self._index.uuid
        self.entries = int(self._index.bounds[-1])
        self.columns: Mapping[str, ColumnType] = self._index.columns
        self.skipped: Mapping[str, str] = self._index.skipped

    def clusters(self, columns: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the rows at which a block begins, with 0 first and ``entries`` last."""
        return np.unique(self._index.bounds)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        """Read the rows ``start … stop - 1`` of some columns.

        Raises
        ------
        SourceError
            If the file is damaged or out of reach, or has changed since it was opened.
        """
        if start == stop or not columns:
            return {name: empty_column(self.columns[name]) for name in columns}
        index = self._index
        first = int(np.searchsorted(index.bounds, start, "right")) - 1
        last = int(np.searchsorted(index.bounds, stop, "left"))
        parts: dict[str, list[Any]] = {name: [] for name in columns}
        self._text.seek(int(index.offsets[first]))
        for block in range(first, last):
            rows = int(index.bounds[block + 1] - index.bounds[block])
            text = self._text.read(int(index.offsets[block + 1] - index.offsets[block]))
            skip = max(0, start - int(index.bounds[block]))
            take = min(stop - int(index.bounds[block]), rows) - skip
            try:
                parsed = index.parser.parse(text, columns)
                for name in columns:
                    if len(parsed[name]) != rows:
                        raise ValueError(f"{len(parsed[name])} rows where {rows} were")
                    parts[name].extend(parsed[name].slice(skip, take).chunks)
            except (pa.ArrowException, ValueError) as error:
                raise SourceError(self.path, f"has changed since it was opened: {reason(error)}") from error
        try:
            return {name: column_of(pa.chunked_array(parts[name]), self.columns[name]) for name in columns}
        except NullsError as error:
            raise SourceError(self.path, f"has changed since it was opened: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._text.close()


_indexes: Remembered[TextIndex] = Remembered()


def _make_index(text: Text, parser: Parser, kind: str) -> TextIndex:
    offsets: list[int] = []
    bounds, line, size = [0], 1, 0
    digest = hashlib.blake2b(digest_size=32)
    for block in text_blocks(text, kind):
        digest.update(block)
        lines = block.count(b"\n")
        try:
            if not block.isascii():
                require_utf8(block)
            if b"\0" in block:
                raise LineError(block.count(b"\n", 0, block.index(b"\0")) + 1, "holds a zero byte, which no text does")
            begin = _header_bytes(block, parser) if not offsets else 0
            if not offsets:
                offsets.append(begin)
            header = int(begin > 0)
            try:
                rows = parser.learn(block[begin:])
            except LineError as error:
                raise LineError(error.line + header, error.reason) from None
        except LineError as error:
            raise SourceError(text.path, f"line {line + error.line - 1}: {error.reason}") from None
        line += lines
        size += len(block)
        offsets.append(size)
        bounds.append(bounds[-1] + rows)
    columns, skipped = parser.described()
    if bounds[-1] == 0:
        raise SourceError(text.path, f"holds no event: a {kind} file tells the types of its columns by its rows")
    per_event = size / max(1, bounds[-1]) / max(1, len(columns))
    return TextIndex(
        parser,
        np.array(offsets, np.int64),
        np.array(bounds, np.int64),
        str(uuid.uuid5(NAMESPACE, f"{kind} {size} {digest.hexdigest()}")),
        {name: replace(kind, bytes_per_event=max(per_event, kind.dtype.itemsize)) for name, kind in columns.items()},
        skipped,
    )


def _header_bytes(block: bytes, parser: Parser) -> int:
    """Return the number of bytes of the first line if it is a header, else 0."""
    if block.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise LineError(1, "is not UTF-8 but UTF-16")
    end = block.find(b"\n") + 1 or len(block)
    return end if parser.header(block[:end]) else 0
