"""Models for people who bring none; each is a file as a user would write it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlaas4hep.training.models import settings

__all__ = ["BUILT_IN", "BuiltIn", "built_in_model"]

HERE = "mlaas4hep.training.models"


@dataclass(frozen=True)
class BuiltIn:
    """What there is to know of a built-in model before it is loaded.

    Parameters
    ----------
    module : str
        Path of the module with its function ``model``.
    settings : type
        Group of its settings.
    says : str
        One line for people.
    objects : bool
        Whether it needs the layout ``objects``.
    """

    module: str
    settings: type
    says: str
    objects: bool = False


BUILT_IN = {
    "mlp": BuiltIn(f"{HERE}.mlp", settings.MLP, "dense layers"),
    "deep_sets": BuiltIn(f"{HERE}.deep_sets", settings.DeepSets, "sums over objects", objects=True),
    "transformer": BuiltIn(f"{HERE}.transformer", settings.Transformer, "attention between objects", objects=True),
    "trees": BuiltIn(f"{HERE}.trees", settings.Trees, "boosted trees, of XGBoost"),
    "parametrised": BuiltIn(f"{HERE}.parametrised", settings.Parametrised, "dense layers, with a mass or the like"),
    "autoencoder": BuiltIn(f"{HERE}.autoencoder", settings.Autoencoder, "anomaly detection, without labels"),
    "keras": BuiltIn(f"{HERE}.keras_example", settings.NoSettings, "the example of workflow.py --test=keras"),
    "pytorch": BuiltIn(f"{HERE}.pytorch_example", settings.NoSettings, "the example of workflow.py --test=pytorch"),
}
"""Name → what there is to know of it."""


def built_in_model(name: str) -> Callable[..., Any]:
    """Return the ``model`` function of a built-in model; ``name`` is one of :data:`BUILT_IN`."""
    function: Callable[..., Any] = importlib.import_module(BUILT_IN[name].module).model
    return function
