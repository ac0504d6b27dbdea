"""Checksums of whole files, for what a file's own structure cannot show: most flipped bits only change a value."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mlaas4hep.errors import SettingError, SourceError
from mlaas4hep.streaming.access.retry import is_remote

__all__ = ["Checksums"]

PIECE = 4 * 2**20

DIGEST = re.compile(r"(?:[0-9a-fA-F]{8}|[0-9a-fA-F]{64})")


@dataclass(frozen=True)
class Checksums:
    """Known checksums of files.

    Parameters
    ----------
    by_name : mapping of str to str
        Name → sha256 (64 hexadecimal digits) or adler32 (8). A file is found by its full name, else by its last part where only one file has it.
    source : str
        Where they are from, for the messages.
    """

    by_name: Mapping[str, str]
    source: str = ""

    @classmethod
    def read(cls, path: str | Path) -> Checksums:
        """Read a file as ``sha256sum`` writes it: digest, blanks, name; an adler32 has 8 digits in place of 64.

        Raises
        ------
        SourceError
            If it cannot be read.
        SettingError
            If a line is not of this form, or a name comes twice with different digests.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(str(path), f"cannot be read as a list of checksums: {error}") from error
        found: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            digest, _, name = line.strip().partition(" ")
            name = name.strip().removeprefix("*")
            where = f"{path}, line {number}"
            if not DIGEST.fullmatch(digest) or not name:
                raise SettingError("checksums", "lines of a sha256 or adler32 and a file's name", line, where)
            if found.setdefault(name, digest.lower()) != digest.lower():
                raise SettingError("checksums", "one checksum for each file", name, where)
        return cls(found, str(path))

    def of(self, path: str) -> str:
        """Return the checksum that a file should have.

        Raises
        ------
        SourceError
            If there is none for it: a file that is not listed must not pass for one that was verified.
        """
        exact = self.by_name.get(path)
        if exact is not None:
            return exact
        last = PurePosixPath(path).name
        fitting = {digest for name, digest in self.by_name.items() if PurePosixPath(name).name == last}
        if len(fitting) != 1:
            problem = (
                "has no checksum" if not fitting else "has several possible checksums, and none with its full name,"
            )
            raise SourceError(path, f"{problem} in {self.source or 'the list'}")
        return fitting.pop()

    def verify(self, path: str, name: str | None = None) -> None:
        """Read a file from its first to its last byte and compare.

        Parameters
        ----------
        path : str
            Local path or URL.
        name : str, optional
            Name to look for in the list, where it is another.

        Raises
        ------
        SourceError
            If the checksum is another, or the file cannot be read.
        """
        expected = self.of(name or path)
        try:
            found = _adler32(path) if len(expected) == 8 else _sha256(path)
        except Exception as error:
            raise SourceError(path, f"cannot be read to verify its checksum: {error}") from error
        if found != expected:
            kind = "adler32" if len(expected) == 8 else "sha256"
            raise SourceError(path, f"its {kind} is {found}; by {self.source or 'the list'} it must be {expected}")


def _adler32(path: str) -> str:
    value = 1
    for piece in _pieces(path):
        value = zlib.adler32(piece, value)
    return f"{value:08x}"


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(path: str) -> Iterator[bytes]:
    if not is_remote(path):
        with Path(path).open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
        return
    from mlaas4hep.streaming.formats.root_remote import open_remote

    remote: Any = open_remote(path)
    try:
        size = remote.num_bytes
        for start in range(0, size, PIECE):
            yield bytes(remote.chunk(start, min(start + PIECE, size)).raw_data)
    finally:
        remote.close()
