"""Open a file of a dataset, wherever it can be had, and make sure that it is the one that is meant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.access.checksums import Checksums
from mlaas4hep.streaming.access.faults import Faults
from mlaas4hep.streaming.access.retry import is_remote
from mlaas4hep.streaming.access.sources import SourceFile
from mlaas4hep.streaming.formats import Reader, open_reader

__all__ = ["Opener", "size_of"]


@dataclass(frozen=True)
class Opener:
    """How the files of a dataset are opened for the first time.

    Parameters
    ----------
    tree : str
        Tree of the files that name none.
    faults : Faults
    checksums : Checksums, optional
        Each file is compared with its checksum before anything in it is believed.
    dtype : str, optional
        Format of all files, whatever their extensions.
    """

    tree: str
    faults: Faults = field(default_factory=Faults)
    checksums: Checksums | None = None
    dtype: str | None = None

    @contextmanager
    def open(self, source: SourceFile) -> Iterator[Reader]:
        """Open a file for the time of a ``with`` block; raises as :meth:`reader` does."""
        reader = self.reader(source)
        try:
            yield reader
        finally:
            reader.close()

    def reader(self, source: SourceFile) -> Reader:
        """Open a file; whoever asked closes it.

        Raises
        ------
        SourceError
            If it cannot be had from anywhere, is damaged, or is not what its checksum says.
        TreeNotFoundError
            If it holds no such tree.
        """

        def try_at(location: str) -> Reader:
            if self.checksums is not None:
                self.checksums.verify(location, source.path if source.logical_name is None else source.logical_name)
            return open_reader(location, source.tree or self.tree, self.dtype)

        return self.faults.attempt((source.path, *source.alternatives), try_at)


def size_of(reader: Reader) -> int:
    """Return the bytes of the file that a reader has open, or -1 where that is not known."""
    known = getattr(reader, "size", None)
    if known is not None:
        return int(known)
    if is_remote(reader.path):
        return -1
    try:
        return Path(reader.path).stat().st_size
    except OSError as error:
        raise SourceError(reader.path, f"cannot be read: {error.strerror}") from error
