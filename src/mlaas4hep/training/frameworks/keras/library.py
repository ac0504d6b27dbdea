"""Keras itself, on its backend."""

from __future__ import annotations

from mlaas4hep.errors import MissingExtraError
from mlaas4hep.training.frameworks.keras.backend import choose_backend

choose_backend()
try:
    import keras
except ModuleNotFoundError as error:
    if error.name != "keras":
        raise
    raise MissingExtraError("Keras", "keras") from error

__all__ = ["keras"]
