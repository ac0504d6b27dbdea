"""From what a person writes to the files that are meant.

A name can be a local path, a folder, a pattern, a URL, or a logical file name (``/store/…``) that a redirector resolves. A list of names can be a
list, a comma-separated string, or a text file with one name a line and ``#`` for comments.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from mlaas4hep.errors import SourceError

__all__ = ["DEFAULT_REDIRECTOR", "expand_files", "read_list"]

DEFAULT_REDIRECTOR = "root://cms-xrd-global.cern.ch"

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


def expand_files(names: str | Path | Sequence[str | Path], redirector: str = DEFAULT_REDIRECTOR) -> list[str]:
    """Return the files that are meant, in order, each once.

    Parameters
    ----------
    names : str, Path, or sequence of them
        Paths, folders (all ROOT files in them), patterns with ``*``, URLs, ``/store/…`` names; a string may be a comma-separated list or name a
        text file that holds the list.
    redirector : str
        What is put before a ``/store/…`` name that is no local file.

    Raises
    ------
    SourceError
        If a pattern or folder gives nothing, a file comes twice, or no name is left.

    Examples
    --------
    >>> expand_files("/store/data/f.root", redirector="root://host")
    ['root://host//store/data/f.root']
    """
    if isinstance(names, Path):
        listed = [str(names)]
    elif isinstance(names, str):
        listed = read_list(names)
    else:
        listed = [str(name) for name in names]
    files: list[str] = []
    for name in listed:
        files.extend(_expand(name, redirector))
    if not files:
        raise SourceError(str(names) or "''", "names no file")
    repeated = sorted({file for file in files if files.count(file) > 1}) if len(set(files)) < len(files) else []
    if repeated:
        raise SourceError(repeated[0], "is listed twice; its events would count twice")
    return files


def _expand(name: str, redirector: str) -> list[str]:
    if "://" in name:
        return [name]
    path = Path(name).expanduser()
    if path.is_dir():
        inside = sorted(str(file) for file in path.glob("*.root"))
        if not inside:
            raise SourceError(name, "the folder holds no ROOT file")
        return inside
    if path.exists():
        return [str(path)]
    if glob.has_magic(name):
        matching = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - a pattern may be absolute
        if not matching:
            raise SourceError(name, "no file matches this pattern")
        return matching
    if name.startswith("/store/"):
        return [redirector.rstrip("/") + "/" + name]
    return [str(path)]
