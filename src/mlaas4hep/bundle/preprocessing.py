"""The copy of a user's preprocessing that a bundle keeps: to be read, and to be executed only by who allows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlaas4hep.streaming.selecting.preprocessing import Preprocessing

__all__ = ["PREPROCESSING_FILE", "preprocessing_copy"]

PREPROCESSING_FILE = "preprocessing.py"
"""Its name in the bundle; the manifest's ``data.preprocessing`` has the sha256 that it must have."""


def preprocessing_copy(preprocessing: Preprocessing | None) -> dict[str, bytes]:
    """Return the file for a bundle of a dataset that was preprocessed, by its name; empty where it was not."""
    return {} if preprocessing is None else {PREPROCESSING_FILE: preprocessing.text.encode()}
