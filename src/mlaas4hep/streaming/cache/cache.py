"""A cache of encoded events: what was read and encoded once is mapped into memory from then on, and gives the same batches to the bit.

It stands between an epoch and what supplies its runs. A run whose shard is there is mapped; the others are read, encoded, written as shards and
handed on. The cache never decides what is delivered: a shard that is missing, damaged or cannot be written costs time only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mlaas4hep.streaming.access.losses import LossReport
from mlaas4hep.streaming.cache.cache_folder import CacheFolder, FileState, file_state, touch
from mlaas4hep.streaming.cache.cache_keys import describe_rules, digest, run_key
from mlaas4hep.streaming.cache.cache_names import ShardName
from mlaas4hep.streaming.cache.cache_shards import (
    DamagedShardError,
    ShardFormat,
    is_mapped,
    map_shard,
    read_shard,
    write_shard,
)
from mlaas4hep.streaming.catalog import Catalog, Run
from mlaas4hep.streaming.stream.encoded import EncodedEvents, EncodedRun, encode_run
from mlaas4hep.streaming.stream.prepared import EventRules, PreparedRun
from mlaas4hep.streaming.stream.stream_settings import StreamSettings
from mlaas4hep.streaming.stream.supply import Following, InThisProcess, Supply
from mlaas4hep.streaming.stream.timing import EpochReport, count_bytes, stage

__all__ = ["CachedSupply"]

LARGEST_RUN = 512 * 2**20
"""Bytes of encoded values up to which a run is cached: all of them are in memory at a time while a shard is written."""

MOST_MAPPED = 16 * 2**30
MOST_MAPPINGS = 16_384
"""Bytes and number of the shards that stay mapped from one epoch to the next, since mapping them again costs a fifth of an epoch. They are no memory
of the process's own, but their page tables are (0.2 %), and a process may have only so many mappings."""

_log = logging.getLogger(__name__)


_compared: dict[Path, FileState] = {}
"""Shards that this process has compared with their checksums, and the state of their files after that: not every stream has to compare them again."""


