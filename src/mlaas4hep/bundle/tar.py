"""The plain format of tar, read forward from a stream that nobody vouches for.

The headers are parsed here, block by block, in the dialects that are in use (old, ustar, GNU's long names, PAX), and the stream is inflated in
pieces under limits: what does not fit is noticed before it takes memory or disk. What a member may be is not decided here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from mlaas4hep.errors import ArchiveError, ArchiveTooLargeError

__all__ = ["ArchiveLimits", "Member", "TarStream", "members"]

BLOCK = 512
CHUNK = 1 << 16
GZIP = 31  # zlib's way to say: with a header and checksum of gzip
META_BYTES = 1 << 16  # a long name or extended header has no business being larger
RATIO_GRACE = 16 << 20  # a small archive of zeros is harmless, however well it was compressed
OTHER_FORMATS = {b"PK": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstandard", b"Rar!": "rar"}


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How much an archive may hold.

    Parameters
    ----------
    inflated_bytes : int
        Bytes of the tar itself, headers and padding included, after inflating.
    members : int
        Number of headers of any kind.
    ratio : float
        Inflated bytes for each compressed byte, looked at from 16 MiB on.
    """

    inflated_bytes: int = 2 << 30
    members: int = 10_000
    ratio: float = 200.0


@dataclass(slots=True)
class Member:
    """One header of a tar, with the extended headers before it applied."""

    name: str
    kind: bytes
    size: int
    mode: int


