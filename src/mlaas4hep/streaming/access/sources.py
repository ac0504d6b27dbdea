"""From what a person writes to the files that are meant.

A name can be a local path, a folder, a pattern, a URL, a logical file name (``/store/…``) that redirectors resolve, or a dataset (``das:/…``) that
``dasgoclient`` resolves; a ROOT file's name may end in ``:tree``. A list of names can be a list, a comma-separated string, or a text file with one
name a line and ``#`` for comments.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.access.remote_listing import list_remote
from mlaas4hep.streaming.formats import EXTENSIONS

__all__ = ["DEFAULT_REDIRECTOR", "SourceFile", "expand_files", "find_files", "read_list"]

DEFAULT_REDIRECTOR = "root://cms-xrd-global.cern.ch"

DAS_SECONDS = 120
"""How long ``dasgoclient`` may take to name the files of a dataset."""

COMPRESSIBLE = tuple(
    text + packed for text in (".csv", ".json", ".jsonl", ".ndjson") for packed in ("", ".gz", ".bz2", ".zst")
)

WITH_TREE = re.compile(r"(?P<path>.+\.root):(?P<tree>[^:]+)", re.IGNORECASE)

LIST_EXTENSIONS = {".txt", ".list", ".lst", ".files", ""}


def read_list(text: str) -> list[str]:
    """Read a list from a comma-separated string, or from a text file of that name.

    Parameters
    ----------
    text : str
        The string, or the name of a file with one item a line; empty lines and what follows a ``#`` do not count.

    Examples
    --------
    >>> read_list("run, event,luminosityBlock")
    ['run', 'event', 'luminosityBlock']
    """
    if is_list_file(text):
        try:
            lines = Path(text).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(text, f"cannot be read as a list of names: {error}") from error
        items = [line.partition("#")[0].strip() for line in lines]
    else:
        items = [item.strip() for item in text.split(",")]
    return [item for item in items if item]


def is_list_file(text: str) -> bool:
    """Whether a text names an existing file that holds a list, rather than being one."""
    path = Path(text)
    try:
        return "," not in text and path.suffix.lower() in LIST_EXTENSIONS and path.is_file()
    except OSError:  # a text longer than a file name may be
        return False


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that is meant.

    Parameters
    ----------
    path : str
        Local path or URL.
    tree : str or None
        The tree to read, where the name said one.
    alternatives : tuple of str
        Further URLs of the same file, to be tried in order when the first does not work.
    logical_name : str or None
        The ``/store/…`` name, where that was given.

    Examples
    --------
    >>> SourceFile("f.root", "analysis/Events").name
    'f.root:analysis/Events'
    """

    path: str
    tree: str | None = None
    alternatives: tuple[str, ...] = ()
    logical_name: str | None = None

    @property
    def name(self) -> str:
        """What a person would write for it; one who has a choice of redirectors would leave them out."""
        path = self.logical_name if self.alternatives and self.logical_name else self.path
        return path if self.tree is None else f"{path}:{self.tree}"


def find_files(
    names: str | Path | Sequence[str | Path], redirector: str | Sequence[str] = DEFAULT_REDIRECTOR
) -> list[SourceFile]:
    """Return the files that are meant, in order, each once.

    Parameters
    ----------
    names : str, Path, or sequence of them
        Paths, folders (the files in them that can be read), patterns with ``*``, URLs, ``/store/…`` names, ``das:/Primary/Processed/TIER``; what
        ends in ``.root`` may be followed by ``:tree``. Folders and patterns may be URLs; a folder's ends in ``/``. A string may be a comma-separated
        list or name a text file that holds the list.
    redirector : str or sequence of str
        What is put before a ``/store/…`` name that is no local file; several, also separated by commas, are tried in order.

    Raises
    ------
    SourceError
        If a pattern, folder or dataset gives nothing, a file comes twice, no name is left, or ``dasgoclient`` is missing or fails.

    Examples
    --------
    >>> find_files("/store/f.root:Runs", redirector="root://one,root://two")[0]
    SourceFile(path='root://one//store/f.root', tree='Runs', alternatives=('root://two//store/f.root',), logical_name='/store/f.root')
    """
    redirectors = _redirectors(redirector)
    if isinstance(names, Path):
        listed = [str(names)]
    elif isinstance(names, str):
        listed = read_list(names)
    else:
        listed = [str(name) for name in names]
    files: list[SourceFile] = []
    for name in listed:
        files.extend(_find(name, redirectors))
    if not files:
        raise SourceError(str(names) or "''", "names no file")
    seen: set[tuple[str, str | None]] = set()
    for file in files:
        if (file.path, file.tree) in seen:
            raise SourceError(file.path, "is listed twice; its events would count twice")
        seen.add((file.path, file.tree))
    return files


