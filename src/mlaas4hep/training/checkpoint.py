"""Checkpoints on disk: each is whole or not there, and a damaged one is told from a good one.

The state of a run is plain values and tensors, written by ``torch.save`` and read without unpickling anything else. A
new one is written beside the last, which stays as ``previous.ckpt``: whenever the process or the disk fails, one that
is whole remains. The file is a zip archive, whose checksums are compared before anything of it is used.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mlaas4hep.atomic import write_atomically
from mlaas4hep.errors import TrainingError

__all__ = ["BEST", "LAST", "PREVIOUS", "Checkpoints", "refuse_another_run"]

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
FORMAT = "mlaas4hep-training/1"


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Parameters
    ----------
    folder : Path
        Made when the first one is written.

    Examples
    --------
    >>> import tempfile
    >>> kept = Checkpoints(Path(tempfile.mkdtemp()) / "run")
    >>> kept.read() is None
    True
    >>> kept.write({"epoch": 3}, "epoch 3")
    >>> kept.read()
    {'epoch': 3}
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        """What was wrong with checkpoints that :meth:`read` did not use, a line each."""

    def write(self, state: Mapping[str, Any], where: str) -> None:
        """Write the state of the run as ``last.ckpt``; the one before becomes ``previous.ckpt``.

        Parameters
        ----------
        state : mapping
            Plain values, tensors, lists and mappings of them.
        where : str
            How far the run is, in words, for messages.

        Raises
        ------
        TrainingError
            If it cannot be written; the last one is as it was.
        """
        last = self.folder / LAST
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if last.exists():
                self._keep_previous(last)
            write_atomically(last, _to_bytes({"format": FORMAT, "where": where, "state": dict(state)}))
        except OSError as error:
            kept = "the one before is whole, --resume goes on from it" if last.exists() else "there is none before it"
            raise TrainingError(
                f"the checkpoint of {where} cannot be written to {last}: {error.strerror or error}; {kept}"
            ) from error

    def write_best(self, weights: Mapping[str, Any], epoch: int) -> None:
        """Write the weights of the best epoch as ``best.ckpt``: ``{"state_dict", "epoch"}``.

        Raises
        ------
        TrainingError
            If it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / BEST, _to_bytes({"state_dict": dict(weights), "epoch": epoch}))
        except OSError as error:
            raise TrainingError(
                f"the weights of epoch {epoch} cannot be written to {self.folder / BEST}: {error.strerror or error}"
            ) from error

    def forget_previous(self) -> None:
        """Remove ``previous.ckpt``, as when a run is over."""
        with contextlib.suppress(OSError):
            (self.folder / PREVIOUS).unlink(missing_ok=True)

    def read(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, or None where there is no checkpoint.

        Raises
        ------
        TrainingError
            If there are checkpoints and none of them is whole.
        """
        damaged = []
        for name in (LAST, PREVIOUS):
            path = self.folder / name
            try:
                state = _from_file(path)
            except FileNotFoundError:
                continue
            except ValueError as error:
                damaged.append(f"{path} is damaged: {error}")
                continue
            self.warnings += [f"{line}; {name} is used instead" for line in damaged]
            return state
        if damaged:
            raise TrainingError(f"{'; '.join(damaged)}; without --resume the training begins anew")
        return None

    def _keep_previous(self, last: Path) -> None:
        """Let ``previous.ckpt`` be another name of ``last.ckpt``, which is never missing meanwhile."""
        other = self.folder / f".{PREVIOUS}"
        other.unlink(missing_ok=True)
        try:
            os.link(last, other)
        except OSError:  # a file system without hard links
            last.replace(self.folder / PREVIOUS)
        else:
            other.replace(self.folder / PREVIOUS)
            other.unlink(missing_ok=True)  # where both were the same file already, replace leaves this name


def refuse_another_run(path: Path, kept: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise TrainingError if a checkpoint is of other files, settings or another model than this run.

    Parameters
    ----------
    path : Path
        The checkpoint.
    kept, now : mapping
        What the results follow from, name by name: as the checkpoint says, and of this run.

    Examples
    --------
    >>> refuse_another_run(Path("last.ckpt"), {"seed": 1}, {"seed": 2})
    Traceback (most recent call last):
        ...
    mlaas4hep.errors.TrainingError: last.ckpt is of another run: seed was 1 and is 2 now; without --resume the training begins anew
    """
    for name in dict.fromkeys((*kept, *now)):
        was, is_now = kept.get(name), now.get(name)
        if was != is_now:
            if isinstance(was, list) and isinstance(is_now, list):
                was, is_now = next((pair for pair in zip_longest(was, is_now) if pair[0] != pair[1]), (was, is_now))
            shown = f"{name} was {_short(was)} and is {_short(is_now)} now"
            raise TrainingError(f"{path} is of another run: {shown}; without --resume the training begins anew")


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else text[:77] + "…"


def _to_bytes(content: Mapping[str, Any]) -> bytes:
    import torch

    memory = io.BytesIO()
    torch.save(content, memory)
    return memory.getvalue()


def _from_file(path: Path) -> dict[str, Any]:
    """Return a checkpoint's state; ValueError says what is wrong with the file."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            if broken is not None:
                raise ValueError(f"the checksum of '{broken}' does not match")
    except FileNotFoundError:
        raise
    except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, OverflowError) as error:
        raise ValueError(str(error)) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load names no base class of its errors
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"it cannot be read ({first[0]})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("state"), dict):
        raise ValueError(f"it is not of format {FORMAT}")
    state: dict[str, Any] = content["state"]
    return state
