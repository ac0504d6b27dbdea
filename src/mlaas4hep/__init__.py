"""Machine Learning as a Service for High Energy Physics.

Stream ROOT data, train a model on it, pack model and preprocessing into one bundle, and serve it. Importing this package is instant: each public
name is loaded on its first use.

Examples
--------
>>> import mlaas4hep
>>> mlaas4hep.__version__
'0.1.0'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlaas4hep.inference.client import TFaaSClient
    from mlaas4hep.streaming.dataset import Dataset
    from mlaas4hep.streaming.open_dataset import open_dataset as open  # noqa: A004 - the library's own open, as in uproot.open

__version__ = "0.1.0"

_PUBLIC = {
    "Dataset": ("mlaas4hep.streaming.dataset", "Dataset"),
    "TFaaSClient": ("mlaas4hep.inference.client", "TFaaSClient"),
    "open": ("mlaas4hep.streaming.open_dataset", "open_dataset"),
}

__all__ = ["Dataset", "TFaaSClient", "__version__", "open"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mlaas4hep' has no attribute '{name}'")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
