"""Models for people who bring none; each is a file as a user would write it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

__all__ = ["BUILT_IN", "built_in_model"]

BUILT_IN = {
    "pytorch": "mlaas4hep.training.models.pytorch_example",
    "autoencoder": "mlaas4hep.training.models.autoencoder",
}
"""Name → module with a function ``model(idim)``."""


def built_in_model(name: str) -> Callable[..., Any]:
    """Return the ``model`` function of a built-in model; ``name`` is one of :data:`BUILT_IN`."""
    function: Callable[..., Any] = importlib.import_module(BUILT_IN[name]).model
    return function
