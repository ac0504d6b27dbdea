"""Text, plain or compressed, as blocks of whole lines.

Compressed text has no places to jump to: a read goes on from where the last one ended, so reading in order decompresses everything once, and a
step back begins again at the start of the file. Checksums of gzip, bzip2 and zstd are verified where they stand: at the end of a stream or block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa

from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.formats.files import open_bytes, reason

__all__ = ["LineError", "Text", "first_bad_line", "require_utf8", "text_blocks"]

BLOCK_BYTES = 1 << 18
MAX_LINE_BYTES = 1 << 24
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}


class LineError(ValueError):
    """A line is not what it should be; ``line`` counts from the first of the block."""

    def __init__(self, line: int, reason: str) -> None:
        self.line, self.reason = line, reason
        super().__init__(f"line {line}: {reason}")


class Text:
    """The uncompressed bytes of a file, with a position."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._raw = open_bytes(path)
        start = self._raw.read(10)
        self._compression = next((name for magic, name in COMPRESSIONS.items() if start.startswith(magic)), None)
        if self._compression == "bz2" and start[4:] != b"1AY&SY":  # a header may begin with the letters BZh
            self._compression = None
        self._stream: Any = None
        self._position = 0
        self.seek(0)

    def seek(self, offset: int) -> None:
        """Go to a byte of the uncompressed text."""
        if self._compression is None:
            self._raw.seek(offset)
            self._stream = self._raw
        else:
            if self._stream is None or offset < self._position:
                self._raw.seek(0)
                self._stream = pa.CompressedInputStream(pa.PythonFile(_Lent(self._raw), "r"), self._compression)
                self._position = 0
            while self._position < offset and self.read(min(BLOCK_BYTES, offset - self._position)):
                pass
        self._position = offset

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end of the text only."""
        try:
            data: bytes = self._stream.read(size)
            while data and len(data) < size and (more := self._stream.read(size - len(data))):
                data += more
        except Exception as error:  # zlib, bz2, zstd and file systems have each their own
            what = f"the {self._compression} data are damaged" if self._compression else "cannot be read"
            raise SourceError(self.path, f"{what}: {reason(error)}") from error
        self._position += len(data)
        return data

    def close(self) -> None:
        """Close the file."""
        self._raw.close()


class _Lent:
    """A file that does not close when the decompressor that reads it goes."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        return self._raw.read(size)

    def close(self) -> None:
        self.closed = True


def text_blocks(text: Text, kind: str) -> Iterator[bytes]:
    """Give the text in pieces that end where a line ends."""
    carry, lines = b"", 1
    text.seek(0)
    while piece := text.read(BLOCK_BYTES):
        cut = piece.rfind(b"\n") + 1
        if cut:
            block = carry + piece[:cut]
            carry = piece[cut:]
            lines += block.count(b"\n")
            yield block
        else:
            carry += piece
            if len(carry) > MAX_LINE_BYTES:
                longest = f"{MAX_LINE_BYTES >> 20} MiB"
                raise SourceError(text.path, f"line {lines} is longer than {longest}: {kind} has one event a line")
    if carry:
        yield carry


def require_utf8(block: bytes) -> None:
    """Raise a LineError unless a block of whole lines is UTF-8."""
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = block.count(b"\n", 0, error.start) + 1
        raise LineError(line, f"is not UTF-8: byte {block[error.start]:#04x}") from None


def first_bad_line(block: bytes, parses: Callable[[bytes], Any]) -> tuple[int, bytes]:
    r"""Return the first line, counted from 1, with which a block cannot be parsed any more, and its text.

    Parameters
    ----------
    block : bytes
        Whole lines, which together cannot be parsed.
    parses : callable
        Raises pyarrow.ArrowInvalid or LineError for such.

    Examples
    --------
    >>> def refuse_b(text):
    ...     if b"b" in text:
    ...         raise pa.ArrowInvalid("b")
    >>> first_bad_line(b"a\nb\na\n", refuse_b)
    (2, b'b')
    """
    lines = re.findall(rb"[^\n]*\n|[^\n]+", block)
    good, bad = 0, len(lines)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            parses(b"".join(lines[:middle]))
            good = middle
        except (pa.ArrowInvalid, LineError):
            bad = middle
    return bad, lines[bad - 1].rstrip(b"\r\n")