class TarStream:
    """The plain bytes of a tar or gzip'd tar, read forward only and counted against the limits.

    Parameters
    ----------
    file : binary file
        The archive; whether it is compressed is seen from its first bytes.
    limits : ArchiveLimits
        How much may come out.
    """

    def __init__(self, file: BinaryIO, limits: ArchiveLimits) -> None:
        self._file, self._limits = file, limits
        self._packed_count = self._count = 0
        self._plain, self._at = b"", 0
        self._packed = self._input()
        self._inflater = zlib.decompressobj(wbits=GZIP) if self._packed.startswith(b"\x1f\x8b") else None
        for magic, name in OTHER_FORMATS.items():
            if self._packed.startswith(magic):
                raise ArchiveError(f"the archive is a {name} file; it must be a tar or a tar.gz")

    def read(self, count: int) -> bytes:
        """Return exactly ``count`` bytes, fewer only at the end of the archive."""
        pieces: list[bytes] = []
        while count:
            if self._at == len(self._plain) and not self._fill():
                break
            piece = self._plain[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the ``size`` bytes of a member in pieces, then skip its padding."""
        left = size
        while left:
            piece = self.read(min(left, CHUNK))
            if not piece:
                raise ArchiveError("the archive is cut off inside a file")
            left -= len(piece)
            yield piece
        padding = -size % BLOCK
        if len(self.read(padding)) != padding:
            raise ArchiveError("the archive is cut off inside a file")

    def _fill(self) -> bool:
        """Get the next plain bytes; return whether there are any."""
        self._plain, self._at = self._next(), 0
        self._count += len(self._plain)
        if self._count > self._limits.inflated_bytes:
            raise ArchiveTooLargeError(f"the archive inflates to more than {self._limits.inflated_bytes} bytes")
        if self._inflater and self._count > max(RATIO_GRACE, self._limits.ratio * self._packed_count):
            raise ArchiveTooLargeError(f"the archive inflates to more than {self._limits.ratio:g} times its size")
        return bool(self._plain)

    def _next(self) -> bytes:
        if self._inflater is None:
            plain, self._packed = self._packed or self._input(), b""
            return plain
        while True:
            try:
                plain = self._inflater.decompress(self._packed, CHUNK)
            except zlib.error as error:
                raise ArchiveError(f"the archive is damaged: {error}") from error
            self._packed = self._inflater.unconsumed_tail
            if plain:
                return plain
            if self._inflater.eof:
                # A gzip file may hold several streams one after another, and zeros as padding behind them.
                self._packed = self._inflater.unused_data.lstrip(b"\0")
                while not self._packed:
                    more = self._input()
                    if not more:
                        return b""
                    self._packed = more.lstrip(b"\0")
                self._inflater = zlib.decompressobj(wbits=GZIP)
            elif not self._packed:
                self._packed = self._input()
                if not self._packed:
                    raise ArchiveError("the archive is cut off: its compressed data ends too early")

    def _input(self) -> bytes:
        piece = self._file.read(CHUNK)
        self._packed_count += len(piece)
        return piece


def _number(field: bytes, what: str) -> int:
    """Read a number of a header: octal digits, or base 256 where the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
        if value >= 1 << 62:
            raise ArchiveError(f"the archive has a header with a wrong {what}")
        return value
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise ArchiveError(f"the archive has a header with a wrong {what}") from None


def _text(raw: bytes) -> str:
    try:
        return raw.split(b"\0", 1)[0].decode("utf-8")
    except UnicodeDecodeError:
        raise ArchiveError(f"the archive has a name that is not UTF-8: {raw[:80]!r}") from None


def _extended(records: bytes) -> dict[str, bytes]:
    """Read a PAX header: records of the form ``length key=value`` and a newline."""
    values: dict[str, bytes] = {}
    position = 0
    while position < len(records):
        space = records.find(b" ", position, position + 8)
        digits = records[position:space]
        end = position + int(digits) if space > position and digits.isdigit() else 0
        key, equals, value = records[space + 1 : end - 1].partition(b"=")
        if not (space < end <= len(records)) or records[end - 1 : end] != b"\n" or not equals:
            raise ArchiveError("the archive has a damaged extended header")
        values[key.decode("utf-8", "replace")] = value
        position = end
    return values


def members(tar: TarStream, limit: int) -> Iterator[Member]:
    """Yield each member in turn; the caller reads its bytes before asking for the next one."""
    long_name: bytes | None = None
    extended: dict[str, bytes] = {}
    for _ in range(limit):
        block = tar.read(BLOCK)
        if not block.strip(b"\0"):
            _expect_only_zeros(tar)
            return
        if len(block) < BLOCK:
            raise ArchiveError("the archive is cut off inside a header")
        if block[148:156].strip(b" \0").rjust(8, b"0") != b"%08o" % (sum(block) - sum(block[148:156]) + 8 * ord(" ")):
            raise ArchiveError("the archive is not a tar, or a header of it is damaged")
        size, kind = _number(block[124:136], "size"), block[156:157]
        if kind not in (b"L", b"x", b"g"):
            yield _member(block, size, kind, long_name, extended)
            long_name, extended = None, {}
            continue
        if not 0 <= size <= META_BYTES:
            raise ArchiveError(f"the archive has an extended header of {size} bytes; at most {META_BYTES} are accepted")
        data = b"".join(tar.chunks(size))
        if kind == b"L":
            long_name = data
        elif kind == b"x":
            extended = _extended(data)
    raise ArchiveTooLargeError(f"the archive has more than {limit} members")


def _member(block: bytes, size: int, kind: bytes, long_name: bytes | None, extended: Mapping[str, bytes]) -> Member:
    """Read a header, with what the extended headers before it say instead."""
    name = _text(block[0:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = _text(block[345:500]) + "/" + name
    if long_name is not None:
        name = _text(long_name)
    if "path" in extended:
        if b"\0" in extended["path"]:
            raise ArchiveError("the archive has a name with a NUL byte")
        name = _text(extended["path"])
    if "size" in extended:
        if not extended["size"].isdigit() or len(extended["size"]) > 18:
            raise ArchiveError("the archive has a header with a wrong size")
        size = int(extended["size"])
    if any(key.startswith("GNU.sparse") for key in extended):
        kind = b"S"
    if kind in (b"0", b"\0", b"7"):
        kind = b"5" if name.endswith("/") else b"0"
    return Member(name, kind, size, _number(block[100:108], "mode"))


def _expect_only_zeros(tar: TarStream) -> None:
    """Read to the end, so that the checksum of the compressed stream is checked too."""
    while piece := tar.read(CHUNK):
        if piece.strip(b"\0"):
            raise ArchiveError("the archive has data after its end")
