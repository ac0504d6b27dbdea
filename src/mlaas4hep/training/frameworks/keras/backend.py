"""Which backend Keras uses: PyTorch, unless TensorFlow is installed or somebody has chosen."""

from __future__ import annotations

import importlib.util
import os
import sys

__all__ = ["choose_backend"]


def choose_backend() -> None:
    """Set ``KERAS_BACKEND`` to ``torch`` where Keras would fail on TensorFlow, its own default; to be called before Keras is imported."""
    if "keras" not in sys.modules and importlib.util.find_spec("tensorflow") is None:
        os.environ.setdefault("KERAS_BACKEND", "torch")