class CachedSupply:
    """Gives runs from a cache, and those that it lacks from another supply, whose runs it then holds.

    It is a :class:`~mlaas4hep.streaming.stream.supply.Supply` itself.

    Parameters
    ----------
    inner : Supply
        Asked for the runs that are missing, in their order.
    cache : str or Path
        Folder of the cache; made where it is not there.
    catalog : Catalog
    rules : EventRules
    settings : StreamSettings

    Raises
    ------
    SettingError
        If the folder cannot be written to, or holds other things.
    """

    def __init__(
        self, inner: Supply, cache: str | Path, catalog: Catalog, rules: EventRules, settings: StreamSettings
    ) -> None:
        self._inner = inner
        self._catalog = catalog
        self._rules = rules
        self._settings = settings
        self._folder = CacheFolder.create(cache)
        self._what = describe_rules(catalog, rules, settings)
        self._dataset = digest(self._what)
        labels, identity = rules.labels, rules.identity
        self._format = ShardFormat(rules.encoding.width, labels.dtype, labels.shape, identity.dtype)
        self._keys: dict[Run, str] = {}
        self._mappings: dict[ShardName, Any] = {}
        self._mapped_bytes = 0
        self._described = False
        self._writing = True
        self._some_too_large = False

    @contextmanager
    def runs(self, runs: Iterable[Run], losses: LossReport, report: EpochReport) -> Iterator[Following]:
        """See :class:`~mlaas4hep.streaming.stream.supply.Supply`."""
        wanted = list(runs)
        shards = self._folder.shards(self._dataset)
        found = {run: shards[key] for run in wanted if (key := self._key(run)) in shards}
        missing = [run for run in wanted if run not in found]
        # What was pruned takes room on the disk for as long as it is mapped.
        for name in self._mappings.keys() - shards.values():
            self._forget(name)
        order = iter(wanted)
        with ExitStack() as until_the_end:
            others = until_the_end.enter_context(self._inner.runs(missing, losses, report)) if missing else None

            def following() -> PreparedRun | None:
                run = next(order)
                if run not in found:
                    assert others is not None  # there is a run that is missing  # noqa: S101
                    return self._kept(run, others(), losses)
                mapped = self._mapped(run, found[run])
                if mapped is None:
                    with InThisProcess(self._catalog, self._rules, self._settings).runs([run], losses, report) as again:
                        return self._kept(run, again(), losses)
                return mapped if len(mapped.events.x) else None

            yield following

    def _key(self, run: Run) -> str:
        if run not in self._keys:
            self._keys[run] = run_key(self._catalog, self._rules, run)
        return self._keys[run]

    def _mapped(self, run: Run, name: ShardName) -> EncodedRun | None:
        """Return the events of a shard; None if they cannot be had."""
        path = self._folder.path / self._dataset / str(name)
        try:
            with stage("fetch"):
                same = file_state(path) == _compared.get(path)
                buffer = self._mappings.get(name) if same else None
                if buffer is None:
                    buffer = map_shard(path, name, verify=not same)
                encoded = read_shard(buffer, name, run, self._format)
                count_bytes("from_cache", encoded.events.x.nbytes)
                _compared[path] = touch(path)
                self._keep(name, buffer)
        except FileNotFoundError:  # pruned since the epoch began
            return None
        except (OSError, DamagedShardError) as error:
            file = self._catalog.files[run.file].path
            _log.warning(
                "cache %s: shard %s cannot be used: %s; entries %d–%d of %s are read again",
                *(self._folder.path, name, error, run.start, run.stop - 1, file),
            )
            return None
        return encoded

    def _keep(self, name: ShardName, buffer: Any) -> None:
        """Leave a shard mapped where there are not too many."""
        self._forget(name)
        if (
            is_mapped(buffer)
            and len(self._mappings) < MOST_MAPPINGS
            and self._mapped_bytes + buffer.size <= MOST_MAPPED
        ):
            self._mappings[name] = buffer
            self._mapped_bytes += buffer.size

    def _forget(self, name: ShardName) -> None:
        buffer = self._mappings.pop(name, None)
        self._mapped_bytes -= 0 if buffer is None else buffer.size

    def __getstate__(self) -> dict[str, Any]:
        # Another process maps for itself.
        return {**self.__dict__, "_mappings": {}, "_mapped_bytes": 0}

    def _kept(self, run: Run, prepared: PreparedRun | None, losses: LossReport) -> PreparedRun | None:
        """Return a run that was read, after it has been written as a shard if that can be done."""
        if not self._writing or (prepared is None and self._is_lost(run, losses)):
            return prepared
        with stage("write_cache"):
            encoded = self._encoded(run, prepared)
            name = None if encoded is None else self._written(run, encoded)
        if name is None:
            return prepared
        # What was just written is mapped, so that neither its columns nor its vectors have to stay in memory.
        return prepared if prepared is None else self._mapped(run, name) or prepared

    def _is_lost(self, run: Run, losses: LossReport) -> bool:
        file = self._catalog.files[run.file].path
        return any((loss.file, loss.start, loss.stop) == (file, run.start, run.stop) for loss in losses)

    def _encoded(self, run: Run, prepared: PreparedRun | None) -> EncodedRun | None:
        """Return the events of a run encoded; None if they are too many to be in memory at a time."""
        if isinstance(prepared, EncodedRun):
            return prepared
        if prepared is None:
            return _nothing(run, self._format)
        taken = run.events if prepared.chosen is None else int(np.count_nonzero(prepared.chosen))
        width = self._format.width
        if taken * width * 4 > LARGEST_RUN:
            if not self._some_too_large:
                _log.warning(
                    "cache %s: runs of %d events of %d values, more than %d MiB, are not cached; choose a smaller run_bytes than %d",
                    *(self._folder.path, taken, width, LARGEST_RUN >> 20, self._settings.run_bytes),
                )
            self._some_too_large = True
            return None
        return encode_run(prepared, np.empty((taken, width), np.float32))

    def _written(self, run: Run, encoded: EncodedRun) -> ShardName | None:
        """Write a shard; None if it cannot be written, after which no further one is tried."""
        about = {"dataset": self._dataset, "uuid": self._catalog.files[run.file].uuid, "entries": [run.start, run.stop]}
        folder = self._folder.path / self._dataset
        try:
            if not self._described or not folder.is_dir():
                self._folder.describe(self._dataset, self._about())
                self._described = True
            return write_shard(folder, self._key(run), encoded, self._format, about)
        except OSError as error:
            self._writing = False
            _log.warning(
                "cache %s: a shard of %.1f MB cannot be written: %s; what is missing there is read from the files in every epoch",
                *(self._folder.path, encoded.events.x.nbytes / 1e6, error.strerror or error),
            )
            return None

    def _about(self) -> dict[str, Any]:
        """Return what a person wants to know of the dataset."""
        files = [
            {"path": file.path, "uuid": file.uuid, "entries": file.entries, "size": file.size}
            for file in self._catalog.files
        ]
        return {
            "fold": self._settings.fold,
            "features": list(self._rules.encoding.branches),
            "width": self._format.width,
            "files": files,
            "rules": self._what,
        }


def _nothing(run: Run, form: ShardFormat) -> EncodedRun:
    """Return a run of which no event is taken."""
    events = EncodedEvents(
        np.empty((0, form.width), np.float32),
        np.empty((0, *form.y_shape), form.y_dtype),
        np.empty(0, np.float32),
        np.empty(0, form.id_dtype),
    )
    return EncodedRun(run, np.zeros(run.events, np.bool_), events)
