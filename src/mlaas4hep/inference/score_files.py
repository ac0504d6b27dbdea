"""Files that scores are written to: one row an event, the identifiers beside the score; whole or not there.

A file is written under a temporary name beside its own and renamed when it is complete. What it is the score of stands in it too, so that a later
run knows whether it is done already.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from mlaas4hep.atomic import write_atomically
from mlaas4hep.errors import SettingError
from mlaas4hep.inference.score_formats import SCORE_FORMATS, Columns, ScoreWriter, Types

__all__ = [
    "ScoreFile",
    "open_score_file",
    "read_about",
    "remove_leftovers",
    "score_names",
    "sidecar",
]

ROWS_AT_ONCE = 65_536
"""Rows that are gathered before they are written: small baskets cost more than they hold."""


class ScoreFile:
    """A file of scores that is being written; made by :func:`open_score_file`."""

    def __init__(self, path: Path, make: Callable[[], ScoreWriter]) -> None:
        self._path = path
        self._waiting: list[Columns] = []
        self._waiting_rows = 0
        self.rows = 0
        with self._reporting():
            self._writer = make()

    def write(self, columns: Columns) -> None:
        """Append rows.

        Parameters
        ----------
        columns : mapping of str to array of shape ``[n]``
            Of the names and types that the file was opened with; must not change afterwards.

        Raises
        ------
        SettingError
            If the file cannot be written, as when the disk is full.
        """
        rows = len(next(iter(columns.values())))
        self._waiting.append(columns)
        self._waiting_rows += rows
        self.rows += rows
        if self._waiting_rows >= ROWS_AT_ONCE:
            self._flush()

    def complete(self, about: Mapping[str, Any]) -> None:
        """Write what waits, and say what the file is."""
        self._flush()
        with self._reporting():
            self._writer.close(about)

    def abandon(self) -> None:
        """Let go of it."""
        with suppress(Exception):
            self._writer.abandon()

    def _flush(self) -> None:
        if self._waiting_rows:
            names = self._waiting[0]
            with self._reporting():
                self._writer.write({name: np.concatenate([block[name] for block in self._waiting]) for name in names})
        self._waiting, self._waiting_rows = [], 0

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unwritable(self._path, error) from error


@contextmanager
def open_score_file(path: Path, types: Types, about: Callable[[], Mapping[str, Any]]) -> Iterator[ScoreFile]:
    """Open a file for scores; it takes its name when the ``with`` block ends well, and nothing of it is left when it does not.

    Parameters
    ----------
    path : Path
        Its extension says the format. A file of that name is replaced.
    types : mapping of str to dtype
        Name and type of each column.
    about : callable
        Called at the end; returns what the file is, as plain values for JSON: ``inputs`` with the ``name`` of each input file in the order of the
        column ``file``, and whatever :func:`read_about` shall give back.

    Raises
    ------
    SettingError
        If there is no such format, or the file cannot be written.
    """
    if path.suffix not in SCORE_FORMATS:
        raise SettingError("out", f"a file name that ends in {' or '.join(SCORE_FORMATS)}", str(path))
    # The name is known before there is a file of that name: whenever this is interrupted, the file is removed.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.part{path.suffix}")
    try:
        with _locked(temporary, path) as lock:
            scores = ScoreFile(path, lambda: SCORE_FORMATS[path.suffix](temporary, types))
            try:
                yield scores
                described = {**about(), "rows": scores.rows}
                scores.complete(described)
            except BaseException:
                scores.abandon()
                raise
            _put_in_place(temporary, path, described, lock)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _locked(temporary: Path, path: Path) -> Iterator[int]:
    """Make a file that is locked until the end, so that others can tell one that is being written from one that was left behind."""
    lock = -1
    try:
        try:
            lock = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise _unwritable(path, error) from error
        yield lock
    finally:
        # While it is locked still; and once more by the caller, should Ctrl-C come here.
        temporary.unlink(missing_ok=True)
        if lock >= 0:
            os.close(lock)


def _put_in_place(temporary: Path, path: Path, described: dict[str, Any], handle: int) -> None:
    """Give a complete file its name, with what it is beside it where the format has no place for that."""
    try:
        os.fsync(handle)
        if path.suffix == ".csv":
            described["sha256"] = _sha256(temporary)
            sidecar(path).unlink(missing_ok=True)  # never one that tells of another file
        temporary.replace(path)
        if path.suffix == ".csv":
            write_atomically(sidecar(path), json.dumps(described, indent=1).encode())
    except OSError as error:
        raise _unwritable(path, error) from error


def remove_leftovers(path: Path) -> None:
    """Remove what processes that are gone have left of a file of scores."""
    for leftover in path.parent.glob(f".{glob.escape(path.stem)}.*.part{path.suffix}"):
        with suppress(OSError):
            lock = os.open(leftover, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()
            finally:
                os.close(lock)


def read_about(path: Path) -> dict[str, Any] | None:
    """Return what a whole file of scores is, or None where there is no such file, or it is not whole.

    Parameters
    ----------
    path : Path
        As given to :func:`open_score_file`.
    """
    readers = {".root": _about_root, ".parquet": _about_parquet, ".csv": _about_csv}
    try:
        about, rows = readers[path.suffix](path)
    except Exception:  # whatever a damaged file makes its reader raise: it is not one that can be relied upon
        return None
    return about if isinstance(about, dict) and rows in (None, about.get("rows")) else None


def sidecar(path: Path) -> Path:
    """Return the file beside a CSV file that says what it is."""
    return path.with_name(path.name + ".json")


def score_names(labels: Sequence[str], output: str, taken: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of the columns of a bundle's scores, each once.

    Parameters
    ----------
    labels : sequence of str
        Name of each column of the bundle's output.
    output : str
        ``probabilities`` gives columns ``probability_LABEL``; ``values`` gives a column named by each label.
    taken : sequence of str
        Names of other columns.

    Examples
    --------
    >>> score_names(["ggH", "t t"], "probabilities")
    ('probability_ggH', 'probability_t_t')
    >>> score_names(["a b", "a_b", "entry"], "values", ["entry"])
    ('a_b', 'a_b_1', 'entry_1')
    """
    names: list[str] = []
    for label in labels:
        base = re.sub(r"\W", "_", label, flags=re.ASCII)
        name = base = f"probability_{base}" if output == "probabilities" else base
        number = 0
        while name in names or name in taken:
            number += 1
            name = f"{base}_{number}"
        names.append(name)
    return tuple(names)


def _about_root(path: Path) -> tuple[Any, int | None]:
    import uproot

    with path.open("rb") as raw:
        head = raw.read(20)
        version = int.from_bytes(head[4:8], "big")
        end = int.from_bytes(head[12:20] if version >= 1_000_000 else head[12:16], "big")  # fEND of the file's header
        if raw.seek(0, os.SEEK_END) < end:
            return None, None
    with uproot.open(path) as file:
        return json.loads(str(file["about"])), int(file["Events"].num_entries)


def _about_parquet(path: Path) -> tuple[Any, int | None]:
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    return json.loads(metadata.metadata[b"about"]), int(metadata.num_rows)


def _about_csv(path: Path) -> tuple[Any, int | None]:
    about = json.loads(sidecar(path).read_bytes())
    return (about if _sha256(path) == about["sha256"] else None), None


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unwritable(path: Path, error: OSError) -> SettingError:
    return SettingError("out", f"a place that can be written ({error.strerror or error})", str(path))