def expand_files(
    names: str | Path | Sequence[str | Path], redirector: str | Sequence[str] = DEFAULT_REDIRECTOR
) -> list[str]:
    """Return the names of the files that are meant, in order, each once; parameters and errors as in :func:`find_files`.

    A ``/store/…`` name gets the redirector in front; where there are several redirectors it stays as it is.

    Examples
    --------
    >>> expand_files("/store/data/f.root", redirector="root://host")
    ['root://host//store/data/f.root']
    """
    return [file.name for file in find_files(names, redirector)]


def _redirectors(redirector: str | Sequence[str]) -> list[str]:
    listed = redirector.split(",") if isinstance(redirector, str) else redirector
    return [name.strip().rstrip("/") for name in listed if name.strip()] or [DEFAULT_REDIRECTOR]


def _find(name: str, redirectors: Sequence[str]) -> list[SourceFile]:
    if name.startswith("das:"):
        return [_logical(file, redirectors) for file in _files_of_dataset(name.removeprefix("das:").strip())]
    parts = WITH_TREE.fullmatch(name)
    if parts and ("://" in name or not Path(name).exists()):
        return [replace(file, tree=parts["tree"].strip("/")) for file in _find(parts["path"], redirectors)]
    if "://" in name:
        if not name.endswith("/") and "*" not in name.partition("://")[2].partition("?")[0]:
            return [SourceFile(name)]
        return [SourceFile(url) for url in _readable(list_remote(name), name)]
    path = Path(name).expanduser()
    if path.is_dir():
        with os.scandir(path) as entries:
            inside = [str(path / entry.name) for entry in entries if entry.is_file()]
        return [SourceFile(file) for file in _readable(inside, name)]
    if path.exists():
        return [SourceFile(str(path))]
    if glob.has_magic(name):
        matching = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - a pattern may be absolute
        if not matching and name.startswith("/store/"):
            return [_logical(file, redirectors) for file in _logical_names(name, redirectors)]
        if not matching:
            raise SourceError(name, "no file matches this pattern")
        return [SourceFile(file) for file in matching]
    return [_logical(name, redirectors) if name.startswith("/store/") else SourceFile(str(path))]


def _logical(name: str, redirectors: Sequence[str]) -> SourceFile:
    first, *others = (f"{redirector}/{name}" for redirector in redirectors)
    return SourceFile(first, None, tuple(others), name)


def _logical_names(pattern: str, redirectors: Sequence[str]) -> list[str]:
    """Return the ``/store/…`` names that fit a pattern, as the first redirector knows them that answers."""
    problem: SourceError | None = None
    for redirector in redirectors:
        try:
            return [url.removeprefix(f"{redirector}/") for url in list_remote(f"{redirector}/{pattern}")]
        except SourceError as error:
            problem = problem or error
    assert problem is not None  # there is at least one redirector  # noqa: S101
    raise problem


def _readable(files: Sequence[str], folder: str) -> list[str]:
    """Return the files of a folder that hold events by their extensions, sorted; a pattern is taken at its word."""
    if not folder.endswith("/") and "*" in folder:
        return sorted(files)
    readable = sorted(file for file in files if is_readable(file))
    if not readable:
        others = f", only {len(files)} others" if files else ""
        raise SourceError(
            folder, f"the folder holds no file that can be read ({', '.join(EXTENSIONS)}){others}; a pattern takes any"
        )
    return readable


def is_readable(name: str) -> bool:
    """Whether a name ends as those of files that hold events.

    Examples
    --------
    >>> [name for name in ("a.root", "b.csv.GZ", "c.parquet", "notes.txt", "old.root.gz") if is_readable(name)]
    ['a.root', 'b.csv.GZ', 'c.parquet']
    """
    lower = name.lower()
    return lower.endswith((*EXTENSIONS, *COMPRESSIBLE))


def _files_of_dataset(dataset: str) -> list[str]:
    """Ask the experiment's data aggregation service which files a dataset has."""
    name = f"das:{dataset}"
    if not re.fullmatch(r"(?:/[\w.-]+){3}", dataset):
        raise SourceError(name, "a dataset is written das:/Primary/Processed/TIER")
    program = shutil.which("dasgoclient")
    if program is None:
        raise SourceError(
            name, "dasgoclient, which knows the files of a dataset, is not on the PATH; give the names of the files"
        )
    try:
        answer = subprocess.run(
            [program, f"-query=file dataset={dataset}"],
            capture_output=True,
            text=True,
            timeout=DAS_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(name, f"dasgoclient gave no answer: {error}") from error
    files = [line.strip() for line in answer.stdout.splitlines() if line.strip().startswith("/")]
    if answer.returncode or not files:
        said = (answer.stderr.strip() or answer.stdout.strip() or "no file").splitlines()[-1]
        raise SourceError(name, f"dasgoclient names no file of it: {said}")
    return files
