"""How a dataset is streamed: the settings, and what they must be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.splitting import FOLDS, Fold
from mlaas4hep.streaming.stream.prepared import WeightKind
from mlaas4hep.streaming.stream.quantities import parse_size

__all__ = ["Mixing", "StreamSettings"]

Mixing = Literal["proportional", "balanced"]


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """How a dataset is streamed.

    Parameters
    ----------
    fold : {"train", "validation", "test"} or None
        Which events; None for all.
    batch_size : int
        Events of a batch; the last one of an epoch may be smaller.
    shuffle : bool
        Whether the order is random; else it is the files' order and the entries'.
    seed : int
        What the order follows from.
    drop_last : bool
        Whether a last, smaller batch is left out.
    pool_bytes : int
        Size of the block of encoded events within which events are shuffled. About three such blocks are in memory at a time.
    run_bytes : int
        Uncompressed bytes that are read at a time.
    rank, world_size : int
        Deliver only this share of the runs of clusters: those of all ranks together are the whole, each event once.
    workers : int
        Processes that read and encode; 0 for none beside this one. The batches are the same to the bit.
    mixing : {"proportional", "balanced"}
        Whether every pool holds the classes in their proportion, each event once; or as many events of each class, those of the smaller ones
        several times.
    weights : {"training", "signed"}
        Weights to learn from, or those of physics with their signs, which metrics use.
    memory : str or int, optional
        What all processes together may have in memory, without mapped files: ``"2GB"``. Less is read and shuffled at a time where it is needed, which
        is another order of events.
    cache : str or Path, optional
        Folder in which encoded events are kept for later epochs, streams and processes. The batches are the same to the bit.
    """

    fold: Fold | None = None
    batch_size: int = 512
    shuffle: bool = True
    seed: int = 0
    drop_last: bool = False
    pool_bytes: int = 32 * 2**20
    run_bytes: int = 12 * 2**20
    rank: int = 0
    world_size: int = 1
    workers: int = 0
    mixing: Mixing = "proportional"
    weights: WeightKind = "training"
    memory: str | int | None = None
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        if self.fold is not None and self.fold not in FOLDS:
            raise SettingError("fold", f"one of {', '.join(FOLDS)}, or None for all events", self.fold)
        for name in ("batch_size", "pool_bytes", "run_bytes", "world_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingError(name, "an integer ≥ 1", value)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise SettingError("seed", "an integer ≥ 0", self.seed)
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or not 0 <= self.rank < self.world_size:
            raise SettingError("rank", f"an integer from 0 to {self.world_size - 1}", self.rank)
        if isinstance(self.workers, bool) or not isinstance(self.workers, int) or self.workers < 0:
            raise SettingError("workers", "an integer ≥ 0", self.workers)
        if self.memory is not None:
            parse_size(self.memory, "memory")
        if self.cache is not None and (not isinstance(self.cache, str | Path) or not str(self.cache)):
            raise SettingError("cache", "the name of a folder, or None", self.cache)
        for name, known in (("mixing", get_args(Mixing)), ("weights", get_args(WeightKind))):
            if getattr(self, name) not in known:
                raise SettingError(name, " or ".join(f"'{value}'" for value in known), getattr(self, name))
