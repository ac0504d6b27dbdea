"""Which luminosity sections of data are certified as good: the JSON files that experiments publish.

``{"273158": [[1, 1279]], "273302": [[1, 459], [461, 500]]}`` names for each run the ranges of luminosity sections whose data may be used, both ends
included.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import SourceError

__all__ = ["LumiMask"]

LARGEST = 2**32 - 1
MAX_BYTES = 64 * 2**20
"""A certification file has some kilobytes; more than this, unpacked, is something else."""


@dataclass(frozen=True)
class LumiMask:
    """Luminosity sections that may be used.

    Parameters
    ----------
    ranges : tuple of (int, int, int)
        Run, first and last luminosity section; rising, and none touches another. :meth:`of` makes them so.

    Examples
    --------
    >>> mask = LumiMask.of({"273158": [[1, 5], [4, 9]]})
    >>> mask.accepts(np.array([273158, 273158, 273159]), np.array([9, 10, 1])).tolist()
    [True, False, False]
    """

    ranges: tuple[tuple[int, int, int], ...]

    @classmethod
    def read(cls, path: str | Path) -> LumiMask:
        """Read a certification file; it may be compressed with gzip.

        Raises
        ------
        SourceError
            If it cannot be read, is no JSON of runs and ranges, or a run stands in it twice; the message names the place.
        """
        name = str(path)
        try:
            with Path(path).open("rb") as file:
                packed = file.read(2) == b"\x1f\x8b"
                file.seek(0)
                content = (gzip.GzipFile(fileobj=file) if packed else file).read(MAX_BYTES + 1)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise SourceError(name, f"cannot be read as a certification file: {error}") from error
        if len(content) > MAX_BYTES:
            raise SourceError(name, f"is no certification file: it has more than {MAX_BYTES >> 20} MiB")
        try:
            runs = json.loads(content, object_pairs_hook=lambda pairs: _each_run_once(pairs, name))
        except (ValueError, RecursionError) as error:
            raise SourceError(name, f"is no JSON: {error}") from error
        return cls.of(runs, name)

    @classmethod
    def of(cls, runs: Mapping[str, Any], name: str = "lumi_mask") -> LumiMask:
        """Make it from runs and their ranges; ranges that overlap or follow each other are joined.

        Parameters
        ----------
        runs : mapping of str to list of [int, int]
            Run number → first and last luminosity section of each range.
        name : str
            Of the file, for the messages.

        Raises
        ------
        SourceError
            If a run is no number, or a range is not two whole numbers that rise.
        """
        if not isinstance(runs, Mapping):
            raise SourceError(name, 'must hold {"run": [[first, last], …], …}')
        found: list[tuple[int, int, int]] = []
        for key, ranges in runs.items():
            digits = isinstance(key, str) and key.isascii() and key.isdigit() and len(key) <= 10
            run = int(key) if digits else -1
            if not 0 <= run <= LARGEST:
                raise SourceError(name, f"run {key!r} is no run number")
            if not isinstance(ranges, list | tuple):
                raise SourceError(name, f"run {key}: must have a list of ranges [first, last]; got {ranges!r:.80}")
            for place, pair in enumerate(ranges, 1):
                if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(_section(value) for value in pair)):
                    raise SourceError(
                        name, f"run {key}, range {place}: must be two whole numbers [first, last]; got {pair!r:.80}"
                    )
                if pair[0] > pair[1]:
                    raise SourceError(name, f"run {key}, range {place}: {list(pair)} ends before it begins")
                found.append((run, *pair))
        return cls(tuple(_joined(sorted(found))))

    def accepts(self, run: npt.NDArray[Any], luminosity_block: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which events may be used.

        Parameters
        ----------
        run, luminosity_block : arrays of shape ``[n]``
            Whole numbers of any type; what is none, as NaN, is never accepted.

        Returns
        -------
        bool array of shape ``[n]``
        """
        first, last = self._bounds
        runs, known_runs = _as_uint64(run)
        sections, known_sections = _as_uint64(luminosity_block)
        keys = (runs << np.uint64(32)) | sections
        place = np.searchsorted(first, keys, side="right")
        # `last` has one bound before the first range, that nothing reaches.
        return np.asarray((place > 0) & (keys <= last[place]) & known_runs & known_sections)

    def to_dict(self) -> dict[str, list[list[int]]]:
        """Return it in the form of the files, with the runs by number and nothing that could be joined; :meth:`of` takes it back."""
        runs: dict[str, list[list[int]]] = {}
        for run, first, last in self.ranges:
            runs.setdefault(str(run), []).append([first, last])
        return runs

    from_dict = of

    @cached_property
    def _bounds(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """First keys of the ranges, and last ones with a 0 before them; a key is the run in the upper and the section in the lower 32 bits."""
        ranges = np.array(self.ranges, np.uint64).reshape(-1, 3)
        runs = ranges[:, 0] << np.uint64(32)
        return runs | ranges[:, 1], np.concatenate([np.zeros(1, np.uint64), runs | ranges[:, 2]])


def _each_run_once(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    runs: dict[str, Any] = {}
    for key, value in pairs:
        if key in runs:
            raise SourceError(name, f"run {key!r:.80} stands in it twice")
        runs[key] = value
    return runs


def _section(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _joined(ranges: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    joined: list[tuple[int, int, int]] = []
    for run, first, last in ranges:
        if joined and joined[-1][0] == run and first <= joined[-1][2] + 1:
            joined[-1] = (run, joined[-1][1], max(last, joined[-1][2]))
        else:
            joined.append((run, first, last))
    return joined


def _as_uint64(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Return the values as 32-bit numbers in 64 bits, and which of them are such numbers."""
    with np.errstate(invalid="ignore"):
        known = np.asarray((values >= 0) & (values <= LARGEST))
        if values.dtype.kind == "f":
            known &= np.floor(values) == values
    return np.where(known, values, 0).astype(np.uint64), known
