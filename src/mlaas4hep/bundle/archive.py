"""Read and write a bundle as a tar archive, trusting nothing that is read.

An archive may come from anybody, so each member is judged before a byte of it is written: regular files and folders below one top folder, nothing
else, and nothing that another file system would take for the same file. Writing gives the same bytes for the same folder, whenever and by whomever.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from mlaas4hep.bundle.tar import ArchiveLimits, Member, TarStream, members
from mlaas4hep.errors import ArchiveError, ArchiveTooLargeError

__all__ = ["ArchiveLimits", "pack", "unpack"]

MAX_DEPTH, MAX_COMPONENT = 32, 255

REFUSED_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a fifo",
    b"K": "a link with a long target",
    b"S": "a sparse file",
}


def _parts(name: str) -> tuple[str, ...]:
    """Return the parts of a member's path, none for the root itself; refuse what could leave the folder."""
    shown = repr(name[:120])
    if name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        raise ArchiveError(f"member {shown} has an absolute path")
    if any(unicodedata.category(letter)[0] == "C" for letter in name) or "\\" in name:
        raise ArchiveError(f"member {shown} has a control character or a backslash in its name")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise ArchiveError(f"member {shown} points outside the folder with '..'")
    if len(parts) > MAX_DEPTH or any(len(os.fsencode(part)) > MAX_COMPONENT for part in parts):
        raise ArchiveError(f"member {shown} has a path that is too long or too deep")
    return parts


class _Paths:
    """The paths seen so far, compared as a file system that ignores case and composition of letters would."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, bool]] = {}

    def add(self, parts: Sequence[str], *, folder: bool) -> None:
        """Note a path and the folders above it; the same folder may come again, nothing else may."""
        for depth in range(1, len(parts) + 1):
            path, is_folder = "/".join(parts[:depth]), folder or depth < len(parts)
            key = unicodedata.normalize("NFC", path).casefold()
            if key not in self._seen:
                self._seen[key] = path, is_folder
                continue
            known, was_folder = self._seen[key]
            if known != path:
                raise ArchiveError(f"members '{known}' and '{path}' differ only in the case or composition of letters")
            if was_folder != is_folder:
                raise ArchiveError(f"member '{path}' is there as a file and as a folder")
            if not is_folder:
                raise ArchiveError(f"member '{path}' is there twice")


def unpack(
    archive: Path | BinaryIO,
    folder: Path,
    *,
    limits: ArchiveLimits | None = None,
    required: Sequence[str] = ("params.json",),
) -> Path:
    """Unpack a tar or gzip'd tar that holds one folder.

    Parameters
    ----------
    archive : path or binary file
        Read forward only; whether it is compressed is seen from its first bytes.
    folder : path
        An existing folder, which gets the archive's top folder as its only new entry.
    limits : ArchiveLimits, optional
        How much the archive may hold.
    required : sequence of str
        Files that must be there, relative to the top folder.

    Returns
    -------
    path
        The unpacked top folder.

    Raises
    ------
    ArchiveError
        If anything in it is not accepted, or cannot be written; nothing is left behind then.

    Notes
    -----
    Modes, owners and times of the archive are not taken over. The companions that macOS adds (``._name``, ``.DS_Store``) are passed over.
    """
    limits = limits or ArchiveLimits()
    written: list[Path] = []
    try:
        if isinstance(archive, Path):
            with archive.open("rb") as file:
                return _unpack(file, folder, limits, required, written)
        return _unpack(archive, folder, limits, required, written)
    except BaseException as error:
        for top in written:
            shutil.rmtree(top, ignore_errors=True)
        if isinstance(error, OSError):
            raise ArchiveError(f"the archive cannot be unpacked: {error.strerror or error}") from error
        raise


def _unpack(file: BinaryIO, folder: Path, limits: ArchiveLimits, required: Sequence[str], written: list[Path]) -> Path:
    tar, paths = TarStream(file, limits), _Paths()
    for member in members(tar, limits.members):
        parts = _parts(member.name)
        _judge(member, limits)
        if not parts or parts[-1].startswith("._") or parts[-1] == ".DS_Store" or parts[0] == "__MACOSX":
            for _ in tar.chunks(member.size):
                pass
            continue
        is_folder = member.kind == b"5"
        if not is_folder and len(parts) == 1:
            raise ArchiveError(
                f"file '{member.name}' is not inside a top folder; make the archive with: tar -czf NAME.tar.gz NAME"
            )
        paths.add(parts, folder=is_folder)
        if written and parts[0] != written[0].name:
            raise ArchiveError(
                f"the archive has two top folders, '{written[0].name}' and '{parts[0]}'; it must have one"
            )
        if not written:
            (folder / parts[0]).mkdir()
            written.append(folder / parts[0])
        target = folder.joinpath(*parts)
        (target if is_folder else target.parent).mkdir(parents=True, exist_ok=True)
        if is_folder:
            for _ in tar.chunks(member.size):
                pass
        else:
            with target.open("xb") as output:
                output.writelines(tar.chunks(member.size))
    if not written:
        raise ArchiveError("the archive is empty")
    for name in required:
        if not written[0].joinpath(name).is_file():
            raise ArchiveError(f"the archive has no '{written[0].name}/{name}'")
    return written[0]


def _judge(member: Member, limits: ArchiveLimits) -> None:
    """Refuse a member for what its header says of its kind, mode and size."""
    name = member.name
    if member.kind not in (b"0", b"5"):
        kind = REFUSED_KINDS.get(member.kind, "of an unknown kind")
        raise ArchiveError(f"member '{name}' is {kind}; only files and folders are accepted")
    # Set-group-id is ordinary on shared folders and means nothing here; on a file, or set-user-id anywhere, it is an attempt.
    if member.mode & (0o4000 if member.kind == b"5" else 0o6000):
        raise ArchiveError(f"member '{name}' has a set-uid or set-gid bit")
    if not 0 <= member.size <= limits.inflated_bytes:
        raise ArchiveTooLargeError(
            f"member '{name}' has {member.size} bytes; at most {limits.inflated_bytes} are accepted"
        )


def pack(folder: Path, archive: Path, *, top: str | None = None) -> Path:
    """Write a folder as a tar.gz, the same bytes for the same files.

    Parameters
    ----------
    folder : path
        What to pack; regular files and folders only.
    archive : path
        Written beside itself first and then renamed, so that it is never there in part.
    top : str, optional
        Name of the top folder inside the archive; the folder's own by default.

    Returns
    -------
    path
        ``archive``.

    Raises
    ------
    ArchiveError
        If the folder holds anything else, such as a link, or the archive cannot be written.
    """
    top = top or folder.resolve().name
    temporary = archive.with_name(f".{archive.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as raw:
            # Neither a time nor a file name goes into the gzip header, and owners, times and modes are always the same.
            with (
                gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as packed,
                tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
            ):
                _add(tar, folder, top)
            raw.flush()
            os.fsync(raw.fileno())
        temporary.replace(archive)
    except OSError as error:
        raise ArchiveError(f"{archive} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return archive


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    header = tarfile.TarInfo(name)
    if path.is_symlink() or not (path.is_dir() or path.is_file()):
        raise ArchiveError(f"{path} is neither a file nor a folder; only those are packed")
    if path.is_dir():
        header.type, header.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(header)
        for child in sorted(path.iterdir(), key=lambda child: child.name):
            _add(tar, child, f"{name}/{child.name}")
    else:
        with path.open("rb") as file:
            header.size, header.mode = os.fstat(file.fileno()).st_size, 0o644
            tar.addfile(header, file)
