"""The folder of a cache: one folder a dataset, which holds its shards and a description of what they are of; what there is, and what is pruned.

When something was used last is the time of its file. The description is for people: whether a shard fits is decided by its name and its bytes alone.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.cache.cache_names import PART, ShardName
from mlaas4hep.streaming.stream.quantities import parse_age, parse_size

__all__ = ["CacheFolder", "CachedDataset", "FileState", "Pruned", "file_state", "touch"]

MARKER = "CACHEDIR.TAG"
"""Says to us that the folder is ours, and to programs that make backups that it can be left out (bford.info/cachedir)."""

SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of mlaas4hep; see 'mlaas4hep cache --help'.\n"

DESCRIPTION = "dataset.json"

STALE_PART_SECONDS = 3600.0
"""Age at which a file that is being written is taken for one that a killed process left."""

USED_STEP_SECONDS = 600.0
"""How exactly the time of the last use is kept."""

FileState = tuple[int, int, int]
"""Number, size and time of a file."""

_DATASET = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class CachedDataset:
    """What a cache holds of one dataset, encoded in one way.

    Parameters
    ----------
    key : str
        Name of its folder.
    about : mapping
        What :meth:`CacheFolder.describe` was told; empty where that is lost. ``rules`` is all that the key stands for.
    shards, events, nbytes : int
        How much of it there is.
    created, last_used : float
        Seconds since 1970.
    """

    key: str
    about: Mapping[str, Any]
    shards: int
    events: int
    nbytes: int
    created: float
    last_used: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "key": self.key,
            **{name: value for name, value in self.about.items() if name != "rules"},
            "shards": self.shards,
            "events": self.events,
            "bytes": self.nbytes,
            "created": self.created,
            "last_used": self.last_used,
        }


@dataclass
class Pruned:
    """What was removed, or would be.

    Parameters
    ----------
    shards, leftovers, nbytes : int
        Shards; files that a killed process left half written; bytes of both.
    kept, kept_bytes : int
        Shards that are left, and their bytes.
    """

    shards: int = 0
    leftovers: int = 0
    nbytes: int = 0
    kept: int = 0
    kept_bytes: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return it as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class CacheFolder:
    """A folder that holds a cache.

    Parameters
    ----------
    path : Path
    """

    path: Path

    @classmethod
    def create(cls, path: str | Path) -> CacheFolder:
        """Return the cache in a folder, which is made where it is not there.

        Raises
        ------
        SettingError
            If the folder cannot be written to, or holds other things.
        """
        folder = Path(path).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not _is_ours(folder):
                if any(folder.iterdir()):
                    raise SettingError("cache", "a new or empty folder, or one that is a cache already", str(path))
                _replace(folder / MARKER, SIGNATURE)
            probe = folder / f"{os.getpid()}-{secrets.token_hex(4)}{PART}"
            probe.touch(exist_ok=False)
            probe.unlink()
        except OSError as error:
            reason = error.strerror or str(error)
            raise SettingError("cache", "a folder that can be written to", str(path), reason) from error
        return cls(folder)

    @classmethod
    def existing(cls, path: str | Path | None = None) -> CacheFolder:
        """Return the cache that is in a folder; where none is named, in the one that ``MLAAS4HEP_CACHE`` names.

        Raises
        ------
        SettingError
            If no folder is named, it is not there, or it is no cache.
        """
        named = path or os.environ.get("MLAAS4HEP_CACHE")
        if not named:
            raise SettingError("cache", "the folder of a cache, or in the environment variable MLAAS4HEP_CACHE", path)
        folder = Path(named).expanduser()
        if not _is_ours(folder):
            reason = f"it has no {MARKER} of mlaas4hep" if folder.is_dir() else "there is no such folder"
            raise SettingError("cache", "the folder of a cache", str(named), reason)
        return cls(folder)

    def shards(self, dataset: str) -> dict[str, ShardName]:
        """Return the shards of a dataset: key of the run → name."""
        found: dict[str, ShardName] = {}
        with suppress(FileNotFoundError), os.scandir(self.path / dataset) as entries:
            for entry in entries:
                name = ShardName.parse(entry.name)
                if name is not None:
                    found[name.key] = name
        return found

    def describe(self, dataset: str, about: Mapping[str, Any]) -> None:
        """Make the folder of a dataset and write into it what it is of, unless that stands there already.

        Parameters
        ----------
        dataset : str
        about : mapping
            Plain values for JSON; ``files`` holds a mapping with a ``uuid`` for each file.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        folder = self.path / dataset
        folder.mkdir(exist_ok=True)
        known = _read_description(folder)
        files = {file["uuid"]: file for file in (*known.get("files", ()), *about["files"])}
        if len(files) == len(known.get("files", ())):
            return
        created = known.get("created", time.time())
        text = json.dumps({**about, "files": list(files.values()), "created": created}, indent=1)
        _replace(folder / DESCRIPTION, text)

    def datasets(self) -> list[CachedDataset]:
        """Return what there is, that which was used last first."""
        found = [self._dataset(folder) for folder in self._folders()]
        return sorted(found, key=lambda dataset: (-dataset.last_used, dataset.key))

    def prune(
        self,
        *,
        older_than: str | float | None = None,
        max_size: str | int | None = None,
        everything: bool = False,
        dry_run: bool = False,
    ) -> Pruned:
        """Remove shards, those first that were not used for the longest time, and what killed processes left.

        A process that reads a shard meanwhile goes on reading it; one that looks for it later reads the file that it was made of.

        Parameters
        ----------
        older_than : str or float, optional
            Remove what was not used for so long: ``"30d"``, or seconds.
        max_size : str or int, optional
            Remove until no more is left than this: ``"20GB"``, or bytes.
        everything : bool
            Remove all shards.
        dry_run : bool
            Only say what would be removed.

        Raises
        ------
        SettingError
            If an age or size means nothing, or none of the three says what to remove.
        """
        if older_than is None and max_size is None and not everything:
            raise SettingError("prune", "told what to remove: --older-than, --max-size or --all", None)
        age = None if older_than is None else parse_age(older_than, "older-than")
        most = None if max_size is None else parse_size(max_size, "max-size")
        now = time.time()
        pruned = Pruned()
        shards: list[tuple[float, int, Path]] = []
        for folder in (self.path, *self._folders()):
            for entry in _files(folder):
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    if entry.name.endswith(PART):
                        if now - status.st_mtime > STALE_PART_SECONDS:
                            pruned.leftovers += 1
                            pruned.nbytes += status.st_size
                            _remove(Path(entry.path), dry_run)
                    elif folder != self.path and ShardName.parse(entry.name) is not None:
                        shards.append((status.st_mtime, status.st_size, Path(entry.path)))
        left = sum(size for _, size, _ in shards)
        for last_used, size, path in sorted(shards):
            too_old = age is not None and now - last_used > age
            too_much = most is not None and left > most
            if everything or too_old or too_much:
                pruned.shards += 1
                pruned.nbytes += size
                left -= size
                _remove(path, dry_run)
            else:
                pruned.kept += 1
                pruned.kept_bytes += size
        if not dry_run:
            for folder in self._folders():
                _remove_if_empty(folder)
        return pruned

    def _folders(self) -> Iterator[Path]:
        with os.scandir(self.path) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if _DATASET.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            )
        return (self.path / name for name in names)

    def _dataset(self, folder: Path) -> CachedDataset:
        shards = events = nbytes = 0
        last_used = 0.0
        for entry in _files(folder):
            name = ShardName.parse(entry.name)
            with suppress(FileNotFoundError):
                if name is not None:
                    status = entry.stat()
                    shards, events, nbytes = shards + 1, events + name.events, nbytes + status.st_size
                    last_used = max(last_used, status.st_mtime)
        about = _read_description(folder)
        created = float(about.pop("created", last_used))
        return CachedDataset(folder.name, about, shards, events, nbytes, created, last_used or created)


def file_state(path: Path) -> FileState:
    """Return what tells that a file was neither replaced nor changed."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def touch(path: Path) -> FileState:
    """Note that a file was used now, unless that was noted some moments ago; return its state after that."""
    if time.time() - path.stat().st_mtime > USED_STEP_SECONDS:
        with suppress(OSError):  # a cache of another user may be read
            os.utime(path)
    return file_state(path)


def _is_ours(folder: Path) -> bool:
    try:
        return (folder / MARKER).read_text(errors="replace") == SIGNATURE
    except OSError:
        return False


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                yield entry


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / DESCRIPTION).read_text())
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) and isinstance(about.get("files"), list) else {}


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}-{os.getpid()}-{secrets.token_hex(4)}{PART}")
    try:
        part.write_text(text)
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _remove(path: Path, dry_run: bool) -> None:
    if not dry_run:
        path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder of a dataset that holds nothing but its description."""
    if all(entry.name == DESCRIPTION for entry in _files(folder)):
        with suppress(OSError):
            (folder / DESCRIPTION).unlink(missing_ok=True)
            folder.rmdir()
