"""Where scores go: one file for all inputs, or one for each; and which of them are there already."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from mlaas4hep.errors import SettingError
from mlaas4hep.inference.score_files import read_about
from mlaas4hep.inference.score_formats import SCORE_FORMATS
from mlaas4hep.streaming.access.retry import is_remote

__all__ = ["ScoreTarget", "is_done", "targets_in", "the_target"]

PACKED = (".gz", ".bz2", ".zst")


@dataclass(frozen=True)
class ScoreTarget:
    """A file of scores.

    Parameters
    ----------
    path : Path
    files : tuple of int
        The inputs whose events it gets, as indices in the catalogue.
    """

    path: Path
    files: tuple[int, ...]


def the_target(out: Path, inputs: Sequence[str]) -> ScoreTarget:
    """Return one file for all inputs.

    Raises
    ------
    SettingError
        If there is no such format, or it is one of the inputs.
    """
    if out.suffix not in SCORE_FORMATS:
        raise SettingError("out", f"a file name that ends in {' or '.join(SCORE_FORMATS)}", str(out))
    _refuse_input(out, inputs, "out")
    return ScoreTarget(out, tuple(range(len(inputs))))


def targets_in(folder: Path, inputs: Sequence[str], suffix: str, extension: str) -> list[ScoreTarget]:
    """Return a file for each input, named as it is.

    Parameters
    ----------
    folder : Path
        Where to. Where inputs of different folders have one name, their folders come along, from the first one on in which they differ.
    inputs : sequence of str
        Paths and URLs.
    suffix : str
        What is added to each name.
    extension : str
        One of :data:`~mlaas4hep.inference.score_formats.SCORE_FORMATS`.

    Raises
    ------
    SettingError
        If two would be the same, one is an input, or there is no such format.

    Examples
    --------
    >>> [str(target.path) for target in targets_in(Path("out"), ["a/x.root", "a/y.root"], ".scores", ".root")]
    ['out/x.scores.root', 'out/y.scores.root']
    >>> [str(target.path) for target in targets_in(Path("out"), ["a/0/x.root", "a/1/x.root"], "_s", ".csv")]
    ['out/0/x_s.csv', 'out/1/x_s.csv']
    """
    if extension not in SCORE_FORMATS:
        raise SettingError("format", f"one of {', '.join(name[1:] for name in SCORE_FORMATS)}", extension.lstrip("."))
    if "/" in suffix or "\0" in suffix:
        raise SettingError("suffix", "a part of a file's name", suffix)
    places = [_place(name) for name in inputs]
    names = [_stem(place.name) + suffix + extension for place in places]
    if len(set(names)) < len(names):
        shared = posixpath.commonpath([str(place.parent) for place in places])
        names = [str(place.parent.relative_to(shared) / name) for place, name in zip(places, names, strict=True)]
    first: dict[str, str] = {}
    targets = []
    for index, (file, name) in enumerate(zip(inputs, names, strict=True)):
        if name in first:
            raise SettingError(
                "out_dir",
                f"given inputs of different names; '{first[name]}' and '{file}' would both be '{name}'",
                str(folder),
            )
        first[name] = file
        targets.append(ScoreTarget(folder / name, (index,)))
    for target in targets:
        _refuse_input(target.path, inputs, "out_dir")
    return targets


def is_done(target: ScoreTarget, about: Mapping[str, Any]) -> bool:
    """Whether a target is there, whole, without losses, and of the same inputs, bundle and settings.

    Parameters
    ----------
    target : ScoreTarget
    about : mapping
        What it would say of itself.
    """
    found = read_about(target.path)
    if (
        found is None
        or found.get("losses") != []
        or found.get("rows") != sum(file["entries"] for file in about["inputs"])
    ):
        return False
    # As it looks when it has been written and read.
    return _what_counts(found) == _what_counts(json.loads(json.dumps(about)))


def _what_counts(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what two files of scores of the same events have in common, wherever the inputs lie."""
    try:
        inputs = [(file["uuid"], file["entries"]) for file in about["inputs"]]
        return {"inputs": inputs, **{name: about[name] for name in ("bundle_sha256", "columns", "settings")}}
    except (KeyError, TypeError):
        return {}


def _place(name: str) -> PurePosixPath:
    """Return the full path of a file; that of a URL begins with its host."""
    if is_remote(name):
        url = urlsplit(name)
        return PurePosixPath("/" + url.netloc) / posixpath.normpath("/" + url.path.lstrip("/")).lstrip("/")
    return PurePosixPath(Path(name).absolute())


def _stem(name: str) -> str:
    for packed in PACKED:
        name = name.removesuffix(packed)
    return PurePosixPath(name).stem


def _refuse_input(path: Path, inputs: Sequence[str], setting: str) -> None:
    """Refuse to write over what is read."""
    if not path.exists():
        return
    for name in inputs:
        if not is_remote(name) and Path(name).exists() and path.samefile(name):
            raise SettingError(setting, "a place where none of the inputs lies", str(path))
