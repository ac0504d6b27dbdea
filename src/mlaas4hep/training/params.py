"""How a model is trained: the settings, which of them are the stream's, and which the framework's."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from mlaas4hep.settings import choice, flag, integer, number, setting, text

__all__ = ["TrainingParams"]


@dataclass(frozen=True)
class TrainingParams:
    """How a model is trained."""

    epochs: int = setting(integer(1), 20, "passes over the training events at most")
    batch_size: int = setting(integer(1), 256, "events of one step")
    patience: int = setting(integer(1), 4, "epochs without a smaller validation loss after which the training stops")
    shuffle: bool = setting(flag(), True, "whether training events come in random order, another one each epoch")
    seed: int = setting(integer(0), 0, "what all random numbers follow from")
    mixing: str = setting(
        choice("proportional", "balanced"), "proportional", "classes as they are, or as many events of each"
    )
    workers: int = setting(integer(0), 0, "processes that read events beside this one")
    cache: str | None = setting(
        text(), None, "folder that keeps encoded events for later epochs", example="cache", path=True
    )
    checkpoint_every: float = setting(number(0), 60.0, "seconds of learning that are lost at most when it is killed")
    precision: str = setting(
        choice("32", "16-mixed", "bf16-mixed"), "32", "what matrix products are computed in; half precision is for GPUs"
    )
    clip: float = setting(number(0), 0.0, "largest norm of the gradient; 0 for no limit")
    compile: bool = setting(flag(), False, "whether torch compiles the model before the training")
    find_learning_rate: bool = setting(flag(), False, "whether to search a learning rate first")

    def of_stream(self) -> dict[str, Any]:
        """Return the settings of the stream that is learned from."""
        return {**self.of_reading(), **{name: getattr(self, name) for name in ("batch_size", "shuffle", "mixing")}}

    def of_reading(self) -> dict[str, Any]:
        """Return the settings that say how events are read, whatever for."""
        return {name: getattr(self, name) for name in ("seed", "workers", "cache")}

    def of_fit(self, known: type) -> dict[str, Any]:
        """Return the settings that a framework takes, which are those of its own group ``known``."""
        taken = {item.name for item in fields(known)}
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name in taken}
